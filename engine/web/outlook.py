"""A capacity target for the eye: the fan of quantiles as a chart's series and as a table, and one sentence."""

from bisect import bisect_left
from datetime import datetime, timedelta
from math import ceil

from engine.model.capacity import CapacityTarget
from engine.model.value import Utc, Value

FAN = (0.05, 0.25, 0.5, 0.75, 0.95)
TELLING = 0.8
"""The sentence names the number of shards whose probability is nearest to this."""


class FanLine(Value):
    """One quantile of demand over time, whole shards, as long as the chart's ``times``."""

    quantile: float
    shards: tuple[int, ...]


class FanChart(Value):
    """``times``: the start of every step, and the end of the last; a line holds its last value until there."""

    times: tuple[Utc, ...]
    lines: tuple[FanLine, ...]
    current: int
    desired: int

    @property
    def rows(self) -> tuple[tuple[datetime, tuple[int, ...]], ...]:
        """(start of the step, shards by quantile): the chart as a table."""
        steps = self.times[:-1]
        return tuple((start, tuple(line.shards[i] for line in self.lines)) for i, start in enumerate(steps))


class Outlook(Value):
    """Everything the page says about one pool."""

    pool: str
    shard_type: str
    risk_class: str
    quantile: float
    forecaster: str
    made_at: Utc
    history_end: Utc | None
    """Where the usage ends that the forecast was made from; None: it is synthetic, or not told."""
    sentence: str
    chart: FanChart | None
    """None: the target has no steps."""


def outlook(target: CapacityTarget) -> Outlook:
    return Outlook(
        pool=target.pool.id,
        shard_type=target.pool.shard_type.name,
        risk_class=target.pool.risk_class.name,
        quantile=target.pool.risk_class.quantile,
        forecaster=target.forecaster,
        made_at=target.made_at,
        history_end=target.history_end,
        sentence=sentence(target),
        chart=fan_chart(target) if target.steps else None,
    )


def fan_chart(target: CapacityTarget) -> FanChart:
    """Of the quantiles that the target carries, those nearest to FAN, under their own names."""
    known = [quantile for quantile, _ in target.steps[0].shards_by_quantile]
    chosen = sorted({min(known, key=lambda quantile: abs(quantile - wanted)) for wanted in FAN})
    by_step = [dict(step.shards_by_quantile) for step in target.steps]
    lines = []
    for quantile in chosen:
        shards = [step[quantile] for step in by_step]
        lines.append(FanLine(quantile=quantile, shards=(*shards, shards[-1])))
    starts = tuple(step.start for step in target.steps)
    return FanChart(
        times=(*starts, starts[-1] + target.step), lines=tuple(lines), current=target.current, desired=target.desired
    )


def sentence(target: CapacityTarget, within: timedelta = timedelta(hours=1)) -> str:
    """``80 % probability of needing 2 more cpu.small shards within the next hour``, read from the demand paths.

    Whole steps are counted, as far as the target reaches; a step longer than ``within`` counts whole. "" where the
    target has no paths.
    """
    steps = min(max(1, ceil(within / target.step - 1e-9)), max(len(target.steps), 1))
    extra = sorted(max(path[:steps]) - target.current for path in target.demand_paths if path)
    if not extra:
        return ""

    def chance(count: int) -> float:
        return 1 - bisect_left(extra, count) / len(extra)

    counts = sorted(
        {1, *(min(max(some + 1, 1), max(extra[-1], 1)) for some in extra)}
    )  # between them it stays the same
    count = min(counts, key=lambda count: abs(chance(count) - TELLING))
    shard_type, span = target.pool.shard_type.name, _span(target.step * steps)
    if not chance(count):
        return f"no more {shard_type} shards needed within the next {span}"
    noun = "shard" if count == 1 else "shards"
    return f"{_percent(chance(count))} probability of needing {count} more {shard_type} {noun} within the next {span}"


def _percent(probability: float) -> str:
    """Whole percent, but never 0 or 100 for something that a path did (or did not) show."""
    if 0 < probability < 0.01:
        return "under 1 %"
    if 0.99 < probability < 1:
        return "over 99 %"
    return f"{probability * 100:.0f} %"


def _span(duration: timedelta) -> str:
    """``hour``, ``3 hours``, ``30 minutes``: to follow "within the next"."""
    for unit, name in ((timedelta(days=1), "day"), (timedelta(hours=1), "hour"), (timedelta(minutes=1), "minute")):
        count = duration / unit
        if count >= 1 and count == int(count):
            return name if count == 1 else f"{int(count)} {name}s"
    return f"{duration.total_seconds():.0f} seconds"
