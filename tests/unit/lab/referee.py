"""The rules of the capacity game once more, as plainly as they read: every unit an object, every sum a Decimal.

Slow on purpose and sharing nothing with ``lab.game``, which must come to the same.
"""

from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from typing import Any

from lab.case import Case
from lab.wire import Order

NANO = Decimal("1e-9")


@dataclass
class Unit:
    fleet: str
    offer: str
    asked: int
    arrives: int
    born: int = 0


class Referee:
    def __init__(self, case: Case) -> None:
        self.case, self.now, self.cost = case, -1, Decimal(0)
        self.offers: dict[str, Any] = {offer.id: offer for offer in case.offers}
        self.cells = list(dict.fromkeys(offer.cell for offer in case.offers))
        self.order = Order(step=-1, targets={})
        self.held: list[Unit] = []
        self.pending: list[Unit] = []
        self.commitments: list[tuple[str, str, int, int, int]] = []
        self.attached = {fleet.id: dict.fromkeys(self.cells, 0) for fleet in case.fleets}
        self.load = {fleet.id: 0 for fleet in case.fleets}
        self.short = self.reclaimed = self.denied = self.moved = 0

    def step(self, order: Order | None) -> None:
        """None: malformed or late."""
        if order is not None:
            self.order = order
        self._targets()
        for commit in order.commit if order is not None else ():
            offer = self.offers[commit.offer]
            start = 0 if self.now < 0 else self.now + offer.lead
            self.commitments.append((commit.fleet, commit.offer, commit.units, start, start + offer.term))
        self.now += 1
        self._reclaim()
        self._fall_back(self._arrive())
        self._charge()
        self._serve()

    def _targets(self) -> None:
        for fleet in self.case.fleets:
            for name, offer in self.offers.items():
                want = self.order.targets.get(fleet.id, {}).get(name, 0)
                pending = [u for u in self.pending if (u.fleet, u.offer) == (fleet.id, name)]
                held = [u for u in self.held if (u.fleet, u.offer) == (fleet.id, name)]
                for _ in range(want - len(pending) - len(held)):
                    arrives = 0 if self.now < 0 else self.now + offer.lead
                    self.pending.append(Unit(fleet.id, name, self.now, arrives))
                surplus = len(pending) + len(held) - want
                missing = 0
                for unit in [*reversed(pending), *held][: max(0, surplus)]:
                    if unit in pending:
                        self.pending = [u for u in self.pending if u is not unit]
                    else:
                        self.held = [u for u in self.held if u is not unit]
                        missing += max(0, offer.min_steps - (self.now + 1 - unit.born))
                self._line(missing, self._price(name, self.now) if missing else Decimal(0))

    def _depth(self, name: str) -> int:
        bid = self.order.bids.get(name)
        if bid is not None and self._price(name, self.now) > bid:
            return 0
        known = [units for step, units in self.offers[name].available if step <= self.now]
        return known[-1] if known else 0

    def _free(self, name: str) -> int:
        return self._depth(name) - sum(unit.offer == name for unit in self.held)

    def _reclaim(self) -> None:
        places = [fleet.id for fleet in self.case.fleets]
        for name, offer in self.offers.items():
            while offer.option == "spot" and self._free(name) < 0:
                victim = max(
                    (unit for unit in self.held if unit.offer == name), key=lambda u: (u.born, places.index(u.fleet))
                )
                self.held = [unit for unit in self.held if unit is not victim]
                self.reclaimed += 1

    def _arrive(self) -> dict[str, int]:
        short = {fleet.id: 0 for fleet in self.case.fleets}
        for fleet in self.case.fleets:
            for unit in [u for u in self.pending if u.fleet == fleet.id and u.arrives <= self.now]:
                offer = self.offers[unit.offer]
                self.pending = [u for u in self.pending if u is not unit]
                if offer.option == "on_demand" or self._free(unit.offer) > 0:
                    unit.born = self.now
                    self.held.append(unit)
                else:
                    self.denied += 1
                    short[fleet.id] += offer.shards_per_unit[fleet.id]
        return short

    def _fall_back(self, short: dict[str, int]) -> None:
        for fleet in self.case.fleets:
            for name in self.order.fallback.get(fleet.id, ()):
                offer = self.offers[name]
                while short[fleet.id] > 0 and (offer.option == "on_demand" or self._free(name) > 0):
                    self.held.append(Unit(fleet.id, name, self.now, self.now, self.now))
                    short[fleet.id] -= offer.shards_per_unit[fleet.id]

    def _price(self, name: str, step: int) -> Decimal:
        offer = self.offers[name]
        if offer.option != "spot":
            return offer.price
        return [price for when, price in offer.prices if when <= step][-1]

    def _line(self, count: int, price: Decimal, hours: bool = True) -> None:
        with localcontext(prec=60):
            amount = count * price * (self.case.step_minutes if hours else 60) / 60
            self.cost += amount.quantize(NANO, rounding=ROUND_HALF_EVEN)

    def _charge(self) -> None:
        last = self.now == self.case.steps - 1
        for fleet in self.case.fleets:
            for name in self.offers:
                units = sum((unit.fleet, unit.offer) == (fleet.id, name) for unit in self.held)
                mine = [c for c in self.commitments if c[:2] == (fleet.id, name)]
                serving = sum(units for _, _, units, start, until in mine if start <= self.now < until)
                after = sum(units * max(0, until - max(start, self.now + 1)) for _, _, units, start, until in mine)
                self._line(units + serving, self._price(name, self.now))
                if last:
                    self._line(after, self._price(name, self.now))

    def _serve(self) -> None:
        for fleet in self.case.fleets:
            stable, spot = dict.fromkeys(self.cells, 0), dict.fromkeys(self.cells, 0)
            for unit in self.held:
                if unit.fleet == fleet.id:
                    where = spot if self.offers[unit.offer].option == "spot" else stable
                    where[self.offers[unit.offer].cell] += self.offers[unit.offer].shards_per_unit[fleet.id]
            for owner, name, units, start, until in self.commitments:
                if owner == fleet.id and start <= self.now < until:
                    stable[self.offers[name].cell] += units * self.offers[name].shards_per_unit[fleet.id]
            free = sum(stable.values()) + sum(spot.values())
            load = 0
            pools = [pool for pool in self.case.pools if pool.fleet == fleet.id]
            for pool in sorted(pools, key=lambda each: self.case.risk_classes[each.risk].rank):
                covered = min(pool.demand[self.now], free - load)
                load += covered
                self.short += pool.demand[self.now] - covered
            self._move(fleet.id, load, stable, spot)

    def _move(self, fleet: str, load: int, stable: dict[str, int], spot: dict[str, int]) -> None:
        attached = self.attached[fleet]
        for cell in self.cells:
            attached[cell] = min(attached[cell], stable[cell] + spot[cell])
        moved = max(0, min(self.load[fleet], load) - sum(attached.values()))
        for places in (stable, {cell: stable[cell] + spot[cell] for cell in self.cells}):
            for cell in self.cells:
                while sum(attached.values()) < load and attached[cell] < places[cell]:
                    attached[cell] += 1
        self.load[fleet] = load
        self.moved += moved
        price = next(each.move_usd_per_shard for each in self.case.fleets if each.id == fleet)
        self._line(moved, price, hours=False)
