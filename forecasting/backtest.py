"""Rolling-origin evaluation on days that no forecaster was trained, calibrated or chosen on."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from engine.clock import Clock
from engine.errors import BadUsageData
from engine.model.value import Value
from forecasting.base import Array, History
from forecasting.champion import Champions, champions
from forecasting.losses import geometric_mean, pinball, quantile_loss
from forecasting.registry import ModelRegistry
from forecasting.rnn.train import TrainingReport
from forecasting.sample_forecast import SampleForecast

CHAMPION = "champion"
REFERENCE = "seasonal_naive"
JUDGED = (CHAMPION, "rnn", "seasonal_naive", "seasonal_naive_day", "seasonal_naive_week", "last_value")
TAILS = (0.95, 0.99)


class Standing(Value):
    """One forecaster over all series. Ratios are geometric means over series of loss / seasonal-naive loss;
    coverages are shares of the measured steps, over all series and origins."""

    forecaster: str
    wql: float
    wql_ratio: float
    worst_ratio: float
    pinball_95_ratio: float
    pinball_99_ratio: float
    coverage_80: float
    coverage_90: float
    below_99: float


class SeriesResult(Value):
    series_id: str
    champion: str
    wql_ratio: float
    rnn_ratio: float | None


class Evaluation(Value):
    """``left_out``: series that cannot be judged (zero demand or zero reference loss in the test span), and why."""

    horizon: int
    test_share: float
    origins: int
    series: tuple[SeriesResult, ...]
    standings: tuple[Standing, ...]
    left_out: tuple[str, ...]
    champions: dict[str, int]
    training: TrainingReport | None
    rnn_missing: str


class _Tally:
    """Losses of one forecaster on one series."""

    def __init__(self) -> None:
        self.loss = 0.0
        self.tails = [0.0 for _ in TAILS]
        self.inside_80 = self.inside_90 = self.below_99 = self.steps = 0

    def add(self, truth: Array, forecast: SampleForecast) -> None:
        self.loss += quantile_loss(truth, forecast)
        for i, q in enumerate(TAILS):
            self.tails[i] += float(np.nansum(pinball(truth, forecast.quantile(q), q)))
        self.steps += int(np.isfinite(truth).sum())
        self.inside_80 += _inside(truth, forecast, 0.1, 0.9)
        self.inside_90 += _inside(truth, forecast, 0.05, 0.95)
        self.below_99 += int(np.sum(truth <= forecast.quantile(0.99)))


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
) -> Evaluation:
    """Fit on the first part of each history, then forecast from ``origins`` evenly spaced moments in the rest.

    Raises BadUsageData when no series is long enough for one horizon in its test span.
    """
    cuts = [int(len(h.values) * (1 - test_share)) for h in histories]
    usable = [(h, cut) for h, cut in zip(histories, cuts, strict=True) if _testable(h, cut, horizon)]
    if not usable:
        raise BadUsageData(
            "no series is long enough to evaluate",
            why=f"the last {test_share:.0%} must hold {horizon} steps after some measured history",
            next_step="give a longer history or a shorter --horizon",
        )
    field = champions(
        [_until(h, cut) for h, cut in usable],
        horizon,
        budget_seconds=budget_seconds,
        seed=seed,
        registry=registry,
        clock=clock,
    )
    names = tuple(name for name in JUDGED if name != "rnn" or field.rnn)
    tallies = _judge(field, names, usable, horizon, origins)
    return _report(field, names, tallies, usable, horizon, test_share, origins, len(histories))


def _judge(
    field: Champions, names: tuple[str, ...], usable: Sequence[tuple[History, int]], horizon: int, origins: int
) -> dict[str, list[_Tally]]:
    tallies = {name: [_Tally() for _ in usable] for name in names}
    for turn in range(origins):
        at = [_origin(h, cut, horizon, turn, origins) for h, cut in usable]
        past = [_until(h, o) for (h, _), o in zip(usable, at, strict=True)]
        for name in names:
            made = field.forecast(past, horizon, by=None if name == CHAMPION else name)
            for tally, (h, _), o, forecast in zip(tallies[name], usable, at, made, strict=True):
                tally.add(h.values[o : o + horizon], forecast)
    return tallies


def _report(
    field: Champions,
    names: tuple[str, ...],
    tallies: dict[str, list[_Tally]],
    usable: Sequence[tuple[History, int]],
    horizon: int,
    test_share: float,
    origins: int,
    given: int,
) -> Evaluation:
    reference = tallies[REFERENCE]
    weights = [float(np.nansum(np.abs(h.values[cut:]))) for h, cut in usable]
    judged = [i for i, tally in enumerate(reference) if tally.loss > 0 and weights[i] > 0]
    left_out = [
        f"{h.series_id}: nothing to lose in the test span" for i, (h, _) in enumerate(usable) if i not in judged
    ]
    if given > len(usable):
        left_out.append(f"{given - len(usable)} series: too short for the horizon")
    total = _total_demand(usable, judged, horizon, origins)
    return Evaluation(
        horizon=horizon,
        test_share=test_share,
        origins=origins,
        series=tuple(
            SeriesResult(
                series_id=usable[i][0].series_id,
                champion=field.choices[i].forecaster,
                wql_ratio=tallies[CHAMPION][i].loss / reference[i].loss,
                rnn_ratio=tallies["rnn"][i].loss / reference[i].loss if "rnn" in tallies else None,
            )
            for i in judged
        ),
        standings=tuple(
            _standing(name, [tallies[name][i] for i in judged], [reference[i] for i in judged], total) for name in names
        )
        if judged
        else (),
        left_out=tuple(left_out),
        champions=dict(Counter(choice.forecaster for choice in field.choices)),
        training=field.training,
        rnn_missing=field.rnn_missing,
    )


def _standing(name: str, own: list[_Tally], reference: list[_Tally], total: float) -> Standing:
    ratios = [_ratio(a.loss, b.loss) for a, b in zip(own, reference, strict=True)]
    tails = [
        geometric_mean([_ratio(a.tails[k], b.tails[k]) for a, b in zip(own, reference, strict=True)]) for k in range(2)
    ]
    steps = max(sum(tally.steps for tally in own), 1)
    return Standing(
        forecaster=name,
        wql=sum(tally.loss for tally in own) / total,
        wql_ratio=geometric_mean(ratios),
        worst_ratio=max(ratios),
        pinball_95_ratio=tails[0],
        pinball_99_ratio=tails[1],
        coverage_80=sum(tally.inside_80 for tally in own) / steps,
        coverage_90=sum(tally.inside_90 for tally in own) / steps,
        below_99=sum(tally.below_99 for tally in own) / steps,
    )


def _ratio(own: float, reference: float) -> float:
    """Kept within 1/1000 … 1000, so that one series without any loss cannot decide a geometric mean."""
    if reference <= 0:
        return 1.0 if own <= 0 else 1000.0
    return float(np.clip(own / reference, 1e-3, 1e3))


def _total_demand(usable: Sequence[tuple[History, int]], judged: list[int], horizon: int, origins: int) -> float:
    total = 0.0
    for h, cut in (usable[i] for i in judged):
        for turn in range(origins):
            o = _origin(h, cut, horizon, turn, origins)
            total += float(np.nansum(np.abs(h.values[o : o + horizon])))
    return total or 1.0


def _origin(history: History, cut: int, horizon: int, turn: int, origins: int) -> int:
    last = len(history.values) - horizon
    return cut + (last - cut) * turn // max(origins - 1, 1)


def _testable(history: History, cut: int, horizon: int) -> bool:
    return len(history.values) - cut >= horizon and bool(np.isfinite(history.values[:cut]).any())


def _inside(truth: Array, forecast: SampleForecast, low: float, high: float) -> int:
    return int(np.sum((truth >= forecast.quantile(low)) & (truth <= forecast.quantile(high))))


def _until(history: History, origin: int) -> History:
    return History(history.series_id, history.start, history.freq, history.values[:origin], synthetic=history.synthetic)
