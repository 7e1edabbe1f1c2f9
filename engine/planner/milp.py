"""The programme as a mixed-integer model.

Columns: units per candidate and filling, kept nodes and fillings of their free room, shards per supply and pool;
per pool the shards it gets, its expected shortage (tangents of a convex curve) and, where units may be reclaimed,
one switch per correlation group whose loss it could not bear.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engine.planner.linear import LinearModel, Solution, solve
from engine.planner.programme import (
    IDLE,
    LOST_SHARE,
    MISSING,
    QUANTILE,
    RISK,
    Choice,
    Programme,
    Unit,
)


@dataclass
class Columns:
    units: list[list[int]] = field(default_factory=list)
    """[candidate][filling]"""
    keep: list[int] = field(default_factory=list)
    extend: list[list[int]] = field(default_factory=list)
    """[running node][filling of its free room]"""
    share: dict[tuple[int, int], int] = field(default_factory=dict)
    """(supply, pool) -> shards carved on it"""


def solve_programme(programme: Programme, *, seed: int) -> tuple[Choice | None, Solution]:
    """None where the time limit brought nothing feasible."""
    model, columns = build(programme)
    policy = programme.policy
    solution = solve(model, gap=policy.gap, time_limit=policy.time_limit_seconds, seed=seed)
    if solution.values is None:
        return None, solution
    return read_choice(programme, columns, solution.values), solution


def build(programme: Programme) -> tuple[LinearModel, Columns]:
    model, columns = LinearModel(), Columns()
    _purchases(programme, model, columns)
    _running(programme, model, columns)
    _shares(programme, model, columns)
    for pool in range(len(programme.needs.pools)):
        _pool(programme, model, columns, pool)
    _limits(programme, model, columns)
    return model, columns


def _purchases(programme: Programme, model: LinearModel, columns: Columns) -> None:
    by_offer: dict[str, list[int]] = {}
    for index, candidate in enumerate(programme.candidates):
        cost = candidate.score / programme.scale
        fillings = [model.column(cost, upper=candidate.most, integer=True) for _ in candidate.patterns]
        columns.units.append(fillings)
        if len(fillings) > 1:
            model.row(((column, 1) for column in fillings), at_most=candidate.most)
        by_offer.setdefault(candidate.quote.offer.id, []).append(index)
    for rivals in by_offer.values():
        available = programme.candidates[rivals[0]].quote.offer.available
        if len(rivals) > 1 and available is not None:
            model.row(((column, 1) for index in rivals for column in columns.units[index]), at_most=available)


def _running(programme: Programme, model: LinearModel, columns: Columns) -> None:
    for node in programme.running:
        saved = (node.price - node.release_cost) / programme.scale
        keep = model.column(saved, lower=1.0 if node.pinned else 0.0, upper=1.0, integer=True)
        fillings = [model.column(upper=1.0, integer=True) for _ in node.patterns]
        columns.keep.append(keep)
        columns.extend.append(fillings)
        if fillings:
            model.row([*((column, 1) for column in fillings), (keep, -1)], at_most=0)


def _shares(programme: Programme, model: LinearModel, columns: Columns) -> None:
    """What is carved per supply and shape fits into its fillings."""
    needs = programme.needs
    room: dict[tuple[int, int], list[tuple[int, float]]] = {}
    index_of = {supply: index for index, supply in enumerate(programme.supplies)}
    filled = [(c.supply, c.patterns, columns.units[i]) for i, c in enumerate(programme.candidates)]
    filled += [(n.supply, n.patterns, columns.extend[i]) for i, n in enumerate(programme.running)]
    for supply, patterns, fillings in filled:
        for pattern, column in zip(patterns, fillings, strict=True):
            for shape, count in enumerate(pattern):
                if count:
                    room.setdefault((index_of[supply], shape), []).append((column, -count))
    for (supply_index, shape), terms in room.items():
        pools = [p for p in programme.supplies[supply_index].pools if needs.pools[p].shape == shape]
        for pool in pools:
            idle = IDLE * programme.reference[pool] / programme.scale
            columns.share[supply_index, pool] = model.column(idle, integer=True)
        model.row([*((columns.share[supply_index, pool], 1.0) for pool in pools), *terms], at_most=0)


def _pool_terms(programme: Programme, columns: Columns, pool: int, group: str | None = None) -> list[tuple[int, float]]:
    """The pool's shards as a linear expression; with ``group``, only those of that correlation group."""
    supplies = programme.supplies
    terms = [
        (column, 1.0)
        for (supply, served), column in columns.share.items()
        if served == pool and (group is None or supplies[supply].group == group)
    ]
    terms += [
        (columns.keep[index], float(node.held[pool]))
        for index, node in enumerate(programme.running)
        if node.held[pool] and (group is None or node.supply.group == group)
    ]
    return terms


