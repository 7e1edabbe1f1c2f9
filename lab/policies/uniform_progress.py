"""Uniform Progress, parameter-free (Wu et al., "Can't Be Late", NSDI 2024, section 4).

There, a job with a deadline must stay on the straight line to it: ahead of the line it waits for spot, behind it takes
on-demand, and having done so it stays until it is two changeovers ahead. A service has no deadline; what it may leave
undone is its allowed shortfall (the part that every sizing here aims at), so the line is that, spent evenly. A fleet
that has spent less than the line relies on spot alone; one that has spent more takes on-demand for whatever it does not
hold on spot, until it stands below the line as it was two steps ago. Sized as the reactive policy; spot is the cheapest
that has not just refused.
"""

from dataclasses import dataclass, field

from lab.policies.board_view import BoardView, FleetView
from lab.policies.packing import packed
from lab.policies.sizing import AIM, Last, QuantileOf
from lab.policies.spot_buying import Denials, spot_only
from lab.wire import Init, Observe, Order

CHANGEOVERS = 2


@dataclass
class _Progress:
    spent: float = 0.0
    line: list[float] = field(default_factory=lambda: [0.0])
    on_demand: bool = False


class UniformProgress:
    def start(self, init: Init) -> None:
        self._board = BoardView(init)
        self._denials = Denials.of(self._board)
        self._sizing = QuantileOf(Last)
        self._sizing.start(self._board)
        self._progress = {fleet.id: _Progress() for fleet in self._board.fleets}

    def answer(self, observe: Observe) -> Order:
        self._board.see(observe)
        self._denials.see(observe)
        return Order(
            step=observe.step, targets={fleet.id: self._targets(fleet, observe) for fleet in self._board.fleets}
        )

    def _targets(self, fleet: FleetView, observe: Observe) -> dict[str, int]:
        self._follow(fleet, observe)
        wanted = self._sizing.shards(fleet)
        targets, granted = spot_only(fleet, wanted, observe, self._denials)
        if self._progress[fleet.id].on_demand:
            for offer, units in packed(wanted - granted, fleet.on_demand).items():
                targets[offer] = targets.get(offer, 0) + units
        return targets

    def _follow(self, fleet: FleetView, observe: Observe) -> None:
        if not observe.demand:
            return
        progress = self._progress[fleet.id]
        demand = sum(observe.demand[pool] for pool in fleet.pools)
        progress.spent += demand - sum(observe.covered[pool] for pool in fleet.pools)
        progress.line.append(progress.line[-1] + AIM * fleet.allowed * demand)
        before = progress.line[max(0, len(progress.line) - 1 - CHANGEOVERS)]
        progress.on_demand = progress.spent > (before if progress.on_demand else progress.line[-1])
