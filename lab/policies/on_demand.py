"""Any sizing rule on on-demand units alone."""

from lab.policies.board_view import BoardView
from lab.policies.packing import packed
from lab.policies.sizing import Sizing
from lab.wire import Init, Observe, Order


class OnDemandPolicy:
    def __init__(self, sizing: Sizing) -> None:
        self._sizing = sizing

    def start(self, init: Init) -> None:
        self._board = BoardView(init)
        self._sizing.start(self._board)

    def answer(self, observe: Observe) -> Order:
        self._board.see(observe)
        targets = {fleet.id: packed(self._sizing.shards(fleet), fleet.on_demand) for fleet in self._board.fleets}
        return Order(step=observe.step, targets=targets)
