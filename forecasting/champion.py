"""Which forecasters serve which series, and by how much: whoever did well on recent rolling origins."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from engine.clock import Clock
from engine.errors import BadUsageData
from engine.model.value import Value
from forecasting.base import Array, Forecaster, History, until
from forecasting.baselines.gradient_boosting import GradientBoosting
from forecasting.baselines.hour_of_week import HourOfWeek
from forecasting.baselines.hurdle import Hurdle, intermittent
from forecasting.baselines.last_value import LastValue
from forecasting.baselines.seasonal_naive import SeasonalNaive
from forecasting.losses import quantile_loss, weighted_quantile_loss
from forecasting.network import NO_NETWORK, Network, network_for
from forecasting.registry import ModelRegistry
from forecasting.rnn.levels import LEVELS
from forecasting.rnn.train import TrainingPlan, TrainingReport
from forecasting.rnn.trained import TrainedRnn
from forecasting.sample_forecast import SampleForecast
from forecasting.scale.spread import IN_PROCESS, Spread, batches
from forecasting.selection import RNN, Weight, as_words, mixture, recent_origins

SCORED = (SeasonalNaive().name, HourOfWeek.name, LastValue.name)
"""The baselines that may take a share of a series; of an intermittent one, the hurdle as well."""
FEWEST_COUNTED = 48
"""Fewer values than this may be whole by chance."""


class Score(Value):
    """Weighted quantile loss (deciles) of one forecaster on one series' recent origins; smaller is better."""

    forecaster: str
    wql: float


class Choice(Value):
    """``forecaster`` has the largest share; ``why`` says in words how it came to be chosen, a fall-back included."""

    series_id: str
    forecaster: str
    weights: tuple[Weight, ...]
    scores: tuple[Score, ...]
    why: str
    whole: bool = False
    """Counted in whole numbers, and so forecast, since that loses no more on recent origins."""

    def wql_of(self, forecaster: str) -> float | None:
        return next((score.wql for score in self.scores if score.forecaster == forecaster), None)


@dataclass(frozen=True)
class Champions:
    """The network (None: too little history for one), and a choice per series."""

    rnn: TrainedRnn | None
    choices: tuple[Choice, ...]
    network: Network
    """The network before it was calibrated on these histories, and where it came from."""
    rnn_missing: str
    """Why there is no network; empty when there is one."""

    @property
    def loaded(self) -> bool:
        return self.network.loaded

    @property
    def training(self) -> TrainingReport | None:
        return self.rnn.report if self.rnn else None

    def forecast(
        self,
        histories: Sequence[History],
        horizon: int,
        *,
        paths: int = 400,
        by: str | None = None,
        spread: Spread = IN_PROCESS,
    ) -> list[SampleForecast]:
        """One forecast per history, by the mixture of its series (or by the forecaster named ``by``).

        A series without a choice goes to the network if there is one. A baseline that cannot serve falls back to
        last value; ``forecaster`` of the result always names who made it, in a mixture the largest share.
        """
        weighted = [(h, self.weights_of(h, by)) for h in histories]
        setting = (self.rnn, weighted, horizon, paths)
        made = spread.map(_forecasts, setting, batches(range(len(weighted))), what="forecasting")
        everything = [forecast for some in made for forecast in some]
        return self._counted(everything) if by is None else everything

    def _counted(self, made: Sequence[SampleForecast]) -> list[SampleForecast]:
        return [forecast.in_whole_numbers() if self._is_whole(forecast.series_id) else forecast for forecast in made]

    def in_whole_numbers(self, history: History) -> bool:
        return self._is_whole(history.series_id)

    def weights_of(self, history: History, by: str | None = None) -> tuple[Weight, ...]:
        """Who makes the forecast of this series, and by how much."""
        choice = self.choice_of(history.series_id) if by is None else None
        if choice is not None:
            return choice.weights
        fallback = RNN if self.rnn else SeasonalNaive().name
        return (Weight(forecaster=by or fallback, share=1.0),)

    def choice_of(self, series_id: str) -> Choice | None:
        return self._by_id.get(series_id)

    @cached_property
    def _by_id(self) -> dict[str, Choice]:
        return {choice.series_id: choice for choice in self.choices}

    def _is_whole(self, series_id: str) -> bool:
        choice = self.choice_of(series_id)
        return choice is not None and choice.whole


