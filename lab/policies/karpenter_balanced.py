"""Karpenter with the ``Balanced`` consolidation policy (kubernetes-sigs/karpenter, v1.14 on).

Provisioning: for shards without a place, the cheapest fitting offer, spot before on-demand where it is cheaper; a
denial falls back within the step. Consolidation: an empty unit goes; another unit is replaced by the cheapest fitting
offer only if ``(saving / cost of the fleet) / (shards moved / shards of the fleet) >= 1/2``. Spot is replaced by spot
only where at least 15 cheaper offers exist, as Karpenter asks so that the choice stays wide. Sized as the reactive
policy: the headroom is what pods request above their use.
"""

from math import ceil

from lab.policies.board_view import BoardView, FleetView, Sold, units_held
from lab.policies.sizing import Last, QuantileOf
from lab.policies.spot_buying import Denials, fallback_list
from lab.wire import Init, Observe, Order

THRESHOLD = 0.5
CHEAPER_SPOT_OFFERS = 15


class KarpenterBalanced:
    def start(self, init: Init) -> None:
        self._board = BoardView(init)
        self._denials = Denials.of(self._board)
        self._sizing = QuantileOf(Last)
        self._sizing.start(self._board)

    def answer(self, observe: Observe) -> Order:
        self._board.see(observe)
        self._denials.see(observe)
        fleets = self._board.fleets
        return Order(
            step=observe.step,
            targets={fleet.id: self._targets(fleet, observe) for fleet in fleets},
            fallback={fleet.id: fallback_list(fleet) for fleet in fleets},
        )

    def _targets(self, fleet: FleetView, observe: Observe) -> dict[str, int]:
        offers = {each.id: each for each in (*fleet.spot, *fleet.on_demand)}
        nodes = {name: n for name, n in units_held(observe, fleet.id, tuple(offers.values())).items() if n}
        wanted = self._sizing.shards(fleet)
        source = self._cheapest(fleet, observe)
        missing = wanted - _shards(nodes, offers)
        if missing > 0 and source is not None:
            nodes[source.id] = nodes.get(source.id, 0) + ceil(missing / source.shards)
            return nodes
        return self._consolidated(fleet, nodes, offers, wanted, source)

    def _cheapest(self, fleet: FleetView, observe: Observe) -> Sold | None:
        spot = (s for s in fleet.worth_asking() if s.lead == 1 and not self._denials.full(s.id, observe.step))
        return next(iter((*spot, *fleet.on_demand[:1])), None)

    def _consolidated(
        self, fleet: FleetView, nodes: dict[str, int], offers: dict[str, Sold], wanted: int, source: Sold | None
    ) -> dict[str, int]:
        """Units are emptied from the dearest on; the shards in use are taken to fill the cheapest units first."""
        cost = sum(offers[name].price * units for name, units in nodes.items())
        carried = max(wanted, 1)
        for name in sorted(nodes, key=lambda each: -offers[each].per_shard):
            node = offers[name]
            while nodes[name] and _shards(nodes, offers) - node.shards >= wanted:
                nodes[name] -= 1  # the others have room for all
            while nodes[name] and source is not None and self._replaces(fleet, node, source):
                units = ceil(node.shards / source.shards)
                saving = (node.price - units * source.price) / cost
                if saving / (node.shards / carried) < THRESHOLD:
                    break
                nodes[name] -= 1
                nodes[source.id] = nodes.get(source.id, 0) + units
        return {name: units for name, units in nodes.items() if units}

    def _replaces(self, fleet: FleetView, node: Sold, source: Sold) -> bool:
        if source.per_shard >= node.per_shard:
            return False
        spot = {each.id for each in fleet.spot}
        cheaper = sum(1 for each in fleet.spot if each.per_shard < node.per_shard)
        return node.id not in spot or cheaper >= CHEAPER_SPOT_OFFERS


def _shards(nodes: dict[str, int], offers: dict[str, Sold]) -> int:
    return sum(units * offers[name].shards for name, units in nodes.items())
