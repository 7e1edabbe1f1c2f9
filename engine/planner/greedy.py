"""A plan without a solver: the cheapest next unit, pool by pool, under the same limits.

Taken when the solver finds nothing in its time, and the yardstick that the solver's plan is never worse than.
"""

from collections import Counter
from dataclasses import dataclass, field

from engine.model.capacity import Resources
from engine.planner.candidates import Candidate, Supply
from engine.planner.packing import left_over
from engine.planner.programme import (
    LOST_SHARE,
    Choice,
    Programme,
    Unit,
    shortfall_limit,
)


@dataclass
class _Open:
    """A unit with its free room."""

    supply: Supply
    price: float
    room: Resources | None
    shards: list[int]
    candidate: int | None
    node: int | None
    held: tuple[int, ...]


@dataclass
class _State:
    """What is open so far, with running counts."""

    programme: Programme
    units: list[_Open] = field(default_factory=list)
    spent: float = 0.0
    bought: Counter[int] = field(default_factory=Counter)
    by_pool: Counter[int] = field(default_factory=Counter)
    by_provider: Counter[str] = field(default_factory=Counter)
    by_fate: Counter[tuple[int, str]] = field(default_factory=Counter)
    """(pool, correlation group)"""
    on_spot: int = 0
    limits: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        providers = {supply.provider for supply in self.programme.supplies}
        self.limits = {provider: self.programme.provider_limit(provider) for provider in providers}

    def count(self, supply: Supply, pool: int, number: int) -> None:
        self.by_pool[pool] += number
        self.by_provider[supply.provider] += number
        self.on_spot += number * supply.spot
        if supply.group is not None:
            self.by_fate[pool, supply.group] += number

    def headroom(self, supply: Supply) -> int:
        """Shards that the limits still let this supply take."""
        room = self.limits[supply.provider] - self.by_provider[supply.provider]
        if supply.spot:
            room = min(room, self.programme.spot_limit - self.on_spot)
        return max(0, room)

    def bears(self, pool: int, supply: Supply, goal: int) -> bool:
        """Whether one more shard of this fate keeps the pool's promised risk once the goal is met."""
        if supply.group is None:
            return True
        programme, need = self.programme, self.programme.needs.pools[pool]
        groups = {group for (served, group), number in self.by_fate.items() if served == pool and number}
        groups.add(supply.group)
        exposed = sum(programme.group_loss[group] for group in groups)
        if need.covered(goal) - exposed < programme.asked_quantile(pool):
            return False
        short = need.short(goal) + sum(
            programme.group_loss[group]
            * LOST_SHARE
            * need.short(max(0, goal - self.by_fate[pool, group] - (group == supply.group)))
            for group in groups
        )
        return short <= shortfall_limit(need)


def greedy(programme: Programme) -> Choice:
    """Keeps what runs, fills its free room, buys the cheapest next unit, then gives up what is not needed."""
    state = _State(programme)
    for index, node in enumerate(programme.running):
        room = node.item.node.resources if node.patterns else None
        for pool, count in enumerate(node.held):
            if room is not None and count:
                room = left_over(room, (programme.needs.shapes[programme.needs.pools[pool].shape],), (count,))
        blank = [0] * len(programme.needs.pools)
        state.units.append(_Open(node.supply, node.price, room, blank, None, index, node.held))
        state.spent += node.price
        for pool, count in enumerate(node.held):
            state.count(node.supply, pool, count)
    goals = [_goal(programme, pool) for pool in range(len(programme.needs.pools))]
    for pool, goal in enumerate(goals):
        while state.by_pool[pool] < goal and (_fill(state, pool, goal) or _buy(state, pool, goal)):
            pass
    _give_up(state, goals)
    return _choice(state)


def _goal(programme: Programme, pool: int) -> int:
    """The least number of lasting shards that keeps both promises of the risk class."""
    need = programme.needs.pools[pool]
    limit = shortfall_limit(need)
    goal = need.desired
    while goal < need.most and (need.short(goal) > limit or need.covered(goal) < programme.asked_quantile(pool)):
        goal += 1
    return goal


