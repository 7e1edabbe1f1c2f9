"""A plan without a solver: the cheapest next unit, pool by pool, under the same limits.

Taken when the solver finds nothing in its time, and the yardstick that the solver's plan is never worse than.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from engine.planner.candidates import Supply
from engine.planner.packing import Room, fitting, room_of, without
from engine.planner.programme import LOST_SHARE, Choice, Programme, Unit, shortfall_limit


@dataclass(eq=False)
class _Open:
    """A unit with its free room."""

    supply: Supply
    price: float
    room: Room | None
    shards: Counter[int]
    candidate: int | None
    node: int | None
    held: dict[int, int]


class _Market:
    """The candidates in columns."""

    def __init__(self, programme: Programme) -> None:
        candidates, index_of = programme.candidates, {s: i for i, s in enumerate(programme.supplies)}
        self.score = np.array([candidate.score for candidate in candidates])
        self.price = np.array([candidate.price for candidate in candidates])
        self.slots = np.array([candidate.slots for candidate in candidates], dtype=np.int64).reshape(
            len(candidates), len(programme.needs.shapes)
        )
        self.supply = np.array([index_of[candidate.supply] for candidate in candidates], dtype=np.int64)
        self.left = np.array([candidate.most for candidate in candidates], dtype=np.int64)
        """Units that may still be bought."""
        self.offers: dict[str, list[int]] = {}
        for index, candidate in enumerate(candidates):
            self.offers.setdefault(candidate.quote.offer.id, []).append(index)

    def buy(self, programme: Programme, index: int) -> None:
        """Other quotes on the same offer sell the same units."""
        self.left[index] -= 1
        candidate = programme.candidates[index]
        available = candidate.quote.offer.available
        rivals = self.offers[candidate.quote.offer.id]
        if available is None or len(rivals) == 1:
            return
        taken = sum(programme.candidates[rival].most - int(self.left[rival]) for rival in rivals)
        for rival in rivals:
            self.left[rival] = min(self.left[rival], max(0, available - taken))


class _State:
    """What is open so far, with running counts."""

    def __init__(self, programme: Programme) -> None:
        self.programme = programme
        self.market = _Market(programme)
        self.parts = [room_of(shape) for shape in programme.needs.shapes]
        self.units: list[_Open] = []
        self.roomy: list[list[_Open]] = [[] for _ in self.parts]
        """[shape] -> units that may have room for one more, in the order in which they were opened"""
        self.spent = 0.0
        self.by_pool: Counter[int] = Counter()
        self.by_provider: Counter[str] = Counter()
        self.by_fate: dict[int, Counter[str]] = {}
        """[pool][correlation group]"""
        self.on_spot = 0
        self.limits = {s.provider: programme.provider_limit(s.provider) for s in programme.supplies}

    def open(self, unit: _Open) -> None:
        self.units.append(unit)
        for waiting in self.roomy:
            waiting.append(unit)
        self.spent += unit.price

    def count(self, supply: Supply, pool: int, number: int) -> None:
        self.by_pool[pool] += number
        self.by_provider[supply.provider] += number
        self.on_spot += number * supply.spot
        if supply.group is not None:
            self.by_fate.setdefault(pool, Counter())[supply.group] += number

    def headroom(self, supply: Supply) -> float:
        """Shards that the limits still let this supply take."""
        room = self.limits[supply.provider] - self.by_provider[supply.provider]
        if supply.spot:
            room = min(room, self.programme.spot_limit - self.on_spot)
        return max(0.0, room)

    def bears(self, pool: int, supply: Supply, goal: int) -> bool:
        """Whether one more shard of this fate keeps the pool's promised risk once the goal is met."""
        if supply.group is None:
            return True
        programme, need = self.programme, self.programme.needs.pools[pool]
        fates = {group: number for group, number in self.by_fate.get(pool, {}).items() if number}
        fates[supply.group] = fates.get(supply.group, 0) + 1
        exposed = sum(programme.group_loss[group] for group in fates)
        if need.covered(goal) - exposed < programme.asked_quantile(pool):
            return False
        short = need.short(goal) + sum(
            programme.group_loss[group] * LOST_SHARE * need.short(max(0, goal - number))
            for group, number in fates.items()
        )
        return short <= shortfall_limit(need)


def greedy(programme: Programme) -> Choice:
    """Keeps what runs, fills its free room, buys the cheapest next unit, then gives up what is not needed."""
    state = _running(programme)
    goals = [_goal(programme, pool) for pool in range(len(programme.needs.pools))]
    for pool, goal in enumerate(goals):
        _serve(state, pool, goal)
    _give_up(state, goals)
    return _choice(state)


def serve_anew(programme: Programme, choice: Choice, pools: Collection[int]) -> Choice:
    """The choice with these pools served afresh, on the room they had and on new units; the others keep what they have
    but for units that none needs any more.
    """
    state = _running(programme)
    for unit in list(state.units):
        if unit.node is not None and not choice.kept[unit.node]:
            _return(state, unit)
    for unit in state.units:
        if unit.node is not None:
            _put(state, unit, choice.added[unit.node], pools)
    for bought in choice.bought:
        _put(state, _open(state, bought.candidate), bought.shards, pools)
    goals = [
        _goal(programme, pool) if pool in pools else state.by_pool[pool] for pool in range(len(programme.needs.pools))
    ]
    for pool in sorted(pools):
        _serve(state, pool, goals[pool])
    _give_up(state, goals)
    return _choice(state)


