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


@dataclass(frozen=True)
class Scenarios:
    demand: tuple[IntArray, ...]
    """Per pool, shape (scenarios, steps)."""
    clocks: dict[str, FloatArray]
    """Per correlation group, shape (scenarios,): unit-rate exponential times."""
    count: int


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
    rows = np.arange(total)
    return Scenarios(
        demand=tuple(pool.demand[rows % len(pool.demand)] for pool in needs.pools), clocks=clocks, count=total
    )


def judge(needs: Needs, scenarios: Scenarios, holdings: Sequence[Holding], recourse: Sequence[float]) -> Judgement:
    """``recourse``: price per shard-hour by pool at which a shortage is made good."""
    hours = needs.hours
    until = [_alive_hours(scenarios, holding, hours) for holding in holdings]
    costs = np.zeros(scenarios.count)
    for holding, alive in zip(holdings, until, strict=True):
        costs += holding.hourly_price * alive
    shortfall, unserved = [], []
    for index, (pool, demand) in enumerate(zip(needs.pools, scenarios.demand, strict=True)):
        step_hours = pool.hours / demand.shape[1]
        ends = step_hours * np.arange(1, demand.shape[1] + 1)
        there = np.zeros(demand.shape)
        for holding, alive in zip(holdings, until, strict=True):
            if holding.shards[index]:
                there += holding.shards[index] * (alive[:, None] >= ends[None, :] - 1e-9)
        short = np.maximum(demand - there, 0.0)
        shortfall.append(float((short.max(axis=1) > 0).mean()))
        unserved.append(float(short.sum() / max(1.0, float(demand.sum()))))
        costs += recourse[index] * short.sum(axis=1) * step_hours
    return Judgement(np.array(shortfall), np.array(unserved), costs)


def _alive_hours(scenarios: Scenarios, holding: Holding, hours: float) -> FloatArray:
    if holding.group is None or holding.loss <= 0:
        return np.full(scenarios.count, hours)
    if holding.loss >= 1:
        return np.zeros(scenarios.count)
    rate = -log(1 - holding.loss) / hours
    return np.minimum(hours, scenarios.clocks[holding.group] / rate)
