"""The order of one fleet for the next step: what to keep, give back, move and ask for.

Capacity is cheap where it is spot, shards that stay attached cost nothing, and every moved one costs a copy and double
pay. So three sums are weighed against each other for every unit: its price, the shortfall it prevents, and the moves
that giving it up would cause. New capacity is asked for at the cheapest place first; what is denied is bought down the
fallback list within the same step, so asking for more than was ever seen costs nothing and tells how deep the market
is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray

from engine.planner.rolling.offers import StepOffer
from engine.planner.rolling.sizing import Array

GATE = 1.3
"""A move must save this much more than it costs, over the stay."""
BASE_QUANTILE = 0.15
"""Of the last day's demand: below it a shard is taken to stay for a day."""
PROBE_STEPS_BEYOND = 1.5
"""A stale belief is tried with so much more."""
MOST_ROOM = 10**9
DOUBT = 0.25
"""How likely spot that is slow, or the only quick one, is taken to come to nothing."""
UNSEEN_FIRST = 24
"""Shards of a slow offer asked for at the first step."""


@dataclass(frozen=True)
class FleetStep:
    """``demand`` and ``later``: samples ascending of the next step, and of the step at which the slowest offers arrive.

    ``reclaimed``: shares of spot capacity that went in recent steps. ``recent``: demand of the last day.
    ``committed`` and ``attached``: shards by cell. ``young``: units that may not be given back yet.
    """

    offers: tuple[StepOffer, ...]
    demand: Array
    later: Array
    reclaimed: Array
    recent: Array
    load: int
    held: Mapping[str, int]
    pending: Mapping[str, int]
    young: Mapping[str, int]
    committed: Mapping[str, int]
    attached: Mapping[str, int]
    move_cost: float
    shortfall_price: float
    steps_left: int
    first: bool
    """Nothing runs yet: everything ordered now arrives together."""


@dataclass(frozen=True)
class FleetOrder:
    """``targets`` in units, none of them 0; ``fallback``: where denied shards are bought instead, cheapest first."""

    targets: dict[str, int]
    fallback: tuple[str, ...]


def order_for(fleet: FleetStep) -> FleetOrder:
    """Pure: same step, same order."""
    desk = _Desk(fleet)
    wishes = desk.move_to_cheaper()
    desk.give_back()
    bought = desk.buy_for_next_step()
    probing = desk.ask_for_cheaper(wishes, beside_need=bought > 0)
    desk.buy_slow()
    return desk.order(fallback=not probing)


@dataclass(frozen=True)
class _Wish:
    """Attached shards that would move to any place that costs no more than ``most``."""

    most: float
    shards: float