def _pool(programme: Programme, model: LinearModel, columns: Columns, pool: int) -> None:
    need, policy = programme.needs.pools[pool], programme.policy
    price = programme.reference[pool] / programme.scale
    shards = model.column()
    model.row([(shards, -1.0), *_pool_terms(programme, columns, pool)], at_least=0, at_most=0)
    missing = model.column(MISSING * price)
    model.row([(shards, 1.0), (missing, 1.0)], at_least=need.desired)

    short = model.column(policy.shortfall_factor * price)
    tangents = need.shortage_tangents()
    for slope, intercept in tangents:
        model.row([(short, 1.0), (shards, -slope)], at_least=intercept)
    beyond = model.column(RISK * price)
    shortage = [(short, 1.0), (beyond, -1.0)]

    groups = _groups_of(programme, pool)
    exposure = []
    for group in groups:
        lost = model.column()
        model.row([(lost, -1.0), *_pool_terms(programme, columns, pool, group)], at_least=0, at_most=0)
        loss = programme.group_loss[group]
        exposed = model.column(upper=1.0, integer=True)
        model.row([(lost, 1.0), (shards, -1.0), (exposed, -need.desired)], at_most=-need.desired)
        exposure.append((exposed, -loss))
        more = model.column(policy.shortfall_factor * loss * LOST_SHARE * price)
        for slope, intercept in tangents:
            model.row([(more, 1.0), (short, 1.0), (shards, -slope), (lost, slope)], at_least=intercept)
        shortage.append((more, loss * LOST_SHARE))
    model.row(shortage, at_most=need.risk.max_shortfall * need.mean_demand)
    if groups or programme.margin[pool] > 0:
        _quantile(programme, model, pool, shards, missing, exposure)


def _groups_of(programme: Programme, pool: int) -> list[str]:
    found = {s.group for s in programme.supplies if s.group is not None and pool in s.pools}
    found |= {n.supply.group for n in programme.running if n.supply.group is not None and n.held[pool]}
    return sorted(found)


def _quantile(
    programme: Programme,
    model: LinearModel,
    pool: int,
    shards: int,
    missing: int,
    exposure: Sequence[tuple[int, float]],
) -> None:
    """coverage(shards) - probability of losing what cannot be borne >= quantile; extra shards raise the coverage."""
    need = programme.needs.pools[pool]
    steps: list[tuple[int, float, float]] = []
    for height, gain in need.tail():
        step = model.column(upper=1.0, integer=True)
        if steps:
            model.row([(steps[-1][0], 1.0), (step, -1.0)], at_least=0)
        steps.append((step, float(height), gain))
    model.row([(shards, 1.0), (missing, 1.0), *((step, -height) for step, height, _ in steps)], at_least=need.desired)
    deficit = model.column(QUANTILE * max(1, need.desired) * programme.reference[pool] / programme.scale)
    model.row(
        [*((step, gain) for step, _, gain in steps), *exposure, (deficit, 1.0)],
        at_least=programme.asked_quantile(pool) - need.covered(need.desired),
    )


def _limits(programme: Programme, model: LinearModel, columns: Columns) -> None:
    supplies = programme.supplies
    providers = sorted({supply.provider for supply in supplies})
    kinds = [(programme.provider_limit(p), [s.provider == p for s in supplies], p) for p in providers]
    kinds.append((programme.spot_limit, [s.spot for s in supplies], ""))
    for limit, counted, provider in kinds:
        terms = [(column, 1.0) for (supply, _), column in columns.share.items() if counted[supply]]
        terms += [
            (columns.keep[index], float(sum(node.held)))
            for index, node in enumerate(programme.running)
            if sum(node.held) and (node.supply.provider == provider if provider else node.supply.spot)
        ]
        model.row(terms, at_most=limit)
    budget = programme.policy.hourly_budget
    if budget is not None:
        spent = [
            (column, candidate.price / programme.scale)
            for candidate, fillings in zip(programme.candidates, columns.units, strict=True)
            for column in fillings
        ]
        spent += [(columns.keep[index], node.price / programme.scale) for index, node in enumerate(programme.running)]
        model.row(spent, at_most=float(budget.amount) / programme.scale + 1e-9)


def read_choice(programme: Programme, columns: Columns, values: NDArray[np.float64]) -> Choice:
    """Whole numbers out of the solver's, shards laid onto single units: cheapest unit first, pools by rank."""
    whole = np.rint(values).astype(np.int64)
    pools = len(programme.needs.pools)
    left = {key: int(whole[column]) for key, column in columns.share.items()}
    index_of = {supply: index for index, supply in enumerate(programme.supplies)}

    def take(supply: int, pattern: Sequence[int]) -> tuple[int, ...]:
        room, taken = list(pattern), [0] * pools
        for pool in programme.supplies[supply].pools:
            shape = programme.needs.pools[pool].shape
            taken[pool] = min(room[shape], left.get((supply, pool), 0))
            room[shape] -= taken[pool]
            if taken[pool]:
                left[supply, pool] -= taken[pool]
        return tuple(taken)

    kept = tuple(bool(whole[column]) for column in columns.keep)
    added = []
    for node, fillings in zip(programme.running, columns.extend, strict=True):
        chosen = next((p for p, column in zip(node.patterns, fillings, strict=True) if whole[column]), None)
        added.append((0,) * pools if chosen is None else take(index_of[node.supply], chosen))
    bought = [
        Unit(index, shards)
        for index, candidate in enumerate(programme.candidates)
        for pattern, column in zip(candidate.patterns, columns.units[index], strict=True)
        for _ in range(int(whole[column]))
        if any(shards := take(index_of[candidate.supply], pattern))
    ]
    return Choice(kept=kept, added=tuple(added), bought=tuple(bought))
