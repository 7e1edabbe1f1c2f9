"""From usage to shards: the capacity target of a pool, and the sentence that says it."""

from datetime import datetime, timedelta
from math import ceil

import numpy as np
from numpy.typing import NDArray

from engine.errors import UsageError
from engine.model.capacity import CapacityTarget, Pool, TargetStep
from engine.model.value import Value
from forecasting.base import Array, Forecast
from forecasting.durations import in_words

QUANTILES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
PATHS = 200
ASKED_PATHS = 1000
_MOST = 2.0**62
"""What an integer holds."""
TELLING = 0.8
"""Without a question, the sentence names the number of shards whose probability is nearest to this."""


class Need(Value):
    """``probability`` that ``additional`` or more shards beyond the current ones are needed at some moment within."""

    additional: int
    probability: float
    within: timedelta


def capacity_target(
    forecast: Forecast,
    pool: Pool,
    per_shard: float,
    current: int,
    now: datetime,
    *,
    paths: int = PATHS,
    history_end: datetime | None = None,
    network: str = "",
) -> CapacityTarget:
    """Usage / ``per_shard`` (usage units that one shard serves), rounded up to whole shards.

    ``desired`` is the smallest number of shards that the share ``pool.risk_class.quantile`` of the paths never exceeds.
    """
    demand = shards_for(forecast.sample_paths(paths), per_shard)
    by_step = [shards_for(forecast.quantile(q), per_shard) for q in QUANTILES]
    steps = tuple(
        TargetStep(
            start=forecast.start + i * forecast.freq,
            shards_by_quantile=tuple((q, int(row[i])) for q, row in zip(QUANTILES, by_step, strict=True)),
        )
        for i in range(forecast.horizon)
    )
    desired = np.quantile(demand.max(axis=1), pool.risk_class.quantile, method="inverted_cdf")
    return CapacityTarget(
        pool=pool,
        step=forecast.freq,
        steps=steps,
        demand_paths=tuple(tuple(int(x) for x in path) for path in demand),
        desired=int(desired),
        current=current,
        forecaster=forecast.forecaster,
        network=network,
        made_at=now,
        history_end=history_end,
    )


def shards_for(usage: Array, per_shard: float) -> NDArray[np.int64]:
    """Whole shards that serve the usage, elementwise; never negative. 3.0000000001 shards' worth is 3."""
    if not (per_shard > 0 and np.isfinite(per_shard)):
        raise UsageError(
            f"one shard cannot serve {per_shard} of the metric",
            why="the amount per shard must be above zero",
            next_step="give --per-shard in the units of the metric",
        )
    return np.clip(np.ceil(usage / per_shard - 1e-9), 0, _MOST).astype(np.int64)


def need_for(forecast: Forecast, per_shard: float, current: int, within: timedelta, additional: int) -> Need:
    """How likely ``additional`` more shards are needed within; UsageError when the forecast does not reach so far."""
    extra = _extra(forecast, per_shard, current, within)
    return Need(additional=additional, probability=float(np.mean(extra >= additional)), within=within)


def need_at(forecast: Forecast, per_shard: float, current: int, within: timedelta, probability: float) -> Need:
    """The most shards that are needed with at least the probability; ``additional`` 0: none are."""
    extra = _extra(forecast, per_shard, current, within)
    most = max(int(np.quantile(extra, 1 - probability, method="inverted_cdf")), 0)
    return Need(additional=most, probability=float(np.mean(extra >= most)) if most else 1.0, within=within)


def telling_need(forecast: Forecast, per_shard: float, current: int, within: timedelta) -> Need:
    """The number of additional shards (at least 1) whose probability is nearest to 80 %."""
    extra = _extra(forecast, per_shard, current, within)
    changes = np.clip(extra + 1, 1, max(int(extra.max()), 1))
    counts = np.unique(np.append(changes, 1))  # between them the chance stays the same
    chances = (len(extra) - np.searchsorted(np.sort(extra), counts)) / len(extra)
    best = int(np.argmin(np.abs(chances - TELLING)))
    return Need(additional=int(counts[best]), probability=float(chances[best]), within=within)


def sentence(need: Need, shard_type: str) -> str:
    """``80 % probability of needing 2 more cpu.small shards within the next hour``"""
    span = f"within the next {in_words(need.within)}"
    if not need.additional:
        return f"no more {shard_type} shards needed {span}"
    noun = "shard" if need.additional == 1 else "shards"
    return f"{_percent(need.probability)} probability of needing {need.additional} more {shard_type} {noun} {span}"


def _percent(probability: float) -> str:
    """Whole percent, but never 0 or 100 for something that a path did (or did not) show."""
    if 0 < probability < 0.01:
        return "under 1 %"
    if 0.99 < probability < 1:
        return "over 99 %"
    return f"{probability * 100:.0f} %"


def _extra(forecast: Forecast, per_shard: float, current: int, within: timedelta) -> NDArray[np.int64]:
    """Shape (paths,): the most shards each path needs within, minus the current ones."""
    if within > forecast.horizon * forecast.freq:
        raise UsageError(
            f"the forecast reaches {in_words(forecast.horizon * forecast.freq)}, not {in_words(within)}",
            why=f"{forecast.horizon} steps of {in_words(forecast.freq)}",
            next_step="give a longer horizon",
        )
    steps = max(ceil(within / forecast.freq - 1e-9), 1)
    paths = forecast.sample_paths(ASKED_PATHS)[:, :steps]
    extra: NDArray[np.int64] = shards_for(paths, per_shard).max(axis=1) - current
    return extra
