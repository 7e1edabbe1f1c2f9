"""With every risk settled (risk_first.py): which whole units carry which whole shards to which pools.

A transport problem: units of the purchases whose reduced cost is least carry shards to pools. How many a pool gets is
part of it, for one shard more may let a cheaper group carry several. A pool's shortage is convex in what a group's loss
leaves it with; chords through whole shards stand for it, which never say too little.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

import numpy as np
from numpy.typing import NDArray

from engine.model.ids import OfferId
from engine.planner.candidates import Supply
from engine.planner.formulation import Columns, Pools, first_of_supplies
from engine.planner.linear import LinearModel, Relaxation, Solution, solve
from engine.planner.packing import Pattern
from engine.planner.programme import IDLE, LOST_SHARE, MISSING, QUANTILE, Programme, shortfall_limit
from engine.planner.risk import RiskOption

_WHOLE = 1e-6
_HALVES = 1e-4
"""Only of pools that the relaxation gives parts of shards, in all or in a group, the count is left open."""
_COARSE = 0.02
"""Of a pool's shortfall limit: what chords may overstate a loss by, between the whole shards that they go through."""
_STOP = 1e-3
"""Relative gap below which the search for better whole units is not worth its time."""


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


@dataclass(frozen=True)
class _Range:
    """What a pool may have in all, what stays among it."""

    least: int
    most: int
    there: int
    """Shards on nodes that stay."""
    held: dict[str, int]
    """Of these, by correlation group."""
    exposed: frozenset[str]
    """Groups whose loss may take the pool below what is desired."""
    allowed: dict[str, int]
    """New shards per group at most; what is not named is not to be used."""

    @property
    def fixed(self) -> bool:
        return self.least == self.most


