"""A trained network with its calibration: from histories to quantiles and joint paths."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from hashlib import sha256
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray

from engine.clock import Clock
from engine.errors import UsageError
from forecasting.base import Array, History
from forecasting.path_habits import with_habits
from forecasting.rnn.calibration import Calibration, calibrate, draw_paths
from forecasting.rnn.experts import Index
from forecasting.rnn.model import QuantileNetwork
from forecasting.rnn.threads import one_thread
from forecasting.rnn.train import TrainingPlan, TrainingReport, split, train
from forecasting.rnn.windows import Panel
from forecasting.sample_forecast import SampleForecast
from forecasting.togetherness import arranged

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
        made: list[SampleForecast] = []
        for some in (histories[i : i + CHUNK] for i in range(0, len(histories), CHUNK)):
            made += self.paths_of(some, self.heads(some, horizon), paths)
        return made

    def heads(self, histories: Sequence[History], horizon: int) -> Array:
        """(B, horizon, len(LEVELS)) in units, calibrated, from the end of each history. Raises UsageError as above."""
        self._check(histories, horizon)
        panel = Panel(histories, context=self.plan.context, horizon=horizon, reach=self.plan.horizon)
        return self.quantiles(panel, np.arange(len(histories)), panel.lengths)

    def paths_of(self, histories: Sequence[History], heads: Array, paths: int) -> list[SampleForecast]:
        """Forecasts whose marginals are the given heads (B, horizon, levels), but for the series' habits."""
        seeds = [crc32(h.series_id.encode(), self.plan.seed) for h in histories]
        drawn = draw_paths(heads, self.calibration.correlation, paths, seeds)
        for row, history in enumerate(histories):
            drawn[row] = with_habits(drawn[row], history)
            drawn[row] = arranged(
                drawn[row], self.calibration.together, common_seed=self.plan.seed, own_seed=seeds[row]
            )
        never_negative = _never_negative(histories)
        drawn[never_negative] = np.maximum(drawn[never_negative], 0.0)
        return [
            SampleForecast(h.series_id, h.end, h.freq, p, "rnn", seed=self.plan.seed)
            for h, p in zip(histories, drawn, strict=True)
        ]

    def recalibrated(self, histories: Sequence[History], origins: Sequence[Sequence[int]]) -> "TrainedRnn":
        """The same network, calibrated on the given origins of the histories, shrunk towards what it was."""
        series = np.repeat(np.arange(len(histories)), [len(at) for at in origins])
        at = np.array([o for some in origins for o in some], dtype=np.int64)
        if not len(at):
            return self
        chosen = np.unique(np.linspace(0, len(at) - 1, min(len(at), MOST_CALIBRATION_WINDOWS)).astype(np.int64))
        used, place = np.unique(series[chosen], return_inverse=True)
        reach = self.plan.horizon
        panel = Panel([histories[i] for i in used], context=self.plan.context, horizon=reach, reach=reach)
        found = _calibrated(self.network, panel, place, at[chosen], seed=self.plan.seed, prior=self.calibration)
        return replace(self, calibration=found)

    def digest(self) -> str:
        """Of the weights: which network this is."""
        parts = [tensor.numpy().tobytes() for tensor in self.network.state_dict().values()]
        return sha256(b"".join(parts)).hexdigest()[:16]

    def quantiles(self, panel: Panel, series: Index, origins: Index) -> Array:
        """(B, horizon, len(LEVELS)) in units, at the named windows.

        Raises UsageError when the panel's step or horizon is not what the network was trained for.
        """
        self._check(panel.histories, panel.horizon)
        names = tuple(panel.histories[i].series_id for i in series)
        heads = self.calibration.apply(_raw_heads(self.network, panel, series, origins), names)
        return _keep_sign(heads, panel, series)

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


def train_rnn(
    histories: Sequence[History],
    plan: TrainingPlan,
    *,
    clock: Clock | None = None,
    shares: Array | None = None,
    start: TrainedRnn | None = None,
) -> TrainedRnn:
    """Train on all histories but their held-out tail, calibrate on the tail. ``shares``, ``start``: see ``train``;
    a calibration on few windows leans on the start's.

    Raises BadUsageData when there is too little history, or when the histories differ in step.
    """
    panel = Panel(histories, context=plan.context, horizon=plan.horizon)
    windows = split(panel)
    begin = start.network if start else None
    network, report = train(panel, plan, windows, clock=clock, shares=shares, start=begin)
    count = len(windows.held_out[0])
    chosen = np.unique(np.linspace(0, count - 1, min(count, MOST_CALIBRATION_WINDOWS)).astype(np.int64))
    series, origins = windows.held_out[0][chosen], windows.held_out[1][chosen]
    prior = start.calibration if start else None
    calibration = _calibrated(network, panel, series, origins, seed=plan.seed, prior=prior)
    return TrainedRnn(network, plan, histories[0].freq, calibration, report)


def _calibrated(
    network: QuantileNetwork, panel: Panel, series: Index, origins: Index, *, seed: int, prior: Calibration | None
) -> Calibration:
    heads = _keep_sign(_raw_heads(network, panel, series, origins), panel, series)
    truth = np.stack([_truth(panel, int(i), int(t)) for i, t in zip(series, origins, strict=True)])
    names = tuple(h.series_id for h in panel.histories)
    starts = np.array([int(h.start.timestamp() // h.freq.total_seconds()) for h in panel.histories], dtype=np.int64)
    return calibrate(heads, truth, series, names, seed=seed, prior=prior, moments=starts[series] + origins)


def _truth(panel: Panel, series: int, origin: int) -> Array:
    """NaN beyond the end of the history."""
    values = panel.histories[series].values[origin : origin + panel.horizon]
    return np.concatenate([values, np.full(panel.horizon - len(values), np.nan)])


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