@dataclass
class _Desk:
    fleet: FleetStep
    units: dict[str, int] = field(init=False)
    capacity: int = field(init=False)
    kept: int = field(init=False)
    """Attached shards that stay where they are."""

    def __post_init__(self) -> None:
        fleet = self.fleet
        self.offers = {offer.id: offer for offer in fleet.offers}
        self.cost = {offer.id: offer.cost(fleet.move_cost) for offer in fleet.offers}
        bought = sorted((o for o in fleet.offers if not o.term), key=lambda o: (self.cost[o.id], o.id))
        self.quick = [offer for offer in bought if offer.lead == 1 or fleet.first]
        self.slow = [offer for offer in bought if offer.lead > 1 and not fleet.first]
        self.units = {name: fleet.held[name] for name in self.offers if fleet.held.get(name)}
        self.by_cell = dict(fleet.committed)
        for name, count in self.units.items():
            self._fill(name, count)
        arriving = sum(count * self.offers[name].shards for name, count in fleet.pending.items())
        self.capacity = sum(self.by_cell.values()) + arriving
        self.kept = sum(min(shards, self.by_cell.get(cell, 0)) for cell, shards in fleet.attached.items())
        self.short, self.moves = self._tables()
        self.free = {cell: max(0, have - fleet.attached.get(cell, 0)) for cell, have in self.by_cell.items()}

    def _fill(self, name: str, count: int) -> None:
        cell = self.offers[name].cell
        self.by_cell[cell] = self.by_cell.get(cell, 0) + count * self.offers[name].shards

    def _tables(self) -> tuple[Array, Array]:
        """Expected cost of shortfall by capacity, and of moves by attached shards that stay."""
        fleet = self.fleet
        spot = sum(count * self.offers[n].shards for n, count in self.units.items() if self.offers[n].spot)
        needed = np.sort(fleet.demand + spot * _mixed(fleet.reclaimed, len(fleet.demand)))
        most = ceil(max(float(needed[-1]), self.capacity)) + 2
        grid = np.arange(most + max(offer.shards for offer in fleet.offers) + 1)
        short = fleet.shortfall_price * _expected_above(needed, grid)
        moves = fleet.move_cost * _expected_above(np.sort(np.minimum(fleet.load, fleet.demand)), grid)
        return short, moves

    def _short(self, capacity: int) -> float:
        return float(self.short[min(max(capacity, 0), len(self.short) - 1)])

    def _moves(self, kept: int) -> float:
        return float(self.moves[min(max(kept, 0), len(self.moves) - 1)])

    def _detached(self, name: str) -> int:
        """Attached shards that lose their place with one unit less."""
        offer = self.offers[name]
        attached, there = self.fleet.attached.get(offer.cell, 0), self.by_cell[offer.cell]
        return min(attached, there) - min(attached, there - offer.shards)

    def _may_go(self, name: str) -> bool:
        gone = self.fleet.held.get(name, 0) - self.units[name]
        return self.units[name] > 0 and gone < self.fleet.held.get(name, 0) - self.fleet.young.get(name, 0)

    def _drop(self, name: str, detached: int) -> None:
        offer = self.offers[name]
        self.units[name] -= 1
        self.by_cell[offer.cell] -= offer.shards
        self.capacity -= offer.shards
        self.kept -= detached

    # --- what runs

    def move_to_cheaper(self) -> list[_Wish]:
        """Give up dear places whose shards find free cheap ones; what finds none becomes a wish.

        Only demand that is there nearly always is worth a move: it stays for a day.
        """
        fleet = self.fleet
        stay = min(fleet.steps_left, len(fleet.recent))
        if fleet.first or stay <= 1:
            return []
        toll = fleet.move_cost / stay * GATE
        base = float(np.quantile(fleet.recent, BASE_QUANTILE))
        lowest = self._cheapest_by_cell()
        wishes: list[_Wish] = []
        moved = 0
        for name in sorted(self.units, key=lambda n: (-self.cost[n], n)):
            most = self.cost[name] - toll
            cheap = [cell for cell, cost in lowest.items() if cost <= most]
            settled = sum(fleet.attached.get(cell, 0) for cell in cheap) + moved
            wish = self._move_units(name, [c for c in cheap if c != self.offers[name].cell], base - settled)
            moved += wish[0]
            if wish[1] > 0:
                wishes.append(_Wish(most, wish[1]))
        return wishes

    def _move_units(self, name: str, cheap: Sequence[str], budget: float) -> tuple[int, float]:
        """(shards moved, shards that would still move)."""
        moved = 0
        while self._may_go(name):
            detached = self._detached(name)
            if detached <= 0 or detached > budget - moved:
                return moved, 0.0
            shards = self.offers[name].shards
            dear = self._short(self.capacity - shards) - self._short(self.capacity)
            if sum(self.free[cell] for cell in cheap) < detached or dear >= self.cost[name] * shards:
                return moved, min(budget - moved, float(self.fleet.attached.get(self.offers[name].cell, 0)))
            self._drop(name, detached)
            moved += detached
            rest = detached
            for cell in cheap:
                taken = min(self.free[cell], rest)
                self.free[cell] -= taken
                rest -= taken
        return moved, 0.0

    def _cheapest_by_cell(self) -> dict[str, float]:
        """Of what is held, cells in ascending order of it."""
        lowest: dict[str, float] = {}
        for name, count in self.units.items():
            if count:
                cell = self.offers[name].cell
                lowest[cell] = min(lowest.get(cell, float("inf")), self.cost[name])
        return dict(sorted(lowest.items(), key=lambda item: item[1]))

    def give_back(self) -> None:
        """One unit at a time, the one that saves most, while price beats the shortfall and the moves it prevents."""
        while True:
            best, gain, loses = None, 1e-12, 0
            for name in self.units:
                shards = self.offers[name].shards
                if not self._may_go(name) or shards > self.capacity:
                    continue
                detached = self._detached(name)
                more_short = self._short(self.capacity - shards) - self._short(self.capacity)
                more_moves = self._moves(self.kept - detached) - self._moves(self.kept)
                saved = self.cost[name] * shards - more_short - more_moves
                if saved > gain:
                    best, gain, loses = name, saved, detached
            if best is None:
                return
            self._drop(best, loses)

    # --- what is asked for

    def buy_for_next_step(self) -> int:
        """Shards bought: as many as are worth their price where they are believed to be found, asked for at the
        cheapest places first."""
        before = self.capacity
        for offer in self.quick:
            room = offer.free_units * offer.shards if offer.spot else MOST_ROOM
            while room > 0.5 and self._worth() > self.cost[offer.id]:
                self.capacity += 1
                room -= 1
            if self._worth() <= self.cost[offer.id]:
                break
        self._ask(self.capacity - before)
        return self.capacity - before

    def _worth(self) -> float:
        return self._short(self.capacity) - self._short(self.capacity + 1)

    def _ask(self, shards: int) -> None:
        for offer in self.quick:
            if shards <= 0:
                return
            room = self._room(offer)
            count = min(shards // offer.shards, room)
            rest = shards - count * offer.shards
            if count < room and rest > 0 and self._rounded(offer, rest) <= self._cheapest_rest(rest) * 1.0001:
                count += 1
            if count:
                self.units[offer.id] = self.units.get(offer.id, 0) + count
                shards -= count * offer.shards

    def _room(self, offer: StepOffer) -> int:
        if not offer.spot or not offer.asked_lately:
            return ceil(min(offer.free_units, UNSEEN_FIRST / offer.shards)) if self._splits(offer) else MOST_ROOM
        return max(1, ceil(offer.free_units))

    def _splits(self, offer: StepOffer) -> bool:
        """What arrives slowly is never in the fallback list: at the first step it is asked for in parts."""
        return self.fleet.first and offer.lead > 1

    def _rounded(self, offer: StepOffer, shards: int) -> float:
        return ceil(shards / offer.shards) * offer.shards * self.cost[offer.id]

    def _cheapest_rest(self, shards: int) -> float:
        return min(self._rounded(offer, shards) for offer in self.quick)

    def ask_for_cheaper(self, wishes: Sequence[_Wish], *, beside_need: bool) -> bool:
        """Look for cheap room that dear places could move to. True: asked for quick offers, so a denial must not be
        made good by the fallback list."""
        if not wishes:
            return False
        most = max(wish.most for wish in wishes)
        lowest = self._cheapest_by_cell()
        shards = min(sum(wish.shards for wish in wishes), float(np.quantile(self.fleet.recent, BASE_QUANTILE)))
        shards -= sum(free for cell, free in self.free.items() if lowest.get(cell, float("inf")) <= most)
        shards -= sum(n * self.offers[o].shards for o, n in self.fleet.pending.items() if self.cost[o] <= most)
        probing = False
        for offer in sorted((o for o in self.fleet.offers if o.spot), key=lambda o: (self.cost[o.id], o.id)):
            if shards <= 0 or self.cost[offer.id] > most:
                break
            if offer.lead == 1 and beside_need:
                continue
            count = min(_believed(offer), ceil(shards / offer.shards))
            if count:
                self.units[offer.id] = self.units.get(offer.id, 0) + count
                shards -= count * offer.shards
                probing = probing or offer.lead == 1
        return probing

    def buy_slow(self) -> None:
        """Offers that arrive later than the next step: so much that buying it quickly instead would cost more."""
        sure = any(not offer.spot for offer in self.quick)
        quick = self._quick_price() if sure else self.fleet.shortfall_price
        for offer in self.slow:
            if self.cost[offer.id] >= quick:
                return
            wanted = float(np.quantile(self.fleet.later, 1 - self.cost[offer.id] / quick))
            have = sum(self.fleet.committed.values())
            have += sum(count * self.offers[n].shards for n, count in self.units.items() if self.offers[n].lead > 1)
            have += sum(count * self.offers[n].shards for n, count in self.fleet.pending.items())
            have += 0 if sure else self._held_quick()
            missing = max(0.0, wanted - have) / offer.shards
            count = min(floor(missing) if sure else ceil(missing), _believed(offer))
            if count:
                self.units[offer.id] = self.units.get(offer.id, 0) + count
        if not sure:
            self._make_sure()

    def _make_sure(self) -> None:
        """What is certain but slow, as far as it is cheaper than the shortfall that doubtful spot leaves behind."""
        certain = [offer for offer in self.slow if not offer.spot]
        risked = self.fleet.shortfall_price * DOUBT
        if not certain or self.cost[certain[0].id] >= risked:
            return
        offer = certain[0]
        wanted = float(np.quantile(self.fleet.later, 1 - self.cost[offer.id] / risked))
        asked = self.units | {n: self.units.get(n, 0) + count for n, count in self.fleet.pending.items()}
        have = sum(self.fleet.committed.values())
        for name, count in asked.items():
            there = min(count, self.fleet.held.get(name, 0)) if self.offers[name].spot else count
            have += there * self.offers[name].shards
        missing = ceil(max(0.0, wanted - have) / offer.shards)
        if missing:
            self.units[offer.id] = self.units.get(offer.id, 0) + missing

    def _quick_price(self) -> float:
        """Of the dearest that is held, or else of the cheapest there is."""
        dearest = max((self.cost[n] for n, c in self.units.items() if c and self.offers[n].lead == 1), default=0.0)
        return dearest or self.cost[self.quick[0].id]

    def _held_quick(self) -> int:
        """Shards, without those that were only asked for."""
        kept = {name: min(count, self.fleet.held.get(name, 0)) for name, count in self.units.items()}
        return sum(count * self.offers[name].shards for name, count in kept.items() if self.offers[name].lead == 1)

    def order(self, *, fallback: bool) -> FleetOrder:
        targets = {name: count for name, count in self.units.items() if count}
        for name, count in self.fleet.pending.items():
            targets[name] = targets.get(name, 0) + count
        chain = tuple(offer.id for offer in self.quick if offer.lead == 1) if fallback else ()
        return FleetOrder({name: count for name, count in targets.items() if count}, chain)


def _mixed(shares: Array, count: int) -> Array:
    """``count`` of the shares, again and again, in an order that has nothing to do with the demand's."""
    if not len(shares):
        return np.zeros(count)
    return np.random.default_rng(len(shares)).permutation(np.resize(shares, count))


def _believed(offer: StepOffer) -> int:
    """Units to ask for: what is believed to be free, and more where that was not seen lately."""
    if not offer.spot:
        return MOST_ROOM
    return int(offer.free_units) if offer.asked_lately else int(offer.free_units * PROBE_STEPS_BEYOND) + 1


def _expected_above(ordered: Array, grid: NDArray[np.int64]) -> Array:
    """E[max(x - g, 0)] of the ascending samples at every whole number g."""
    sums = np.concatenate([[0.0], ordered[::-1].cumsum()])[::-1]
    index = np.searchsorted(ordered, grid, side="right")
    return np.asarray((sums[index] - grid * (len(ordered) - index)) / len(ordered), dtype=np.float64)
