"""What a missing shard must be worth so that the promised risk is used and kept: bought by looking back.

The rule of sizing is replayed over the recent past with the forecasts made then, at several prices of shortfall; the
cheapest combination over the fleets is taken whose shortfall fits what is left of every class's allowance.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.planner.rolling.sizing import Array, SupplyCurve, capacities

LADDER = (0.1, 0.2, 0.4, 0.8, 1.4, 2.5, 4, 7, 12, 20, 35, 60, 100, 200, 400, 1000, 4000)
"""Prices tried, in on-demand prices of a shard-step."""
REACT_STEPS = 48
"""For so long bad luck is provided for; later there is time to react."""
BAD = 0.97
"""Quantile of such stretches of the past that is provided for."""
LUCK_COUNTS = 0.5
"""However little was short so far, a bad stretch counts at least so much."""
CREDIT = 0.0015
"""Share of all demand: how much evidence the replay is worth beside what really happened."""
FIRST_AIM, LAST_AIM = 0.9, 0.97
"""Of the limits, at the first step and at the last: what is kept back for bad luck is freed as the end comes near."""
LEAST = 0.02
"""Share of the even allowance below which the remaining one is never taken to be."""
LOST_COUNTS = 0.7
"""Of what was reclaimed, the share that a sizing which expects reclaims does not already make up for."""
MOST_COMBINATIONS = 200_000
COARSEST = 6
"""Every so many prices at the least; more fleets than that allows are priced one by one."""
SWEEPS = 20


@dataclass(frozen=True)
class PastFleet:
    """``forecasts``: for each way of forecasting (moments, samples ascending), made before each moment; ``demand``
    (moments, classes), best class first; ``lost``: shares of capacity reclaimed in recent steps, repeated as needed."""

    forecasts: tuple[Array, ...]
    demand: Array
    lost: Array
    curve: SupplyCurve
    on_demand_price: float


@dataclass(frozen=True)
class Allowance:
    """Of all classes together and of each (best first): what may be short in all, and what was short so far."""

    overall_limit: float
    class_limits: tuple[float, ...]
    demanded: tuple[float, ...]
    short: tuple[float, ...]
    steps: int
    steps_left: int


@dataclass(frozen=True)
class Priced:
    """Per fleet; ``expected`` shards short per step by the replay, before it is corrected by what happened."""

    prices: tuple[float, ...]
    ways: tuple[int, ...]
    """Index of the way of forecasting that goes with each price."""
    expected: float


@dataclass(frozen=True)
class _Replay:
    """By way and price: cost per step, shortfall per step by class, and what a bad stretch adds to it, by class and
    overall (last)."""

    cost: Array
    short: Array
    scatter: Array


def price_shortfall(fleets: Sequence[PastFleet], allowance: Allowance, *, expected_so_far: float) -> Priced:
    """``expected_so_far``: the sum of ``expected`` over the steps played; what happened instead corrects the replay."""
    replays = [_replay(fleet, min(allowance.steps_left, REACT_STEPS)) for fleet in fleets]
    rates = np.sum([fleet.demand.mean(axis=0) for fleet in fleets], axis=0)
    credit = CREDIT * rates.sum() * allowance.steps
    luck = (sum(allowance.short) + credit) / (expected_so_far + credit) if credit else 1.0
    limits = _Limits(rates, allowance, luck)
    rungs = _rungs(len(fleets), max(len(fleet.forecasts) for fleet in fleets))
    at = _best_of_all(replays, rungs, limits) if rungs else _one_by_one(replays, limits)
    prices = tuple(LADDER[i % len(LADDER)] * fleet.on_demand_price for i, fleet in zip(at, fleets, strict=True))
    ways = tuple(i // len(LADDER) for i in at)
    return Priced(prices, ways, float(sum(replay.short[i].sum() for i, replay in zip(at, replays, strict=True))))


def _rungs(fleets: int, ways: int) -> list[int]:
    """All prices of all ways, or every second, third … where many fleets would make too many combinations; none where
    even those would be too many."""
    for stride in range(1, COARSEST + 1):
        if (ways * (len(LADDER) // stride + 1)) ** fleets <= MOST_COMBINATIONS:
            some = sorted({*range(0, len(LADDER), stride), len(LADDER) - 1})
            return [way * len(LADDER) + rung for way in range(ways) for rung in some]
    return []


def _replay(fleet: PastFleet, ahead: int) -> _Replay:
    total = fleet.demand.sum(axis=1)
    lost = np.resize(fleet.lost, len(total)) if len(fleet.lost) else np.zeros(len(total))
    costs, shorts, scatters = [], [], []
    prices = [rung * fleet.on_demand_price for rung in LADDER]
    for capacity in np.concatenate([capacities(way, prices, fleet.curve) for way in fleet.forecasts]):
        missing = np.maximum(total - capacity * (1 - LOST_COUNTS * lost), 0.0)
        by_class = _by_class(missing, fleet.demand)
        costs.append(float(fleet.curve.cost(capacity).mean()))
        shorts.append(by_class.mean(axis=0))
        scatters.append([_scatter(part, ahead) for part in (*by_class.T, missing)])
    return _Replay(np.array(costs), np.array(shorts), np.array(scatters))


def _by_class(missing: Array, demand: Array) -> Array:
    """The worst class goes short first."""
    rest, parts = missing.copy(), []
    for column in reversed(range(demand.shape[1])):
        part = np.minimum(rest, demand[:, column])
        rest = rest - part
        parts.append(part)
    return np.stack(parts[::-1], axis=1)


def _scatter(short: Array, ahead: int) -> float:
    """By how much a bad stretch of ``ahead`` steps is worse than an average one."""
    sums = np.concatenate([[0.0], short.cumsum()])
    span = min(ahead, len(short))
    if span <= 0:
        return 0.0
    stretches = sums[span:] - sums[:-span]
    return float(max(np.quantile(stretches, BAD) - stretches.mean(), 0.0))


def _combined(by_fleet: Sequence[Array]) -> Array:
    """Sum over every combination of rungs, one axis per fleet."""
    shape = [len(part) for part in by_fleet]
    total = np.zeros(shape)
    for axis, part in enumerate(by_fleet):
        total = total + part.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    return total


def _best_of_all(replays: Sequence[_Replay], rungs: list[int], limits: "_Limits") -> list[int]:
    classes = range(len(limits.rates))
    short = [_combined([replay.short[rungs, c] for replay in replays]) for c in classes]
    scatter = [_combined([replay.scatter[rungs, c] ** 2 for replay in replays]) for c in (*classes, -1)]
    cost = _combined([replay.cost[rungs] for replay in replays])
    best = limits.cheapest(cost, np.stack(short, axis=-1), np.stack(scatter, axis=-1))
    return [rungs[int(i)] for i in np.unravel_index(best, cost.shape)]


def _one_by_one(replays: Sequence[_Replay], limits: "_Limits") -> list[int]:
    """The best price that all fleets share, then better ones for a fleet at a time while any is found."""
    choices = min(len(replay.cost) for replay in replays)
    cost = np.array([replay.cost[:choices] for replay in replays])
    short = np.array([replay.short[:choices] for replay in replays])
    scatter = np.array([replay.scatter[:choices] ** 2 for replay in replays])
    at = np.full(len(replays), limits.cheapest(cost.sum(axis=0), short.sum(axis=0), scatter.sum(axis=0)))
    everyone = np.arange(len(replays))
    for _ in range(SWEEPS):
        before = at.copy()
        for fleet in everyone:
            rest = everyone != fleet
            others = [part[everyone[rest], at[rest]].sum(axis=0) for part in (cost, short, scatter)]
            at[fleet] = limits.cheapest(others[0] + cost[fleet], others[1] + short[fleet], others[2] + scatter[fleet])
        if (at == before).all():
            break
    return [int(i) for i in at]


@dataclass(frozen=True)
class _Limits:
    """``rates``: demand per step by class. ``luck``: by how much more was short so far than the replay expected."""

    rates: Array
    allowance: Allowance
    luck: float

    def cheapest(self, cost: Array, short: Array, scatter: Array) -> int:
        """Flat index of the choice that costs least of those within the limits, or comes nearest to them.

        ``short`` (choices…, classes) per step, ``scatter`` (choices…, classes and overall) squared.
        """
        over = self.beyond(short, scatter)
        fits = over <= 1e-9
        return int(np.argmin(np.where(fits, cost, np.inf))) if fits.any() else int(np.argmin(over))

    def beyond(self, short: Array, scatter: Array) -> Array:
        """Shards short beyond what is allowed, over the steps left."""
        allowance, rates = self.allowance, self.rates
        left = allowance.steps_left
        aim = LAST_AIM - (LAST_AIM - FIRST_AIM) * left / allowance.steps
        short = self.luck * short
        spread = max(self.luck, LUCK_COUNTS) * np.sqrt(scatter)
        over = np.zeros(short.shape[:-1])
        for c in range(len(rates)):
            even = aim * allowance.class_limits[c]
            room = even * (allowance.demanded[c] + left * rates[c]) - allowance.short[c]
            room = max(room, LEAST * even * left * rates[c])
            over += np.maximum(short[..., c] * left + spread[..., c] - room, 0.0)
        even = aim * allowance.overall_limit
        whole = sum(allowance.demanded) + left * float(rates.sum())
        room = max(even * whole - sum(allowance.short), LEAST * even * whole * left / allowance.steps)
        together = sum(short[..., c] for c in range(len(rates)))
        return np.asarray(over + np.maximum(together * left + spread[..., -1] - room, 0.0), dtype=np.float64)
