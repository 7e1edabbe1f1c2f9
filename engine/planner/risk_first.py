"""A large programme in two stages: first which risks are taken, then which whole units are bought.

The linear relaxation is nearly exact in the choice of risks, and branching on the few that it leaves open makes it so;
what it says of units is far from whole numbers. With the risks settled, every pool's shards per correlation group are
simply bounded, and what is left is a transport problem with whole units: small, because only purchases whose reduced
cost is near nothing are in it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from itertools import count
from math import ceil
from operator import mul

import numpy as np
from numpy.typing import NDArray

from engine.model.ids import OfferId
from engine.planner.candidates import Supply
from engine.planner.formulation import Columns
from engine.planner.linear import LinearModel, Relaxation, Solution, solve
from engine.planner.packing import Pattern
from engine.planner.programme import IDLE, LOST_SHARE, MISSING, Programme, shortfall_limit

MOST_BRANCHES = 40
_MARGIN = 1.03
"""What the risks cost is guessed at when it is decided whether units are good enough."""
_WHOLE = 1e-6
CUT_ROUNDS = 2
_VIOLATED = 1e-4
"""Shards of shortage."""
_PLUNGE = 0.3
"""Of the risks that are open, the share that is settled before the relaxation is asked again."""
_MOST_PLUNGES = 12


def solve_with_cuts(relaxation: Relaxation, columns: Columns, *, rounds: int = CUT_ROUNDS) -> bool:
    """Solve, add of each curve the deferred tangent that the solution violates most, and again a few times; what is
    then still left out only makes the bound a little lower. False when the time is up.
    """
    waiting = list(columns.deferred or ())
    for _ in range(rounds):
        if not relaxation.solve():
            return False
        values = relaxation.values
        worst: dict[int, tuple[float, int]] = {}
        for position, (terms, at_least) in enumerate(waiting):
            missing = at_least - sum(values[column] * each for column, each in terms)
            if missing > _VIOLATED:
                curve = terms[0][0]
                worst[curve] = max(worst.get(curve, (0.0, 0)), (missing, position))
        if not worst:
            return True
        added = {position for _, position in worst.values()}
        for position in sorted(added):
            relaxation.add(waiting[position][0], at_least=waiting[position][1])
        waiting = [cut for position, cut in enumerate(waiting) if position not in added]
    return relaxation.solve()


def settle_risks(programme: Programme, relaxation: Relaxation, columns: Columns, *, branches: int) -> float | None:
    """Leaves the relaxation, already solved, with every risk and kept node in whole numbers, the best ones if they are
    found within so many branches. What no choice on the offered menus costs less than; None when the time is up.
    """
    groups = _alternatives(columns)
    pinned = {column for column, node in zip(columns.keep, programme.running, strict=True) if node.pinned}
    owner = {column: index for index, group in enumerate(groups) for column in group}
    decided = np.array(sorted(owner), dtype=np.int64)
    fixed: dict[int, float] = {}
    order = count()
    leaves: list[tuple[float, int, dict[int, float]]] = [(relaxation.objective, next(order), {})]
    for _ in range(branches):
        if not leaves:
            return None
        _, _, wanted = heappop(leaves)
        fixed = _impose(relaxation, pinned, fixed, wanted)
        if not relaxation.solve():
            continue
        values = relaxation.values[decided]
        open_ = np.abs(values - np.rint(values))
        if open_.max(initial=0.0) <= _WHOLE:
            return relaxation.objective
        column = int(decided[int(np.argmax(open_))])
        for value in (1.0, 0.0):
            more = {other: 0.0 for other in groups[owner[column]] if value and len(groups[owner[column]]) > 1}
            heappush(leaves, (relaxation.objective, next(order), {**wanted, **more, column: value}))
    bound = min((leaf[0] for leaf in leaves), default=relaxation.objective)
    return bound if _plunge(relaxation, groups) else None


def reserve_saves(programme: Programme, relaxation: Relaxation, columns: Columns) -> float:
    """By how much at most the relaxation, just solved, would cost less if what is in reserve were on offer in it."""
    index_of = {supply: index for index, supply in enumerate(programme.supplies)}
    saved = 0.0
    for shelf in programme.reserve:
        index = index_of.get(shelf.supply)
        if index is None:
            continue
        worth = [
            -relaxation.duals[columns.room[index, shape]] if (index, shape) in columns.room else 0.0
            for shape in range(len(programme.needs.shapes))
        ]
        best = max(sum(map(mul, pattern, worth)) for pattern in shelf.patterns)
        saved += float(np.maximum(0.0, best - shelf.scores / programme.scale) @ shelf.most)
    return saved


def _alternatives(columns: Columns) -> list[list[int]]:
    """Columns of which exactly one is taken; a switch or a node stands alone."""
    return [
        *([column for column, _ in menu] for menu in columns.menus if menu),
        *([column] for switches in columns.switches for column in switches.values()),
        *([column] for column in columns.keep),
    ]


def _impose(
    relaxation: Relaxation, pinned: set[int], fixed: dict[int, float], wanted: dict[int, float]
) -> dict[int, float]:
    for column in fixed.keys() - wanted.keys():
        relaxation.bound(column, float(column in pinned), 1.0)
    for column, value in wanted.items():
        if fixed.get(column) != value:
            relaxation.bound(column, value, value)
    return wanted


def _plunge(relaxation: Relaxation, groups: Sequence[Sequence[int]]) -> bool:
    """Settle the clearest of what is open, each time with what the relaxation makes of it, until nothing is."""
    for _ in range(_MOST_PLUNGES):
        values = relaxation.values
        clarity = {
            index: max(abs(2 * values[column] - 1) for column in group) if len(group) == 1 else max(values[list(group)])
            for index, group in enumerate(groups)
        }
        open_ = sorted((i for i, clear in clarity.items() if clear < 1 - _WHOLE), key=lambda i: -clarity[i])
        if not open_:
            break
        for index in open_[: ceil(len(open_) * _PLUNGE)]:
            _round(relaxation, groups[index])
        if not relaxation.solve():
            return False
    for group in groups:
        _round(relaxation, group)
    return relaxation.solve()


def _round(relaxation: Relaxation, group: Sequence[int]) -> None:
    values = relaxation.values
    chosen = max(group, key=lambda column: values[column])
    for column in group:
        value = float(column == chosen) if len(group) > 1 else float(np.rint(values[column]))
        relaxation.bound(column, value, value)


@dataclass(frozen=True)
class _Purchase:
    """One filling of one candidate, or of a running node's free room."""

    column: int
    supply: int
    pattern: Pattern
    price: float
    cost: float
    most: int
    row: tuple[str, int]
    """Purchases of one row share ``row_most``."""
    row_most: int
    offer: OfferId | None


