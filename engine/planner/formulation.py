"""The programme as a mixed-integer linear model.

Columns: units per candidate and filling, kept nodes and fillings of their free room, shards per supply and pool;
per pool the shards it gets, its expected shortage (tangents of a convex curve) and, where units may be reclaimed,
a choice from its menu of risks (risk.py), and a switch for every group that it is exposed to beyond that.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from engine.planner.candidates import Supply
from engine.planner.linear import LinearModel
from engine.planner.programme import (
    IDLE,
    LOST_SHARE,
    MISSING,
    QUANTILE,
    Choice,
    Programme,
    shortfall_limit,
    shortfall_weight,
    standing,
)
from engine.planner.risk import PoolRisk, RiskOption, pool_risk

Pools = tuple[int, ...]
Cut = tuple[tuple[tuple[int, float], ...], float]
"""(terms, at least)"""


@dataclass
class Columns:
    units: list[list[int]] = field(default_factory=list)
    """[candidate][filling]"""
    keep: list[int] = field(default_factory=list)
    extend: list[list[int]] = field(default_factory=list)
    """[running node][filling of its free room]"""
    share: dict[tuple[int, Pools], int] = field(default_factory=dict)
    """(supply, pools) -> shards carved on it for these pools together"""
    lasting: list[int] = field(default_factory=list)
    """[pool] -> shards it gets on units that stay. Pools that can live on the same such units are one to the rest of
    the model, which spares it most of its symmetry."""
    room: dict[tuple[int, int], int] = field(default_factory=dict)
    """(supply, shape) -> the row in which what is carved fits into what is bought"""
    deferred: list[Cut] | None = None
    """Tangents of what a loss adds to the shortage, left out of the model until they are violated; None: all are in"""
    risks: tuple[PoolRisk, ...] = ()
    menus: list[list[tuple[int, RiskOption]]] = field(default_factory=list)
    """[pool] -> the options of its risk, of which one is taken; empty where there is nothing to choose"""
    switches: list[dict[str, int]] = field(default_factory=list)
    """[pool][group] -> exposed to it beyond the menu"""


def build(
    programme: Programme, rough: Choice | None = None, *, refine: bool = False, defer: bool = False
) -> tuple[LinearModel, Columns]:
    """``rough``: a choice that the model must be able to express. ``defer``: leave out tangents of which few bind."""
    pools = range(len(programme.needs.pools))
    used = standing(programme, rough).exposed if rough is not None else {}
    risks = tuple(pool_risk(programme, pool, used.get(pool, ()), prefer_used=refine) for pool in pools)
    model, columns = LinearModel(), Columns(risks=risks, deferred=[] if defer else None)
    _purchases(programme, model, columns)
    _running(programme, model, columns)
    _shares(programme, model, columns)
    for pool in pools:
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
    """What is carved per supply and shape fits into its fillings; what stays is handed to the pools."""
    room: dict[tuple[int, int], list[tuple[int, float]]] = {}
    index_of = {supply: index for index, supply in enumerate(programme.supplies)}
    filled = [(c.supply, c.patterns, columns.units[i]) for i, c in enumerate(programme.candidates)]
    filled += [(n.supply, n.patterns, columns.extend[i]) for i, n in enumerate(programme.running)]
    for supply, patterns, fillings in filled:
        for pattern, column in zip(patterns, fillings, strict=True):
            for shape, count in enumerate(pattern):
                if count:
                    room.setdefault((index_of[supply], shape), []).append((column, -count))
    alike = _alike(programme)
    given: dict[Pools, list[int]] = {pools: [] for pools in alike}
    for (index, shape), terms in room.items():
        supply = programme.supplies[index]
        served = [pool for pool in supply.pools if programme.needs.pools[pool].shape == shape]
        if supply.group is None:
            fitting = set(served)
            takers = [pools for pools in alike if pools[0] in fitting]
        else:
            takers = [(pool,) for pool in served if supply.group in columns.risks[pool].considered]
        for pools in takers:
            column = model.column(IDLE * programme.reference[pools[0]] / programme.scale, integer=True)
            columns.share[index, pools] = column
            if supply.group is None:
                given[pools].append(column)
        carved = ((columns.share[index, pools], 1.0) for pools in takers)
        columns.room[index, shape] = model.row([*carved, *terms], at_most=0)
    columns.lasting = [model.column(integer=True) for _ in programme.needs.pools]
    for pools, shares in given.items():
        taken = [(columns.lasting[pool], 1.0) for pool in pools]
        model.row([*taken, *((column, -1.0) for column in shares)], at_most=0)


def _alike(programme: Programme) -> list[Pools]:
    """Pools of one shape that fit the very same supplies that stay."""
    classes: dict[tuple[object, ...], list[int]] = {}
    for pool, need in enumerate(programme.needs.pools):
        fitting = tuple(index for index in programme.serving[pool] if programme.supplies[index].group is None)
        classes.setdefault((need.shape, fitting), []).append(pool)
    return [tuple(pools) for pools in classes.values()]


def _pool(programme: Programme, model: LinearModel, columns: Columns, pool: int) -> None:
    need, policy = programme.needs.pools[pool], programme.policy
    price = programme.reference[pool] / programme.scale
    by_group = _pool_terms(programme, columns, pool)
    shards = model.column()
    model.row([(shards, -1.0), *(term for terms in by_group.values() for term in terms)], at_least=0, at_most=0)
    missing = model.column(MISSING * price)
    model.row([(shards, 1.0), (missing, 1.0)], at_least=need.desired)

    short = model.column(policy.shortfall_factor * price)
    tangents = need.shortage_tangents()
    for slope, intercept in tangents:
        model.row([(short, 1.0), (shards, -slope)], at_least=intercept)
    beyond = model.column(shortfall_weight(need) * price)
    shortage = [(short, 1.0), (beyond, -1.0)]
    chosen = _menu(programme, model, columns, pool, shards, missing)
    columns.menus.append(chosen)
    columns.switches.append({})
    for group, terms in by_group.items():
        if group is None:
            continue
        loss = programme.group_loss[group]
        options = [(column, -float(need.desired)) for column, option in chosen if group in option.groups]
        # Exposed or not, however many shards it is by: that is what the loss takes from the pool's coverage.
        exposed = model.column(QUANTILE * loss * price * need.desired, upper=1.0, integer=True)
        columns.switches[pool][group] = exposed
        beyond_menu = (exposed, -float(need.desired))
        model.row([*terms, (shards, -1.0), (missing, -1.0), beyond_menu, *options], at_most=-need.desired)
        if options:
            more = model.column(policy.shortfall_factor * loss * LOST_SHARE * price)
            shortage.append((more, loss * LOST_SHARE))
            for slope, intercept in tangents:
                lost = [(column, slope * count) for column, count in terms]
                row = [(more, 1.0), (short, 1.0), (shards, -slope), *lost]
                if columns.deferred is None:
                    model.row(row, at_least=intercept)
                else:
                    columns.deferred.append((tuple(row), intercept))
    model.row(shortage, at_most=shortfall_limit(need))


def _pool_terms(programme: Programme, columns: Columns, pool: int) -> dict[str | None, list[tuple[int, float]]]:
    """The pool's shards as linear expressions, by correlation group (None: those that stay)."""
    terms: dict[str | None, list[tuple[int, float]]] = {None: [(columns.lasting[pool], 1.0)]}
    for index, supply in enumerate(programme.supplies):
        if supply.group is not None and (index, (pool,)) in columns.share:
            terms.setdefault(supply.group, []).append((columns.share[index, (pool,)], 1.0))
    for index, node in enumerate(programme.running):
        if node.held[pool]:
            terms.setdefault(node.supply.group, []).append((columns.keep[index], float(node.held[pool])))
    return terms


