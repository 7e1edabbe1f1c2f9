"""Rolling-origin evaluation on days, and on series, that no network was trained on."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import NamedTuple

import numpy as np

from engine.clock import Clock
from engine.errors import BadUsageData
from engine.model.value import Utc, Value
from forecasting.base import Array, Forecast, History, until
from forecasting.baselines.gradient_boosting import GradientBoosting, require_boosting
from forecasting.champion import Champions, calibrated, choices
from forecasting.network import NO_NETWORK, Network, network_for
from forecasting.registry import ModelRegistry
from forecasting.reliability import Questions, ReliabilityBin, reliability
from forecasting.rnn.train import TrainingReport
from forecasting.rnn.trained import TrainedRnn
from forecasting.scale.spread import IN_PROCESS, Spread, batches
from forecasting.scores import Standing, Tally, ratio, standing
from forecasting.splits import held_out

CHAMPION = "champion"
REFERENCE = "seasonal_naive"
JUDGED = (
    CHAMPION,
    "rnn",
    REFERENCE,
    "seasonal_naive_day",
    "seasonal_naive_week",
    "hour_of_week",
    "hurdle",
    "last_value",
)
FANS = 4
FAN_LEVELS = (0.05, 0.2, 0.5, 0.8, 0.95)
FAN_PAST = timedelta(days=4)


class SeriesResult(Value):
    series_id: str
    champion: str
    unseen: bool
    """No network was trained on it, not even on its past."""
    wql_ratio: float
    rnn_ratio: float | None


class Fan(Value):
    """One forecast beside what came true, to be drawn. ``quantiles``: a row of the horizon per level; None: a gap."""

    series_id: str
    start: Utc
    step_seconds: float
    past: tuple[float | None, ...]
    truth: tuple[float | None, ...]
    levels: tuple[float, ...]
    quantiles: tuple[tuple[float, ...], ...]


class Evaluation(Value):
    """``standings`` are over all judged series, ``unseen_standings`` over those that no network was trained on (empty
    where the file has too few series to keep any back). ``left_out``: series that cannot be judged, and why."""

    horizon: int
    test_share: float
    origins: int
    series: tuple[SeriesResult, ...]
    standings: tuple[Standing, ...]
    unseen_standings: tuple[Standing, ...]
    reliability: tuple[ReliabilityBin, ...]
    left_out: tuple[str, ...]
    champions: dict[str, int]
    network: str
    training: TrainingReport | None
    rnn_missing: str
    fans: tuple[Fan, ...]


class Judge(NamedTuple):
    """A history and the step from which on it is judged."""

    history: History
    cut: int


@dataclass
class Judged:
    """Tallies by forecaster, one per series; the largest share of each series' last mixture; the questions asked."""

    tallies: dict[str, list[Tally]]
    leaders: list[str] = field(default_factory=list)
    questions: Questions = field(default_factory=Questions)
    fans: list[Fan] = field(default_factory=list)

    def include(self, part: "Judged", rows: Sequence[int], *, last: bool) -> None:
        """What was found at one origin of the series at ``rows``; ``last``: it is each series' last one."""
        for name, tallies in part.tallies.items():
            for row, tally in zip(rows, tallies, strict=True):
                self.tallies[name][row].include(tally)
        self.questions.include(part.questions)
        self.fans += part.fans
        self.leaders += part.leaders if last else []


class Setting(NamedTuple):
    """What every piece of a backtest shares. By turn: the calibrated network, and the origin of each series."""

    usable: Sequence[Judge]
    horizon: int
    origins: Sequence[Sequence[int]]
    networks: Sequence[TrainedRnn | None]
    boosting: bool

    def names(self) -> list[str]:
        """Of the forecasters that are judged."""
        also = [GradientBoosting.name] if self.boosting else []
        return [name for name in (*JUDGED, *also) if name != "rnn" or any(self.networks)]


def evaluate(
    histories: Sequence[History],
    horizon: int,
    *,
    test_share: float = 0.2,
    origins: int = 8,
    budget_seconds: float = 120.0,
    seed: int = 0,
    registry: ModelRegistry | None = None,
    clock: Clock | None = None,
    boosting: bool = False,
    spread: Spread = IN_PROCESS,
) -> Evaluation:
    """Train on the first part of the series that are not held out, then forecast every series from ``origins`` evenly
    spaced moments in the rest; at each moment all that was measured before it may be used to calibrate and choose.

    ``boosting``: judge gradient boosting beside the others; seconds per series and origin. Raises BadUsageData when no
    series is long enough for one horizon in its test span, MissingPart for boosting without its extra.
    """
    if boosting:
        require_boosting()
    usable = [Judge(h, cut) for h in histories if _testable(h, cut := int(len(h.values) * (1 - test_share)), horizon)]
    if not usable:
        raise BadUsageData(
            "no series is long enough to evaluate",
            why=f"the last {test_share:.0%} must hold {horizon} steps after some measured history",
            next_step="give a longer history or a shorter --horizon",
        )
    unseen = _kept_back([each.history.series_id for each in usable])
    train_on = [until(h, cut) for h, cut in usable if h.series_id not in unseen]
    network, missing = NO_NETWORK, ""
    try:
        network = network_for(train_on, horizon, budget_seconds, seed, registry=registry, clock=clock)
    except BadUsageData as problem:
        missing = f"{problem.what}: {problem.why}"
    judged = judge(network, usable, horizon, origins, boosting=boosting, spread=spread)
    return _report(judged, usable, unseen, network, missing, horizon, test_share, origins, len(histories))


