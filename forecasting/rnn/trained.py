"""A trained network with its calibration: from histories to quantiles and joint paths."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray

from engine.clock import Clock
from engine.errors import UsageError
from forecasting.base import Array, History
from forecasting.rnn.calibration import Calibration, calibrate, draw_paths
from forecasting.rnn.model import QuantileNetwork
from forecasting.rnn.threads import one_thread
from forecasting.rnn.train import Split, TrainingPlan, TrainingReport, split, train
from forecasting.rnn.windows import Index, Panel
from forecasting.sample_forecast import SampleForecast

CHUNK = 512
"""Windows that go through the network at once."""
MOST_CALIBRATION_WINDOWS = 4000


@dataclass(frozen=True)
class TrainedRnn:
    """Serves any series of its frequency, trained on or not, up to the horizon of its plan."""

    network: QuantileNetwork
    plan: TrainingPlan
    freq: timedelta
    calibration: Calibration
    report: TrainingReport

    def forecast(self, histories: Sequence[History], horizon: int, *, paths: int = 400) -> list[SampleForecast]:
        """One forecast per history, in order, each with ``paths`` joint paths. Raises UsageError: see ``quantiles``."""
        self._check(histories, horizon)
        made: list[SampleForecast] = []
        for some in (histories[i : i + CHUNK] for i in range(0, len(histories), CHUNK)):
            heads = self._heads_at_end(some, horizon)
            seeds = [crc32(h.series_id.encode(), self.plan.seed) for h in some]
            drawn = draw_paths(heads, self.calibration.correlation, paths, seeds)
            never_negative = _never_negative(some)
            drawn[never_negative] = np.maximum(drawn[never_negative], 0.0)
            made += [
                SampleForecast(h.series_id, h.end, h.freq, p, "rnn", seed=self.plan.seed)
                for h, p in zip(some, drawn, strict=True)
            ]
        return made

    def quantiles(self, panel: Panel, series: Index, origins: Index) -> Array:
        """(B, horizon, len(LEVELS)) in units, at the named windows.

        Raises UsageError when the panel's step or horizon is not what the network was trained for.
        """
        self._check(panel.histories, panel.horizon)
        names = tuple(panel.histories[i].series_id for i in series)
        heads = self.calibration.apply(_raw_heads(self.network, panel, series, origins), names)
        return _keep_sign(heads, panel, series)

    def _heads_at_end(self, histories: Sequence[History], horizon: int) -> Array:
        panel = Panel(histories, context=self.plan.context, horizon=horizon, reach=self.plan.horizon)
        return self.quantiles(panel, np.arange(len(histories)), panel.lengths)

    def _check(self, histories: Sequence[History], horizon: int) -> None:
        if horizon > self.plan.horizon:
            raise UsageError(
                f"the network forecasts {self.plan.horizon} steps, not {horizon}",
                why="that is the horizon that it was trained for",
                next_step=f"train with horizon={horizon}",
            )
        wrong = next((h for h in histories if h.freq != self.freq), None)
        if wrong is not None:
            raise UsageError(
                f"series {wrong.series_id!r} has steps of {wrong.freq}",
                why=f"the network was trained on steps of {self.freq}",
                next_step="bring the usage to that step (--freq), or train again",
            )


def train_rnn(histories: Sequence[History], plan: TrainingPlan, *, clock: Clock | None = None) -> TrainedRnn:
    """Train on all histories but their held-out tail, calibrate on the tail.

    Raises BadUsageData when there is too little history, or when the histories differ in step.
    """
    panel = Panel(histories, context=plan.context, horizon=plan.horizon)
    windows = split(panel)
    network, report = train(panel, plan, windows, clock=clock)
    return TrainedRnn(network, plan, histories[0].freq, _calibrated(network, panel, windows, plan.seed), report)


def _calibrated(network: QuantileNetwork, panel: Panel, windows: Split, seed: int) -> Calibration:
    count = len(windows.held_out[0])
    chosen = np.unique(np.linspace(0, count - 1, min(count, MOST_CALIBRATION_WINDOWS)).astype(np.int64))
    series, origins = windows.held_out[0][chosen], windows.held_out[1][chosen]
    heads = _keep_sign(_raw_heads(network, panel, series, origins), panel, series)
    truth = np.stack([_truth(panel, int(i), int(t)) for i, t in zip(series, origins, strict=True)])
    names = tuple(h.series_id for h in panel.histories)
    return calibrate(heads, truth, series, names, seed=seed)


def _truth(panel: Panel, series: int, origin: int) -> Array:
    return panel.histories[series].values[origin : origin + panel.horizon]


@one_thread()
@torch.no_grad()
def _raw_heads(network: QuantileNetwork, panel: Panel, series: Index, origins: Index) -> Array:
    network.eval()
    parts = []
    for at in range(0, len(series), CHUNK):
        batch = panel.gather(series[at : at + CHUNK], origins[at : at + CHUNK])
        scaled = network(batch).double().numpy()
        parts.append(scaled * batch.scale[:, None, None] + batch.loc[:, None, None])
    return np.concatenate(parts)


def _keep_sign(heads: Array, panel: Panel, series: Index) -> Array:
    """Usage that was never negative is not forecast to be."""
    never_negative = _never_negative(panel.histories)[series]
    return np.where(never_negative[:, None, None], np.maximum(heads, 0.0), heads)


def _never_negative(histories: Sequence[History]) -> NDArray[np.bool_]:
    return np.array([not (h.values < 0).any() for h in histories])
