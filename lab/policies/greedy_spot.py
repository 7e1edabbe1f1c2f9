"""Greedy cheapest spot with fallback: SkyPilot's failover list, and what most spot tools do.

All that is needed is wanted from the cheapest spot offers that have not just refused; what is denied is tried down the
list of dearer spot at once and ends on the cheapest on-demand offer. Sized as the reactive policy.
"""

from lab.policies.board_view import BoardView
from lab.policies.sizing import Last, QuantileOf, Sizing
from lab.policies.spot_buying import Denials, fallback_list, spot_targets
from lab.wire import Init, Observe, Order


class GreedySpot:
    def __init__(self, sizing: Sizing | None = None) -> None:
        self._sizing = sizing or QuantileOf(Last)

    def start(self, init: Init) -> None:
        self._board = BoardView(init)
        self._denials = Denials.of(self._board)
        self._sizing.start(self._board)

    def answer(self, observe: Observe) -> Order:
        self._board.see(observe)
        self._denials.see(observe)
        fleets = self._board.fleets
        return Order(
            step=observe.step,
            targets={f.id: spot_targets(f, self._sizing.shards(f), observe, self._denials) for f in fleets},
            fallback={f.id: fallback_list(f) for f in fleets},
        )
