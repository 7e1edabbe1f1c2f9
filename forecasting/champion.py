"""Which forecaster serves which series: whoever did best on recent rolling origins."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from engine.clock import Clock
from engine.errors import BadUsageData
from engine.model.value import Value
from forecasting.base import Array, Forecaster, History
from forecasting.baselines.last_value import LastValue
from forecasting.baselines.seasonal_naive import SeasonalNaive
from forecasting.losses import quantile_loss, weighted_quantile_loss
from forecasting.registry import ModelRegistry, load_or_train
from forecasting.rnn.train import TrainingPlan, TrainingReport
from forecasting.rnn.trained import TrainedRnn
from forecasting.sample_forecast import SampleForecast

RNN = "rnn"
ORIGINS = 8
"""Recent origins that are scored per series."""
HOME_ADVANTAGE = 0.9
"""A baseline takes a series from the network only when it loses less than this share of the network's loss:
eight origins are few, and the network's prior (all the other series) counts for something."""


class Score(Value):
    """Weighted quantile loss (deciles) of one forecaster on one series' recent origins; smaller is better."""

    forecaster: str
    wql: float


class Choice(Value):
    """``why`` says in words how the forecaster came to be chosen, a fall-back included."""

    series_id: str
    forecaster: str
    scores: tuple[Score, ...]
    why: str

    def wql_of(self, forecaster: str) -> float | None:
        return next((score.wql for score in self.scores if score.forecaster == forecaster), None)


@dataclass(frozen=True)
class Champions:
    """The network (None: too little history for one), and a choice per series."""

    rnn: TrainedRnn | None
    choices: tuple[Choice, ...]
    loaded: bool
    """The network came from the registry."""
    rnn_missing: str
    """Why there is no network; empty when there is one."""

    @property
    def training(self) -> TrainingReport | None:
        return self.rnn.report if self.rnn else None

    def forecast(
        self, histories: Sequence[History], horizon: int, *, paths: int = 400, by: str | None = None
    ) -> list[SampleForecast]:
        """One forecast per history, by the champion of its series (or by the forecaster named ``by``).

        A series without a choice goes to the network if there is one. A baseline that cannot serve falls back to
        last value; ``forecaster`` of the result always names who made it.
        """
        chosen = {choice.series_id: choice.forecaster for choice in self.choices}
        names = [by or chosen.get(h.series_id, RNN if self.rnn else SeasonalNaive().name) for h in histories]
        for_rnn = [i for i, name in enumerate(names) if name == RNN and self.rnn]
        made: dict[int, SampleForecast] = {}
        if for_rnn and self.rnn:
            made = dict(
                zip(for_rnn, self.rnn.forecast([histories[i] for i in for_rnn], horizon, paths=paths), strict=True)
            )
        return [made[i] if i in made else by_baseline(names[i], h, horizon) for i, h in enumerate(histories)]


def champions(
    histories: Sequence[History],
    horizon: int,
    *,
    budget_seconds: float = 30.0,
    seed: int = 0,
    registry: ModelRegistry | None = None,
    clock: Clock | None = None,
    plan: TrainingPlan | None = None,
) -> Champions:
    """Load or train the network, then choose per series. Never raises for short histories: it falls back and says so.

    Raises BadUsageData when a series holds no value at all, or when the series have different steps.
    """
    plan = plan or TrainingPlan(horizon=horizon, budget_seconds=budget_seconds, seed=seed)
    rnn, loaded, missing = None, False, ""
    try:
        rnn, loaded = load_or_train(registry, histories, plan, clock=clock)
    except BadUsageData as problem:
        missing = f"{problem.what}: {problem.why}"
    origins = [_recent_origins(h, horizon) for h in histories]
    by_rnn = _rnn_losses(rnn, histories, origins, horizon)
    choices = tuple(_choose(h, o, losses, horizon) for h, o, losses in zip(histories, origins, by_rnn, strict=True))
    return Champions(rnn, choices, loaded, missing)


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
    return (SeasonalNaive(), SeasonalNaive("day"), SeasonalNaive("week"), LastValue())


def _recent_origins(history: History, horizon: int) -> list[int]:
    """Up to eight origins in the last 15 % (at least a day and a horizon) of the history, the newest last."""
    length = len(history.values)
    tail = max(int(0.15 * length), int(timedelta(days=1) / history.freq) + horizon)
    first = max(length - tail, length * 2 // 3, 1)
    return sorted({int(o) for o in np.linspace(first, length - horizon, ORIGINS) if first <= o <= length - horizon})


def _rnn_losses(
    rnn: TrainedRnn | None, histories: Sequence[History], origins: Sequence[list[int]], horizon: int
) -> list[list[float] | None]:
    """Per series the quantile loss at each origin; None without a network."""
    if rnn is None:
        return [None] * len(histories)
    past = [_until(h, o) for h, at in zip(histories, origins, strict=True) for o in at]
    truth = [h.values[o : o + horizon] for h, at in zip(histories, origins, strict=True) for o in at]
    losses = iter([quantile_loss(y, f) for y, f in zip(truth, rnn.forecast(past, horizon, paths=200), strict=True)])
    return [[next(losses) for _ in at] for at in origins]


def _choose(history: History, origins: list[int], rnn_losses: list[float] | None, horizon: int) -> Choice:
    truths = [history.values[o : o + horizon] for o in origins]
    scores = {} if rnn_losses is None else {RNN: weighted_quantile_loss(rnn_losses, truths)}
    for name in (SeasonalNaive().name, LastValue().name):
        losses = _baseline_losses(name, history, origins, truths, horizon)
        if losses is not None:
            scores[name] = weighted_quantile_loss(losses, truths)
    seasonal_unscored = rnn_losses is None and SeasonalNaive().name not in scores
    if seasonal_unscored or not any(np.isfinite(t).any() for t in truths):
        return _unscored(history, rnn_losses is not None, horizon)
    finite = {name: loss for name, loss in scores.items() if np.isfinite(loss)}
    best = min(finite, key=lambda name: finite[name] * (HOME_ADVANTAGE if name == RNN else 1.0), default=LastValue.name)
    return Choice(
        series_id=history.series_id,
        forecaster=best,
        scores=tuple(Score(forecaster=name, wql=loss) for name, loss in finite.items()),
        why=f"lowest weighted quantile loss on {len(origins)} recent origins",
    )


def _baseline_losses(
    name: str, history: History, origins: list[int], truths: list[Array], horizon: int
) -> list[float] | None:
    """None when the baseline cannot serve even the first origin."""
    losses = []
    for origin, truth in zip(origins, truths, strict=True):
        past = _until(history, origin)
        if not np.isfinite(past.values).any():
            return None
        made = by_baseline(name, past, horizon)
        if made.forecaster != name:
            return None
        losses.append(quantile_loss(truth, made))
    return losses


def _unscored(history: History, has_rnn: bool, horizon: int) -> Choice:
    """Too short to hold anything back: the network of the other series, else the first baseline that serves."""
    if has_rnn:
        return Choice(
            series_id=history.series_id, forecaster=RNN, scores=(), why="too short to score; trained on others"
        )
    made = by_baseline(SeasonalNaive().name, history, horizon)
    why = "too short a history to train or score the network"
    return Choice(series_id=history.series_id, forecaster=made.forecaster, scores=(), why=why)


def _until(history: History, origin: int) -> History:
    return History(history.series_id, history.start, history.freq, history.values[:origin], synthetic=history.synthetic)