def _fill(state: _State, pool: int, goal: int) -> bool:
    shape = state.programme.needs.shapes[state.programme.needs.pools[pool].shape]
    for unit in state.units:
        if unit.room is None or pool not in unit.supply.pools or unit.room.holds(shape) == 0:
            continue
        if state.headroom(unit.supply) > 0 and state.bears(pool, unit.supply, goal):
            unit.room = left_over(unit.room, (shape,), (1,))
            unit.shards[pool] += 1
            state.count(unit.supply, pool, 1)
            return True
    return False


def _buy(state: _State, pool: int, goal: int) -> bool:
    """Open the unit whose shards that are still wanted are cheapest; False when no unit may be opened."""
    programme = state.programme
    shape = programme.needs.pools[pool].shape
    missing = goal - state.by_pool[pool]
    usable: dict[Supply, int] = {}
    best: tuple[float, int] | None = None
    for index, candidate in enumerate(programme.candidates):
        supply = candidate.supply
        if pool not in supply.pools or candidate.slots[shape] == 0:
            continue
        if supply not in usable:
            usable[supply] = state.headroom(supply) if state.bears(pool, supply, goal) else 0
        useful = min(missing, candidate.slots[shape], usable[supply])
        if useful > 0 and state.bought[index] < _left(state, index, candidate) and _affordable(state, candidate):
            rank = (candidate.score / useful, index)
            best = rank if best is None else min(best, rank)
    if best is None:
        return False
    chosen = programme.candidates[best[1]]
    blank = [0] * len(programme.needs.pools)
    resources = chosen.quote.offer.resources
    state.units.append(_Open(chosen.supply, chosen.price, resources, blank, best[1], None, tuple(blank)))
    state.bought[best[1]] += 1
    state.spent += chosen.price
    return True


def _left(state: _State, index: int, candidate: Candidate) -> int:
    """Units of this candidate that may be had in all, other quotes on the same offer counted."""
    available = candidate.quote.offer.available
    if available is None:
        return candidate.most
    rivals = state.programme.candidates
    others = sum(
        count
        for other, count in state.bought.items()
        if other != index and rivals[other].quote.offer.id == candidate.quote.offer.id
    )
    return min(candidate.most, available - others)


def _affordable(state: _State, candidate: Candidate) -> bool:
    budget = state.programme.policy.hourly_budget
    return budget is None or state.spent + candidate.price <= float(budget.amount) + 1e-12


def _give_up(state: _State, goals: list[int]) -> None:
    """Dearest first, every unit whose shards the pools can do without, where that saves something."""
    for unit in sorted(state.units, key=lambda u: (-u.price, u.node if u.node is not None else -1)):
        node = None if unit.node is None else state.programme.running[unit.node]
        if node is not None and (node.pinned or node.release_cost >= node.price):
            continue
        on_it = [new + held for new, held in zip(unit.shards, unit.held, strict=True)]
        if not any(count and state.by_pool[pool] - count < goals[pool] for pool, count in enumerate(on_it)):
            state.units = [other for other in state.units if other is not unit]
            state.spent -= unit.price
            for pool, count in enumerate(on_it):
                state.count(unit.supply, pool, -count)


def _choice(state: _State) -> Choice:
    nodes = {unit.node: unit for unit in state.units if unit.node is not None}
    pools = len(state.programme.needs.pools)
    return Choice(
        kept=tuple(index in nodes for index in range(len(state.programme.running))),
        added=tuple(
            tuple(nodes[index].shards) if index in nodes else (0,) * pools
            for index in range(len(state.programme.running))
        ),
        bought=tuple(
            Unit(unit.candidate, tuple(unit.shards))
            for unit in state.units
            if unit.candidate is not None and any(unit.shards)
        ),
    )