def _menu(
    programme: Programme, model: LinearModel, columns: Columns, pool: int, shards: int, missing: int
) -> list[tuple[int, RiskOption]]:
    """One column per option of the pool's risk, of which one is taken."""
    need, options = programme.needs.pools[pool], columns.risks[pool].options
    if len(options) == 1 and not options[0].groups and options[0].shards <= need.desired:
        return []
    chosen = [(model.column(upper=1.0, integer=True), option) for option in options]
    model.row([(column, 1.0) for column, _ in chosen], at_least=1, at_most=1)
    deficit = model.column(QUANTILE * programme.reference[pool] / programme.scale)
    least = [(column, -float(option.shards)) for column, option in chosen]
    model.row([(shards, 1.0), (missing, 1.0), (deficit, 1.0), *least], at_least=0)
    return chosen


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


def first_of_supplies(
    programme: Programme, columns: Columns, ranked: Sequence[int], *, lasting_only: bool = False
) -> set[int]:
    """Of every supply the first of ``ranked`` that carries a shape, so that no pool loses its last way out.
    ``lasting_only``: of those that stay.
    """
    owner = {
        column: (candidate.supply, pattern)
        for candidate, fillings in zip(programme.candidates, columns.units, strict=True)
        if candidate.supply.group is None or not lasting_only
        for pattern, column in zip(candidate.patterns, fillings, strict=True)
    }
    best: dict[tuple[Supply, int], int] = {}
    for column in ranked:
        if column in owner:
            supply, pattern = owner[column]
            for shape, slots in enumerate(pattern):
                if slots:
                    best.setdefault((supply, shape), column)
    return set(best.values())