def champions(
    histories: Sequence[History],
    horizon: int,
    *,
    budget_seconds: float = 30.0,
    seed: int = 0,
    registry: ModelRegistry | None = None,
    clock: Clock | None = None,
    plan: TrainingPlan | None = None,
    train_on: Sequence[History] | None = None,
    spread: Spread = IN_PROCESS,
) -> Champions:
    """Get the network (see ``network_for``), then calibrate and choose on recent origins (see ``chosen``).

    ``plan``: train anew by it, whatever ships with the package. ``train_on``: train on these instead. Never raises for
    short histories: it falls back and says so. Raises BadUsageData when a series holds no value at all, or when the
    series have different steps.
    """
    found, missing = NO_NETWORK, ""
    try:
        found = network_for(
            train_on or histories, horizon, budget_seconds, seed, registry=registry, clock=clock, plan=plan
        )
    except BadUsageData as problem:
        missing = f"{problem.what}: {problem.why}"
    return chosen(found, histories, horizon, missing=missing, spread=spread)


def chosen(
    network: Network, histories: Sequence[History], horizon: int, *, missing: str = "", spread: Spread = IN_PROCESS
) -> Champions:
    """Calibrate the network on recent origins of the histories and weigh it against the baselines, series by series."""
    rnn = calibrated(network, histories, horizon)
    found = spread.map(_choices, (rnn, histories, horizon), batches(range(len(histories))), what="scoring")
    return Champions(rnn, tuple(choice for some in found for choice in some), network, missing)


def calibrated(network: Network, histories: Sequence[History], horizon: int) -> TrainedRnn | None:
    """The network, calibrated on recent origins of all histories together: this cannot be done in pieces."""
    return network.rnn.recalibrated(histories, [recent_origins(h, horizon) for h in histories]) if network.rnn else None


def _choices(shared: tuple[TrainedRnn | None, Sequence[History], int], rows: Sequence[int]) -> list[Choice]:
    """A piece of work: the choices of the histories at ``rows``."""
    rnn, histories, horizon = shared
    return choices(rnn, [histories[row] for row in rows], horizon)


def choices(rnn: TrainedRnn | None, histories: Sequence[History], horizon: int) -> list[Choice]:
    """One per series; the network is calibrated already."""
    origins = [recent_origins(h, horizon) for h in histories]
    by_rnn = _rnn_losses(rnn, histories, origins, horizon)
    return [_choose(h, o, losses, horizon) for h, o, losses in zip(histories, origins, by_rnn, strict=True)]


def by_baseline(name: str, history: History, horizon: int) -> SampleForecast:
    """The named baseline, or last value when the history is too short for it."""
    for forecaster in (baseline for baseline in baselines() if baseline.name == name):
        try:
            forecaster.fit(history)
        except BadUsageData:
            break
        made = forecaster.predict(horizon)
        assert isinstance(made, SampleForecast)
        return made
    return LastValue().fit(history).predict(horizon)


def baselines() -> tuple[Forecaster, ...]:
    """Whoever may be asked for by name; gradient boosting needs an extra and takes no share of any series."""
    seasonal = (SeasonalNaive(), SeasonalNaive("day"), SeasonalNaive("week"))
    return (*seasonal, HourOfWeek(), Hurdle(), LastValue(), GradientBoosting())


def _forecasts(
    shared: tuple[TrainedRnn | None, Sequence[tuple[History, tuple[Weight, ...]]], int, int], rows: Sequence[int]
) -> list[SampleForecast]:
    """A piece of work: the forecasts of the histories at ``rows``. ``shared``: the network, all histories with their
    weights, horizon, paths."""
    rnn, everything, horizon, paths = shared
    weighted = [everything[row] for row in rows]
    made: dict[int, SampleForecast] = {}
    networked = [i for i, (_, some) in enumerate(weighted) if any(w.forecaster == RNN for w in some)]
    if rnn and networked:
        histories = [weighted[i][0] for i in networked]
        heads = rnn.heads(histories, horizon)
        for row, i in enumerate(networked):
            history, weights = weighted[i]
            if len(weights) > 1:
                heads[row] = _mixed(heads[row], weights, history, horizon)
        for i, forecast in zip(networked, rnn.paths_of(histories, heads, paths), strict=True):
            forecast.forecaster = weighted[i][1][0].forecaster
            made[i] = forecast
    return [
        made[i] if i in made else by_baseline(weights[0].forecaster, history, horizon)
        for i, (history, weights) in enumerate(weighted)
    ]