def judge(
    network: Network,
    usable: Sequence[Judge],
    horizon: int,
    origins: int,
    *,
    boosting: bool = False,
    spread: Spread = IN_PROCESS,
) -> Judged:
    """Every forecaster at every origin, given only what was measured before it."""
    turns = range(origins)
    at = [[_origin(h, cut, horizon, turn, origins) for h, cut in usable] for turn in turns]
    networks = list(spread.map(_calibrated, (network, usable, horizon), at, what="calibrating"))
    setting = Setting(usable, horizon, at, networks, boosting)
    judged = Judged({name: [Tally() for _ in usable] for name in setting.names()})
    pieces = [(turn, rows) for turn in turns for rows in batches(range(len(usable)))]
    found = spread.map(_judged, setting, pieces, what="judging")
    for (turn, rows), part in zip(pieces, found, strict=True):
        judged.include(part, rows, last=turn == turns[-1])
    return judged


def _calibrated(shared: tuple[Network, Sequence[Judge], int], origins: Sequence[int]) -> TrainedRnn | None:
    """A piece of work: the network, calibrated on what came before the origins."""
    network, usable, horizon = shared
    return calibrated(network, [until(h, o) for (h, _), o in zip(usable, origins, strict=True)], horizon)


def _judged(setting: Setting, piece: tuple[int, Sequence[int]]) -> Judged:
    """A piece of work: every forecaster on the named series (positions) at one turn."""
    turn, rows = piece
    rnn, horizon = setting.networks[turn], setting.horizon
    at = [(setting.usable[row].history, setting.origins[turn][row]) for row in rows]
    past, truths = [until(h, o) for h, o in at], [h.values[o : o + horizon] for h, o in at]
    field_ = Champions(rnn, tuple(choices(rnn, past, horizon)), NO_NETWORK, "")
    judged = Judged({name: [Tally() for _ in rows] for name in setting.names()})
    for name, tallies in judged.tallies.items():
        made = field_.forecast(past, horizon, by=None if name == CHAMPION else name)
        for tally, truth, forecast in zip(tallies, truths, made, strict=True):
            tally.add(truth, forecast)
        if name == CHAMPION:
            for row, history, truth, forecast in zip(rows, past, truths, made, strict=True):
                judged.questions.ask(history, truth, forecast, horizon * history.freq)
                if row < FANS and turn == len(setting.origins) // 2:
                    judged.fans.append(_fan(history, truth, forecast))
    judged.leaders = [choice.forecaster for choice in field_.choices]
    return judged


def standings(judged: Judged, series: Sequence[int]) -> tuple[Standing, ...]:
    """Of every forecaster over the given series (positions); empty for none."""
    reference = [judged.tallies[REFERENCE][i] for i in series]
    if not reference:
        return ()
    return tuple(standing(name, [own[i] for i in series], reference) for name, own in judged.tallies.items())


def judgeable(judged: Judged) -> list[int]:
    """Positions of the series where there was something to lose."""
    return [i for i, tally in enumerate(judged.tallies[REFERENCE]) if tally.loss > 0 and tally.truth > 0]


def _report(
    judged: Judged,
    usable: Sequence[Judge],
    unseen: frozenset[str],
    network: Network,
    missing: str,
    horizon: int,
    test_share: float,
    origins: int,
    given: int,
) -> Evaluation:
    kept = judgeable(judged)
    names = [each.history.series_id for each in usable]
    left_out = [f"{name}: nothing to lose in the test span" for i, name in enumerate(names) if i not in kept]
    if given > len(usable):
        left_out.append(f"{given - len(usable)} series: too short for the horizon")
    return Evaluation(
        horizon=horizon,
        test_share=test_share,
        origins=origins,
        series=tuple(_series_result(judged, i, names[i], unseen) for i in kept),
        standings=standings(judged, kept),
        unseen_standings=standings(judged, [i for i in kept if names[i] in unseen]),
        reliability=reliability(judged.questions),
        left_out=tuple(left_out),
        champions=dict(Counter(judged.leaders)),
        network=network.origin,
        training=network.rnn.report if network.rnn else None,
        rnn_missing=missing,
        fans=tuple(judged.fans),
    )


def _series_result(judged: Judged, i: int, name: str, unseen: frozenset[str]) -> SeriesResult:
    reference = judged.tallies[REFERENCE][i].loss
    return SeriesResult(
        series_id=name,
        champion=judged.leaders[i],
        unseen=name in unseen,
        wql_ratio=ratio(judged.tallies[CHAMPION][i].loss, reference),
        rnn_ratio=ratio(judged.tallies["rnn"][i].loss, reference) if "rnn" in judged.tallies else None,
    )


def _fan(past: History, truth: Array, forecast: Forecast) -> Fan:
    before = past.values[-int(FAN_PAST / past.freq) :]
    return Fan(
        series_id=past.series_id,
        start=past.end,
        step_seconds=past.freq.total_seconds(),
        past=_gaps_as_none(before),
        truth=_gaps_as_none(truth),
        levels=FAN_LEVELS,
        quantiles=tuple(tuple(float(x) for x in forecast.quantile(level)) for level in FAN_LEVELS),
    )


def _gaps_as_none(values: Array) -> tuple[float | None, ...]:
    return tuple(float(x) if np.isfinite(x) else None for x in values)


def _kept_back(names: Sequence[str]) -> frozenset[str]:
    """The held-out series, unless that would leave hardly any to train on."""
    back = frozenset(name for name in names if held_out(name))
    return back if len(names) - len(back) >= 2 else frozenset()


def _origin(history: History, cut: int, horizon: int, turn: int, origins: int) -> int:
    last = len(history.values) - horizon
    return cut + (last - cut) * turn // max(origins - 1, 1)


def _testable(history: History, cut: int, horizon: int) -> bool:
    return len(history.values) - cut >= horizon and bool(np.isfinite(history.values[:cut]).any())