class WholeUnits:
    """Units of the best purchases carry shards to pools, each at most what its risks, as the relaxation holds them,
    allow per correlation group.
    """

    def __init__(
        self,
        programme: Programme,
        columns: Columns,
        relaxation: Relaxation,
        *,
        most: int,
        whole_shards: bool,
        ways_out: bool,
    ) -> None:
        self.programme, self.columns, self.relaxation = programme, columns, relaxation
        self.values = relaxation.values
        self.most, self.whole_shards, self.ways_out = most, whole_shards, ways_out
        self.model = LinearModel()
        self.kept = [bool(np.rint(self.values[column])) for column in columns.keep]
        self.wanted = self._wanted()
        self.allowed = self._allowed()
        self.purchases = self._purchases()
        self.bought = [self.model.column(p.cost, upper=p.most, integer=True) for p in self.purchases]
        self.shards: dict[tuple[int, int], int] = {}
        self._carry()
        self._demand()
        self._limits()

    def solve(self, *, enough: float, time_limit: float, seed: int) -> Solution:
        """``enough``: the whole model's objective at which to stop looking."""
        paid = sum(p.cost * float(self.values[p.column]) for p in self.purchases)
        risks = self.relaxation.objective - paid
        target = enough - _MARGIN * abs(risks)
        solution = solve(self.model, gap=1e-4, time_limit=time_limit, seed=seed, enough=target)
        if solution.values is None or self.whole_shards or self._shards_are_whole(solution.values):
            return solution
        again = self._in_whole_shards(solution.values, time_limit=max(0.0, time_limit - solution.seconds), seed=seed)
        return replace(again, bound=solution.bound, seconds=solution.seconds + again.seconds)

    def _shards_are_whole(self, values: NDArray[np.float64]) -> bool:
        shards = values[list(self.shards.values())]
        return bool(np.all(np.abs(shards - np.rint(shards)) < _WHOLE))

    def _in_whole_shards(self, values: NDArray[np.float64], *, time_limit: float, seed: int) -> Solution:
        """The same units with whole shards on them: rounding each by itself would break the limits that they share."""
        shards = set(self.shards.values())
        fixed = replace(
            self.model,
            lower=list(self.model.lower),
            upper=list(self.model.upper),
            integer=[whole or column in shards for column, whole in enumerate(self.model.integer)],
        )
        for column in self.bought:
            fixed.lower[column] = fixed.upper[column] = float(np.rint(values[column]))
        return solve(fixed, gap=1e-4, time_limit=time_limit, seed=seed)

    def _held(self) -> Iterator[tuple[Supply, int, int]]:
        """(supply, pool, shards) of the nodes that stay."""
        for node, stays in zip(self.programme.running, self.kept, strict=True):
            for pool, shards in enumerate(node.held):
                if stays and shards:
                    yield node.supply, pool, shards

    def _wanted(self) -> list[int]:
        """New shards by pool: what the relaxation gives it, less what stays."""
        given = [float(self.values[column]) for column in self.columns.lasting]
        for (supply, pools), column in self.columns.share.items():
            if self.programme.supplies[supply].group is not None:
                given[pools[0]] += float(self.values[column])
        held = [0] * len(given)
        for _, pool, shards in self._held():
            held[pool] += shards
        wanted = []
        for need, new, there in zip(self.programme.needs.pools, given, held, strict=True):
            total = max(need.desired, ceil(new - 0.3) + there)
            while total < need.most and need.short(total) > shortfall_limit(need):
                total += 1
            wanted.append(max(0, total - there))
        return wanted

    def _allowed(self) -> dict[tuple[int, str], int]:
        """New shards that a pool may have in a correlation group; what is not named is not to be used."""
        held: dict[tuple[int, str], int] = {}
        total = self.total = list(self.wanted)
        for _, pool, shards in self._held():
            total[pool] += shards
        for supply, pool, shards in self._held():
            if supply.group is not None:
                held[pool, supply.group] = held.get((pool, supply.group), 0) + shards
        used = {
            (pools[0], group)
            for index, pools in self.columns.share
            if (group := self.programme.supplies[index].group) is not None
        }
        allowed = {}
        for pool, group in sorted(used):
            need, all_ = self.programme.needs.pools[pool], total[pool]
            most = all_ if group in self._exposed(pool) else max(0, all_ - need.desired)
            there = held.get((pool, group), 0)
            while most > there and self._lost(pool, group, most) > max(0.0, shortfall_limit(need) - need.short(all_)):
                most -= 1
            allowed[pool, group] = max(0, most - there)
        return allowed

    def _lost(self, pool: int, group: str, shards: int) -> float:
        """Expected further shortage where so many of the pool's shards share the group's fate."""
        need, total = self.programme.needs.pools[pool], self.total[pool]
        more = need.short(max(0, total - shards)) - need.short(total)
        return self.programme.group_loss[group] * LOST_SHARE * more

    def _exposed(self, pool: int) -> set[str]:
        menu = self.columns.menus[pool]
        chosen = {group for column, option in menu if self.values[column] > 0.5 for group in option.groups}
        return chosen | {group for group, column in self.columns.switches[pool].items() if self.values[column] > 0.5}

    def _purchases(self) -> list[_Purchase]:
        """Those whose reduced cost is least; of equals, those that the relaxation uses."""
        programme = self.programme
        index_of = {supply: index for index, supply in enumerate(programme.supplies)}
        found = []
        costs, values = self.relaxation.reduced_costs, self.values
        units = np.array([column for fillings in self.columns.units for column in fillings], dtype=np.int64)
        ranked = units[np.lexsort((units, -values[units], np.maximum(0.0, np.round(costs[units], 9))))]
        used = ranked[values[ranked] > _WHOLE]
        best = {*used.tolist(), *ranked[: self.most].tolist()}
        if self.ways_out:
            best |= self._ways_out(ranked.tolist())
        for index, (candidate, fillings) in enumerate(zip(programme.candidates, self.columns.units, strict=True)):
            for pattern, column in zip(candidate.patterns, fillings, strict=True):
                if column in best:
                    found.append(
                        _Purchase(
                            column,
                            index_of[candidate.supply],
                            pattern,
                            candidate.price / programme.scale,
                            candidate.score / programme.scale,
                            candidate.most,
                            ("candidate", index),
                            candidate.most,
                            candidate.quote.offer.id,
                        )
                    )
        for index, (node, fillings) in enumerate(zip(programme.running, self.columns.extend, strict=True)):
            if self.kept[index]:
                found += [
                    _Purchase(column, index_of[node.supply], pattern, 0.0, 0.0, 1, ("node", index), 1, None)
                    for pattern, column in zip(node.patterns, fillings, strict=True)
                ]
        return found

    def _ways_out(self, ranked: Sequence[int]) -> set[int]:
        """Of every supply that stays the first that carries a shape, so that no pool is left without."""
        owner = {
            column: (candidate.supply, pattern)
            for candidate, fillings in zip(self.programme.candidates, self.columns.units, strict=True)
            if candidate.supply.group is None
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

    def _carry(self) -> None:
        room: dict[tuple[int, int], list[tuple[int, float]]] = {}
        rows: dict[tuple[str, int], list[int]] = {}
        offers: dict[OfferId, list[int]] = {}
        for purchase, column in zip(self.purchases, self.bought, strict=True):
            for shape, slots in enumerate(purchase.pattern):
                if slots:
                    room.setdefault((purchase.supply, shape), []).append((column, -slots))
            rows.setdefault(purchase.row, []).append(column)
            if purchase.offer is not None:
                offers.setdefault(purchase.offer, []).append(column)
        most = {purchase.row: purchase.row_most for purchase in self.purchases}
        for row, sharing in rows.items():
            if len(sharing) > 1:
                self.model.row(((column, 1.0) for column in sharing), at_most=most[row])
        available = {c.quote.offer.id: c.quote.offer.available for c in self.programme.candidates}
        for offer, sharing in offers.items():
            units = available.get(offer)
            if units is not None and len(sharing) > 1:
                self.model.row(((column, 1.0) for column in sharing), at_most=units)
        for (index, shape), terms in room.items():
            carried = [(column, 1.0) for column in self._takers(index, shape)]
            self.model.row([*carried, *terms], at_most=0)

    def _takers(self, index: int, shape: int) -> Iterator[int]:
        supply = self.programme.supplies[index]
        for pool in supply.pools:
            need = self.programme.needs.pools[pool]
            most = self.wanted[pool] if supply.group is None else self.allowed.get((pool, supply.group), 0)
            if need.shape == shape and min(most, self.wanted[pool]) > 0:
                price = IDLE * self.programme.reference[pool] / self.programme.scale
                column = self.model.column(price, upper=min(most, self.wanted[pool]), integer=self.whole_shards)
                self.shards[index, pool] = column
                yield column

    def _demand(self) -> None:
        by_pool: dict[int, list[int]] = {}
        by_group: dict[tuple[int, str], list[int]] = {}
        for (index, pool), column in self.shards.items():
            by_pool.setdefault(pool, []).append(column)
            group = self.programme.supplies[index].group
            if group is not None:
                by_group.setdefault((pool, group), []).append(column)
        for pool, wanted in enumerate(self.wanted):
            if wanted > 0:
                missing = self.model.column(MISSING * self.programme.reference[pool] / self.programme.scale)
                self.model.row([(missing, 1.0), *((column, 1.0) for column in by_pool.get(pool, ()))], at_least=wanted)
        for key, sharing in by_group.items():
            if len(sharing) > 1:
                self.model.row(((column, 1.0) for column in sharing), at_most=self.allowed[key])
        for pool, need in enumerate(self.programme.needs.pools):
            left = shortfall_limit(need) - need.short(self.total[pool])
            mine = {group: sharing for (owner, group), sharing in by_group.items() if owner == pool}
            # The loss is convex in the shards exposed: its chord never says too little.
            chords = {
                group: self._lost(pool, group, self.allowed[pool, group]) / self.allowed[pool, group] for group in mine
            }
            if sum(chord * self.allowed[pool, group] for group, chord in chords.items()) > left:
                terms = [(column, chords[group]) for group, sharing in mine.items() for column in sharing]
                self.model.row(terms, at_most=max(0.0, left))

    def _limits(self) -> None:
        programme, supplies = self.programme, self.programme.supplies
        there: dict[str, int] = {}
        on_spot = 0
        for supply, _, shards in self._held():
            there[supply.provider] = there.get(supply.provider, 0) + shards
            on_spot += shards * supply.spot
        for provider in sorted({supply.provider for supply in supplies}):
            terms = [
                (column, 1.0) for (index, _), column in self.shards.items() if supplies[index].provider == provider
            ]
            self.model.row(terms, at_most=programme.provider_limit(provider) - there.get(provider, 0))
        terms = [(column, 1.0) for (index, _), column in self.shards.items() if supplies[index].spot]
        self.model.row(terms, at_most=programme.spot_limit - on_spot)
        budget = programme.policy.hourly_budget
        if budget is not None:
            running = sum(node.price for node, stays in zip(programme.running, self.kept, strict=True) if stays)
            spent = [(column, p.price) for p, column in zip(self.purchases, self.bought, strict=True) if p.price]
            self.model.row(spent, at_most=(float(budget.amount) - running) / programme.scale + 1e-9)

    def spread(self, whole: NDArray[np.float64]) -> NDArray[np.float64]:
        """The solution in the columns of the whole model."""
        whole = np.rint(whole)
        values = np.zeros(len(self.values))
        values[self.columns.keep] = self.kept
        for purchase, column in zip(self.purchases, self.bought, strict=True):
            values[purchase.column] = whole[column]
        owners = {(index, pool): pools for index, pools in self.columns.share for pool in pools}
        for (index, pool), column in self.shards.items():
            values[self.columns.share[index, owners[index, pool]]] += whole[column]
            if self.programme.supplies[index].group is None:
                values[self.columns.lasting[pool]] += whole[column]
        return values
