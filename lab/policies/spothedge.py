"""SpotHedge, the policy of SkyServe (Mao et al., EuroSys 2025, section 4).

A zone is active until it denies or takes back a unit, then preempting; it is active again once it delivers, and all are
when fewer than two are left. A new spot replica goes to the cheapest active zone without one of ours, else to the
cheapest active zone. The goal is ``N`` + ``EXTRA`` spot replicas; ``min(N, N + EXTRA - ready)`` on-demand replicas
stand in while fewer are ready. Here a zone is a cell, a replica a shard, ``N`` the size of the reactive policy (as
SkyServe's autoscaler is reactive), and a launch that fails goes on to the next zone within the step.
"""

from math import ceil

from lab.policies.board_view import BoardView, FleetView, Sold, units_held
from lab.policies.packing import packed
from lab.policies.sizing import Last, QuantileOf
from lab.wire import Init, Observe, Order

EXTRA = 0.2
"""Over-provisioned spot as a share of ``N``; the paper uses a few replicas of a small service."""


class SpotHedge:
    def start(self, init: Init) -> None:
        self._board = BoardView(init)
        self._sizing = QuantileOf(Last)
        self._sizing.start(self._board)
        self._cell = {offer.id: offer.cell for offer in init.offers}
        self._preempting: dict[str, set[str]] = {fleet.id: set() for fleet in self._board.fleets}

    def answer(self, observe: Observe) -> Order:
        self._board.see(observe)
        for fleet in self._board.fleets:
            self._watch(fleet, observe)
        return Order(
            step=observe.step,
            targets={fleet.id: self._targets(fleet, observe) for fleet in self._board.fleets},
            fallback={fleet.id: self._next_zones(fleet, observe) for fleet in self._board.fleets},
        )

    def _watch(self, fleet: FleetView, observe: Observe) -> None:
        preempting = self._preempting[fleet.id]
        preempting -= {self._cell[offer] for offer in observe.delivered.get(fleet.id, {})}
        for refused in (observe.denied, observe.reclaimed):
            preempting |= {self._cell[offer] for offer in refused.get(fleet.id, {})}
        if len({offer.cell for offer in fleet.spot} - preempting) < 2:
            preempting.clear()

    def _next_zones(self, fleet: FleetView, observe: Observe) -> tuple[str, ...]:
        """Zones without one of ours first, then the cheapest."""
        used = {self._cell[offer] for offer in observe.held.get(fleet.id, {})}
        quick = [offer for offer in fleet.worth_asking() if offer.lead == 1]
        return tuple(offer.id for offer in sorted(quick, key=lambda each: (each.cell in used, each.per_shard)))

    def _targets(self, fleet: FleetView, observe: Observe) -> dict[str, int]:
        needed = self._sizing.shards(fleet)
        goal = needed + ceil(EXTRA * needed)
        offers = fleet.worth_asking()
        held = observe.held.get(fleet.id, {})
        ready = sum(held.get(offer.id, 0) * offer.shards for offer in offers)
        targets = self._placed(fleet, offers, units_held(observe, fleet.id, offers), goal)
        for offer, units in packed(min(needed, max(0, goal - ready)), fleet.on_demand).items():
            targets[offer] = targets.get(offer, 0) + units
        return targets

    def _placed(self, fleet: FleetView, offers: tuple[Sold, ...], have: dict[str, int], goal: int) -> dict[str, int]:
        targets: dict[str, int] = {}
        left = goal
        for offer in offers:
            units = min(have[offer.id], ceil(left / offer.shards))
            if units > 0:
                targets[offer.id] = units
                left -= units * offer.shards
        active = [offer for offer in offers if offer.cell not in self._preempting[fleet.id]]
        used = {self._cell[offer] for offer in targets}
        for offer in active:
            if left > 0 and offer.cell not in used:
                used.add(offer.cell)
                targets[offer.id] = targets.get(offer.id, 0) + 1
                left -= offer.shards
        if left > 0 and active:
            targets[active[0].id] = targets.get(active[0].id, 0) + ceil(left / active[0].shards)
        return targets