def _return(state: _State, unit: _Open) -> None:
    state.units.remove(unit)
    unit.room = None
    state.spent -= unit.price
    for pool, count in unit.held.items():
        state.count(unit.supply, pool, -count)


def _put(state: _State, unit: _Open, shards: Sequence[int], without_pools: Collection[int]) -> None:
    for pool, count in enumerate(shards):
        if count and unit.room is not None and pool not in without_pools:
            unit.room = without(unit.room, state.parts[state.programme.needs.pools[pool].shape], count)
            unit.shards[pool] += count
            state.count(unit.supply, pool, count)


def _running(programme: Programme) -> _State:
    """Every node that runs, with what it carries."""
    state = _State(programme)
    for index, node in enumerate(programme.running):
        room = room_of(node.item.node.resources) if node.patterns else None
        held = {pool: count for pool, count in enumerate(node.held) if count}
        for pool, count in held.items():
            if room is not None:
                room = without(room, state.parts[programme.needs.pools[pool].shape], count)
            state.count(node.supply, pool, count)
        state.open(_Open(node.supply, node.price, room, Counter(), None, index, held))
    return state


def _goal(programme: Programme, pool: int) -> int:
    """The least number of lasting shards that keeps both promises of the risk class."""
    need = programme.needs.pools[pool]
    limit, asked = shortfall_limit(need), programme.asked_quantile(pool)
    goal = need.desired
    while goal < need.most and (need.short(goal) > limit or need.covered(goal) < asked):
        goal += 1
    return goal


def _serve(state: _State, pool: int, goal: int) -> None:
    """Free room in the order in which it was opened, then new units. Whatever does not take one more shard of the pool
    now will not do so later either: room, limits and risk only shrink.
    """
    part = state.parts[state.programme.needs.pools[pool].shape]
    serving, waiting = state.programme.serving_sets[pool], state.roomy[state.programme.needs.pools[pool].shape]
    position = 0
    while state.by_pool[pool] < goal:
        if position == len(waiting) and not _buy(state, pool, goal):
            return
        unit = waiting[position]
        if unit.room is None or fitting(unit.room, part) == 0:
            del waiting[position]
        elif unit.supply in serving and state.headroom(unit.supply) > 0 and state.bears(pool, unit.supply, goal):
            unit.room = without(unit.room, part, 1)
            unit.shards[pool] += 1
            state.count(unit.supply, pool, 1)
        else:
            position += 1


def _buy(state: _State, pool: int, goal: int) -> bool:
    """Open the unit whose shards that are still wanted are cheapest; False when no unit may be opened."""
    programme, market = state.programme, state.market
    shape = programme.needs.pools[pool].shape
    borne: dict[str | None, bool] = {}
    usable = np.zeros(len(programme.supplies))
    for index in programme.serving[pool]:
        supply = programme.supplies[index]
        if supply.group not in borne:
            borne[supply.group] = state.bears(pool, supply, goal)
        usable[index] = state.headroom(supply) if borne[supply.group] else 0.0
    useful = np.minimum(np.minimum(goal - state.by_pool[pool], market.slots[:, shape]), usable[market.supply])
    open_ = (useful > 0) & (market.left > 0)
    budget = programme.policy.hourly_budget
    if budget is not None:
        open_ &= state.spent + market.price <= float(budget.amount) + 1e-12
    if not open_.any():
        return False
    _open(state, int(np.argmin(np.where(open_, market.score / np.maximum(useful, 1), np.inf))))
    return True


def _open(state: _State, index: int) -> _Open:
    chosen = state.programme.candidates[index]
    resources = chosen.quote.offer.resources
    unit = _Open(chosen.supply, chosen.price, room_of(resources), Counter(), index, None, {})
    state.market.buy(state.programme, index)
    state.open(unit)
    return unit


def _give_up(state: _State, goals: list[int]) -> None:
    """Dearest first, every unit whose shards the pools can do without, where that saves something."""
    dropped: set[int] = set()
    for unit in sorted(state.units, key=lambda u: (-u.price, u.node if u.node is not None else -1)):
        node = None if unit.node is None else state.programme.running[unit.node]
        if node is not None and (node.pinned or node.release_cost >= node.price):
            continue
        on_it = unit.shards + Counter(unit.held)
        if all(state.by_pool[pool] - count >= goals[pool] for pool, count in on_it.items()):
            dropped.add(id(unit))
            state.spent -= unit.price
            for pool, count in on_it.items():
                state.count(unit.supply, pool, -count)
    state.units = [unit for unit in state.units if id(unit) not in dropped]


def _choice(state: _State) -> Choice:
    pools = len(state.programme.needs.pools)
    nodes = {unit.node: unit for unit in state.units if unit.node is not None}
    running = range(len(state.programme.running))

    def on_it(unit: _Open) -> tuple[int, ...]:
        counts = [0] * pools
        for pool, count in unit.shards.items():
            counts[pool] = count
        return tuple(counts)

    return Choice(
        kept=tuple(index in nodes for index in running),
        added=tuple(on_it(nodes[index]) if index in nodes else (0,) * pools for index in running),
        bought=tuple(
            Unit(unit.candidate, on_it(unit)) for unit in state.units if unit.candidate is not None and unit.shards
        ),
    )
