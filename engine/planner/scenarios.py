"""Joint futures on which a finished plan is judged: demand of every pool, and which units are reclaimed when.

Scenario i takes demand path i of every pool (paths of one forecast are joint), so that what moves together stays
together. Units of one correlation group share one exponential clock: the group's least reliable units go first, and
all of them go in a scenario where the clock runs out early. Clocks are stratified: rare losses appear as often as
their probability says even in few scenarios.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

import numpy as np
from numpy.typing import NDArray

from engine.planner.need import IntArray, Needs

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Fate = tuple[str, float] | None
"""(correlation group, probability of loss); None: stays"""


@dataclass(frozen=True)
class Scenarios:
    demand: tuple[IntArray, ...]
    """Per pool, shape (paths, steps); scenario i takes path i modulo their number."""
    clocks: dict[str, FloatArray]
    """Per correlation group, shape (scenarios,): unit-rate exponential times."""
    count: int

    def path_of(self, pool: int) -> IntArray:
        """Shape (scenarios,)"""
        return np.arange(self.count) % len(self.demand[pool])


@dataclass(frozen=True)
class Holding:
    """Units that live and die together."""

    shards: tuple[int, ...]
    """By pool."""
    hourly_price: float
    group: str | None
    loss: float
    """Probability that they are gone by the end of the horizon."""


@dataclass(frozen=True)
class Judgement:
    """What the scenarios say of a plan."""

    shortfall: FloatArray
    """Shape (pools,): share of scenarios in which the pool is ever short."""
    unserved: FloatArray
    """Shape (pools,): share of demanded shard-hours left unserved."""
    costs: FloatArray
    """Shape (scenarios,): cost of the horizon, what is missing bought at the recourse price."""


def sample_scenarios(needs: Needs, groups: Sequence[str], *, count: int, seed: int) -> Scenarios:
    """At least ``count`` scenarios: no pool's paths are dropped, and each counts as often as the others."""
    most = max((len(pool.demand) for pool in needs.pools), default=1)
    total = -(-count // most) * most
    rng = np.random.default_rng(seed)
    clocks = {group: -np.log1p(-(rng.permutation(total) + rng.random(total)) / total) for group in sorted(groups)}
    return Scenarios(demand=tuple(pool.demand for pool in needs.pools), clocks=clocks, count=total)


def judge(needs: Needs, scenarios: Scenarios, holdings: Sequence[Holding], recourse: Sequence[float]) -> Judgement:
    """``recourse``: price per shard-hour by pool at which a shortage is made good."""
    hours = needs.hours
    paid: dict[Fate, float] = {}
    shards: list[dict[Fate, int]] = [{} for _ in needs.pools]
    for holding in holdings:
        fate = (holding.group, holding.loss) if holding.group is not None and holding.loss > 0 else None
        paid[fate] = paid.get(fate, 0.0) + holding.hourly_price
        for pool, number in enumerate(holding.shards):
            if number:
                shards[pool][fate] = shards[pool].get(fate, 0) + number
    alive = {fate: _alive_hours(scenarios, fate, hours) for fate in paid}
    costs = np.zeros(scenarios.count)
    for fate, price in paid.items():
        costs += price * alive[fate]
    shortfall, unserved = [], []
    for index, need in enumerate(needs.pools):
        missing, ever = _shortage(scenarios, index, need.hours, shards[index], alive)
        asked = float(scenarios.demand[index].sum(axis=1)[scenarios.path_of(index)].sum())
        shortfall.append(float(ever.mean()))
        unserved.append(float(missing.sum()) / max(1.0, asked))
        costs += recourse[index] * missing * (need.hours / scenarios.demand[index].shape[1])
    return Judgement(np.array(shortfall), np.array(unserved), costs)


def _shortage(
    scenarios: Scenarios, pool: int, hours: float, shards: dict[Fate, int], alive: dict[Fate, FloatArray]
) -> tuple[FloatArray, BoolArray]:
    """(shards missing, summed over the steps; whether any is), both of shape (scenarios,). Losses are rare: where there
    is none, every scenario of a path is the same.
    """
    demand, paths = scenarios.demand[pool], scenarios.path_of(pool)
    there = sum(shards.values())
    calm = np.maximum(demand - there, 0).sum(axis=1)
    missing: FloatArray = calm.astype(np.float64)[paths]
    ever: BoolArray = (calm > 0)[paths]
    ends = hours / demand.shape[1] * np.arange(1, demand.shape[1] + 1) - 1e-9
    lost = np.zeros(scenarios.count, dtype=bool)
    for fate in shards:
        lost |= alive[fate] < ends[-1]
    rows = np.flatnonzero(lost)
    if len(rows):
        left = np.full((len(rows), len(ends)), there)
        for fate, number in shards.items():
            left -= number * (alive[fate][rows, None] < ends)
        short = np.maximum(demand[paths[rows]] - left, 0).sum(axis=1)
        missing[rows], ever[rows] = short, short > 0
    return missing, ever


def _alive_hours(scenarios: Scenarios, fate: Fate, hours: float) -> FloatArray:
    if fate is None:
        return np.full(scenarios.count, hours)
    group, loss = fate
    if loss >= 1:
        return np.zeros(scenarios.count)
    rate = -log(1 - loss) / hours
    return np.minimum(hours, scenarios.clocks[group] / rate)