def _mixed(heads: Array, weights: Sequence[Weight], history: History, horizon: int) -> Array:
    """(horizon, levels): quantiles averaged level by level, which cannot make them cross."""
    mixed = np.zeros_like(heads)
    for weight in weights:
        if weight.forecaster == RNN:
            mixed += weight.share * heads
        else:
            made = by_baseline(weight.forecaster, history, horizon)
            mixed += weight.share * np.stack([made.quantile(level) for level in LEVELS], axis=-1)
    return mixed


class _Lost(NamedTuple):
    """Quantile loss at each origin, of the forecasts as they are and in whole numbers."""

    plain: list[float]
    whole: list[float]


def _lost(truths: Sequence[Array], forecasts: Sequence[SampleForecast], *, counted: bool) -> _Lost:
    plain = [quantile_loss(y, f) for y, f in zip(truths, forecasts, strict=True)]
    rounded = (
        [quantile_loss(y, f.in_whole_numbers()) for y, f in zip(truths, forecasts, strict=True)] if counted else []
    )
    return _Lost(plain, rounded)


def counted(history: History) -> bool:
    """Whether every value is a whole number, and there are enough to tell."""
    measured = history.values[np.isfinite(history.values)]
    return len(measured) >= FEWEST_COUNTED and bool((measured % 1 == 0).all())


def _rnn_losses(
    rnn: TrainedRnn | None, histories: Sequence[History], origins: Sequence[list[int]], horizon: int
) -> list[_Lost | None]:
    """Per series; None without a network."""
    if rnn is None:
        return [None] * len(histories)
    past = [until(h, o) for h, at in zip(histories, origins, strict=True) for o in at]
    made = iter(rnn.forecast(past, horizon, paths=200))
    return [
        _lost([h.values[o : o + horizon] for o in at], [next(made) for _ in at], counted=counted(h))
        for h, at in zip(histories, origins, strict=True)
    ]


def _choose(history: History, origins: list[int], by_rnn: _Lost | None, horizon: int) -> Choice:
    truths = [history.values[o : o + horizon] for o in origins]
    losses = {} if by_rnn is None else {RNN: by_rnn}
    for name in (*SCORED, Hurdle.name) if intermittent(history) else SCORED:
        lost = _baseline_losses(name, history, origins, horizon)
        if lost is not None:
            losses[name] = lost
    seasonal_unscored = by_rnn is None and SeasonalNaive().name not in losses
    if seasonal_unscored or not origins:
        return _unscored(history, by_rnn is not None, horizon)
    weights = mixture({name: float(np.mean(lost.plain)) for name, lost in losses.items()}, SCORED[0], len(origins))
    scores = {name: weighted_quantile_loss(lost.plain, truths) for name, lost in losses.items()}
    return Choice(
        series_id=history.series_id,
        forecaster=weights[0].forecaster,
        weights=weights,
        scores=tuple(Score(forecaster=name, wql=wql) for name, wql in scores.items() if np.isfinite(wql)),
        why=f"{as_words(weights)}, by the loss on {len(origins)} recent origins",
        whole=_better_whole([(weight.share, losses[weight.forecaster]) for weight in weights]),
    )


def _better_whole(shares: Sequence[tuple[float, _Lost]]) -> bool:
    """Whether whole numbers lose no more, each forecaster counting by its share."""
    plain = sum(share * sum(lost.plain) for share, lost in shares)
    return all(lost.whole for _, lost in shares) and sum(share * sum(lost.whole) for share, lost in shares) <= plain


def _baseline_losses(name: str, history: History, origins: list[int], horizon: int) -> _Lost | None:
    """None when the baseline cannot serve even the first origin."""
    made = []
    for origin in origins:
        made.append(by_baseline(name, until(history, origin), horizon))
        if made[-1].forecaster != name:
            return None
    return _lost([history.values[o : o + horizon] for o in origins], made, counted=counted(history))


def _unscored(history: History, has_rnn: bool, horizon: int) -> Choice:
    """Too short to hold anything back: the network of the other series, else the first baseline that serves."""
    by = RNN if has_rnn else by_baseline(SeasonalNaive().name, history, horizon).forecaster
    measured = int(np.isfinite(history.values).sum())
    why = (
        f"cold start: {measured} values are too short a history to score; the network was trained on other series"
        if has_rnn
        else "too short a history to train or score the network"
    )
    LastValue().fit(history)  # a series without any value is refused
    weights = (Weight(forecaster=by, share=1.0),)
    return Choice(series_id=history.series_id, forecaster=by, weights=weights, scores=(), why=why)