class WholeUnits:
    """The model for one way to settle the risks: what the relaxation holds."""

    def __init__(
        self,
        programme: Programme,
        columns: Columns,
        relaxation: Relaxation,
        *,
        most: int,
        ways_out: bool,
        rounded: bool = False,
    ) -> None:
        """``most``: purchases that are looked at. ``ways_out``: besides these, some of every supply that stays.
        ``rounded``: pools get what the relaxation gives them, rounded, and of losses the coarsest chord; for so many
        pools that the finer model is not solved in time.
        """
        self.rounded = rounded
        self.programme, self.columns, self.relaxation = programme, columns, relaxation
        self.values = relaxation.values
        self.model = LinearModel()
        self.kept = [bool(np.rint(self.values[column])) for column in columns.keep]
        self.offset = self._settled_costs()
        self.ranges = self._ranges()
        self.purchases = self._purchases(most, ways_out)
        self.bought = [self.model.column(p.cost, upper=p.most, integer=True) for p in self.purchases]
        self.shards: dict[tuple[int, Pools], int] = {}
        self.lasting: dict[int, int] = {}
        self._buy()
        self._carry()
        for pool in range(len(self.ranges)):
            self._pool(pool)
        self._limits()

    def solve(self, *, enough: float, time_limit: float, seed: int) -> Solution:
        """``enough``: the whole model's objective at which to stop looking."""
        return solve(
            self.model, gap=_STOP, time_limit=time_limit, seed=seed, enough=enough - self.offset, by_reduced_cost=False
        )

    def _settled_costs(self) -> float:
        """What is decided, in the objective of the whole model."""
        programme = self.programme
        kept = sum(n.price - n.release_cost for n, stays in zip(programme.running, self.kept, strict=True) if stays)
        exposed = sum(
            QUANTILE * programme.group_loss[group] * programme.reference[pool] * need.desired
            for pool, need in enumerate(programme.needs.pools)
            for group, column in self.columns.switches[pool].items()
            if self.values[column] > 0.5
        )
        return (kept + exposed) / programme.scale

    def _held(self) -> Iterator[tuple[Supply, int, int]]:
        """(supply, pool, shards) of the nodes that stay."""
        for node, stays in zip(self.programme.running, self.kept, strict=True):
            for pool, shards in enumerate(node.held):
                if stays and shards:
                    yield node.supply, pool, shards

    def _ranges(self) -> list[_Range]:
        pools = range(len(self.programme.needs.pools))
        given = [float(self.values[column]) for column in self.columns.lasting]
        used: list[dict[str, float]] = [{} for _ in pools]
        for (index, owners), column in self.columns.share.items():
            group, shards = self.programme.supplies[index].group, float(self.values[column])
            if group is not None:
                used[owners[0]][group] = used[owners[0]].get(group, 0.0) + shards
                given[owners[0]] += shards
        there, held = [0 for _ in pools], [dict[str, int]() for _ in pools]
        for supply, pool, shards in self._held():
            there[pool] += shards
            if supply.group is not None:
                held[pool][supply.group] = held[pool].get(supply.group, 0) + shards
        return [self._range(pool, given[pool] + there[pool], there[pool], held[pool], used[pool]) for pool in pools]

    def _range(self, pool: int, given: float, there: int, held: dict[str, int], used: dict[str, float]) -> _Range:
        need, limit = self.programme.needs.pools[pool], shortfall_limit(self.programme.needs.pools[pool])
        taken: list[RiskOption] = [option for column, option in self.columns.menus[pool] if self.values[column] > 0.5]
        least = max(need.desired, there, *(option.shards for option in taken))
        while least < need.most and need.short(least) > limit:
            least += 1
        if self.rounded:
            least = most = max(least, ceil(given - 0.3))
        else:
            halves = any(abs(shards - round(shards)) > _HALVES for shards in (given, *used.values()))
            most = max(least, ceil(given - _WHOLE) + halves)
        exposed = {group for option in taken for group in option.groups}
        exposed |= {group for group, column in self.columns.switches[pool].items() if self.values[column] > 0.5}
        exposed |= {group for group, shards in held.items() if shards > least - need.desired}
        allowed = {}
        for group in used:
            reach = most if group in exposed else most - need.desired
            while reach > 0 and self._lost(pool, group, most, reach) > max(0.0, limit - need.short(most)):
                reach -= 1
            if reach > held.get(group, 0):
                allowed[group] = reach - held.get(group, 0)
        return _Range(least, most, there, held, frozenset(exposed), allowed)

    def _lost(self, pool: int, group: str, total: int, shards: int) -> float:
        """Expected further shortage where so many of the pool's shards share the group's fate."""
        need = self.programme.needs.pools[pool]
        return self._weight(group) * (need.short(max(0, total - shards)) - need.short(total))

    def _weight(self, group: str) -> float:
        return self.programme.group_loss[group] * LOST_SHARE

    def _purchases(self, most: int, ways_out: bool) -> list[_Purchase]:
        """Those whose reduced cost is least; of equals, those that the relaxation uses."""
        programme = self.programme
        index_of = {supply: index for index, supply in enumerate(programme.supplies)}
        found = []
        costs, values = self.relaxation.reduced_costs, self.values
        units = np.array([column for fillings in self.columns.units for column in fillings], dtype=np.int64)
        ranked = units[np.lexsort((units, -values[units], np.maximum(0.0, np.round(costs[units], 9))))]
        used = ranked[values[ranked] > _WHOLE]
        best = {*used.tolist(), *ranked[:most].tolist()}
        if ways_out:
            best |= first_of_supplies(programme, self.columns, ranked.tolist(), lasting_only=True)
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

    def _buy(self) -> None:
        rows: dict[tuple[str, int], list[int]] = {}
        offers: dict[OfferId, list[int]] = {}
        for purchase, column in zip(self.purchases, self.bought, strict=True):
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

    def _carry(self) -> None:
        """What is carved per supply and shape fits into what is bought; what stays is handed to the pools."""
        programme = self.programme
        room: dict[tuple[int, int], list[tuple[int, float]]] = {}
        for purchase, column in zip(self.purchases, self.bought, strict=True):
            for shape, slots in enumerate(purchase.pattern):
                if slots:
                    room.setdefault((purchase.supply, shape), []).append((column, -slots))
        carved: dict[tuple[int, int], list[tuple[int, float]]] = {}
        given: dict[Pools, list[int]] = {}
        for index, pools in self.columns.share:
            group, shape = programme.supplies[index].group, programme.needs.pools[pools[0]].shape
            most = sum(self._most_new(pool, group) for pool in pools)
            if most <= 0 or (index, shape) not in room:
                continue
            price = IDLE * programme.reference[pools[0]] / programme.scale
            column = self.shards[index, pools] = self.model.column(price, upper=most, integer=True)
            carved.setdefault((index, shape), []).append((column, 1.0))
            if group is None:
                given.setdefault(pools, []).append(column)
        for place, terms in room.items():
            self.model.row([*carved.get(place, ()), *terms], at_most=0)
        for pools, shares in given.items():
            for pool in pools:
                self.lasting[pool] = self.model.column(upper=self._most_new(pool, None), integer=True)
            taken = [(self.lasting[pool], 1.0) for pool in pools]
            self.model.row([*taken, *((column, -1.0) for column in shares)], at_most=0)

    def _most_new(self, pool: int, group: str | None) -> int:
        of = self.ranges[pool]
        return of.most - of.there if group is None else min(of.most - of.there, of.allowed.get(group, 0))

    def _pool(self, pool: int) -> None:
        """Its shards, at least as many as are asked for; what is lost with a group stays within the limit."""
        programme, of = self.programme, self.ranges[pool]
        need, price = programme.needs.pools[pool], programme.reference[pool] / programme.scale
        groups: dict[str, list[int]] = {group: [] for group in of.held}
        for (index, pools), column in self.shards.items():
            group = programme.supplies[index].group
            if group is not None and pools[0] == pool:
                groups.setdefault(group, []).append(column)
        new = [(column, 1.0) for columns in groups.values() for column in columns]
        if pool in self.lasting:
            new.append((self.lasting[pool], 1.0))
        missing = (self.model.column(MISSING * price), 1.0)
        if of.fixed:
            self.model.row([missing, *new], at_least=of.least - of.there)
            shards = None
        else:
            shards = self.model.column(lower=of.least, upper=of.most, integer=True)
            self.model.row([missing, *new, (shards, -1.0)], at_least=-of.there)
        for group, columns in groups.items():
            if columns and group not in of.exposed:
                terms = [(column, 1.0) for column in columns]
                left = -need.desired - of.held.get(group, 0)
                if shards is None:
                    self.model.row(terms, at_most=of.least + left)
                else:
                    self.model.row([*terms, (shards, -1.0)], at_most=left)
        self._shortage(pool, shards, groups)

    def _shortage(self, pool: int, shards: int | None, groups: dict[str, list[int]]) -> None:
        programme, of = self.programme, self.ranges[pool]
        need, limit = programme.needs.pools[pool], shortfall_limit(programme.needs.pools[pool])
        price = programme.policy.shortfall_factor * programme.reference[pool] / programme.scale
        certain = need.short(of.least)
        reach = {group: of.held.get(group, 0) + of.allowed.get(group, 0) * bool(groups[group]) for group in groups}
        worst = certain + sum(self._lost(pool, group, of.least, min(of.least, n)) for group, n in reach.items())
        if shards is None and (self.rounded or worst <= limit):
            terms, left = [], limit - certain
            self.offset += price * certain
            for group, columns in groups.items():
                each = self._lost(pool, group, of.least, reach[group]) / max(1, reach[group])
                terms += [(column, each) for column in columns]
                left -= each * of.held.get(group, 0)
                self.offset += price * each * of.held.get(group, 0)
                for column in columns:
                    self.model.cost[column] += price * each
            if worst > limit:
                self.model.row(terms, at_most=max(0.0, left))
            return
        # The shortage by itself is a column where the number of shards is open, and else known.
        short = self.model.column(price, lower=certain if shards is None else 0.0)
        if shards is not None:
            for slope, intercept in _chords(need.short, of.least, of.most, (), 0.0):
                self.model.row([(short, 1.0), (shards, -slope)], at_least=intercept)
        total = [(short, 1.0)]
        for group, columns in groups.items():
            more = self.model.column(price * self._weight(group))
            total.append((more, self._weight(group)))
            for slope, intercept in self._loss_chords(pool, group, reach[group]):
                row = [(more, 1.0), (short, 1.0), *((column, slope) for column in columns)]
                at_least = intercept - slope * of.held.get(group, 0)
                if shards is None:
                    self.model.row(row, at_least=at_least + slope * of.least)
                else:
                    self.model.row([*row, (shards, -slope)], at_least=at_least)
        if of.held:  # what is there may be too much already
            total.append((self.model.column(MISSING * price), -1.0))
        self.model.row(total, at_most=limit)

    def _loss_chords(self, pool: int, group: str, reach: int) -> list[tuple[float, float]]:
        """Of the shortage by the shards that are left when ``reach`` of them, or fewer, are gone."""
        of, need = self.ranges[pool], self.programme.needs.pools[pool]
        limit, bottom = shortfall_limit(need), max(0, of.least - reach)
        alone = reach
        while alone > 0 and need.short(of.least) + self._lost(pool, group, of.least, min(of.least, alone)) > limit:
            alone -= 1
        exact = (max(0, of.most - reach), max(0, of.least - alone))
        found = _chords(need.short, bottom, of.most, exact, _COARSE * limit / self._weight(group))
        return [chord for chord in found if chord[0] < 0]

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
        for place, column in self.shards.items():
            values[self.columns.share[place]] = whole[column]
        for pool, column in self.lasting.items():
            values[self.columns.lasting[pool]] = whole[column]
        return values


def _chords(
    curve: Callable[[int], float], least: int, most: int, exact: Iterable[int], coarse: float
) -> list[tuple[float, float]]:
    """(slope, intercept) of chords above a convex curve, between whole numbers: exact at its ends and at ``exact``, and
    nowhere above it by more than ``coarse``.
    """
    points = sorted({least, most, *(point for point in exact if least <= point <= most)})
    waiting, found = list(pairwise(points)), []
    while waiting:
        start, end = waiting.pop()
        slope = (curve(end) - curve(start)) / (end - start)
        over = {point: curve(start) + slope * (point - start) - curve(point) for point in range(start + 1, end)}
        worst = max(over, key=over.__getitem__, default=start)
        if over.get(worst, 0.0) > coarse:
            waiting += [(start, worst), (worst, end)]
        else:
            found.append((slope, curve(start) - slope * start))
    return sorted(found)
