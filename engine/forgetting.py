"""What has ended long ago leaves the control store and the workflows' own, a little at a time.

A round writes down its plan four times over, with a row for every offer. What bills and audit need stays: nodes, what
they were bought on, reports of moves, orders. So does everything that is under way or in doubt.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from engine import durable
from engine.allocation.holds import PlanHolds
from engine.clock import Clock
from engine.errors import UnknownName
from engine.evacuation.workflow import forget_evacuations
from engine.migration.workflow import NAME as MOVE
from engine.model.ids import NodeId
from engine.model.placement import NodeState
from engine.orders.workflow import NAME as ORDER
from engine.retraining.workflow import NAME as RETRAINING
from engine.rounds import NAME as ROUND
from engine.store.opened import Store

MOST = 50
"""Of each kind at once: far more than a round makes, so that a store of years gets down to size in days, and few enough
that no round waits for it."""


@dataclass(frozen=True)
class Forgetting:
    store: Store
    holds: PlanHolds
    keep: timedelta
    clock: Clock

    def once(self, most: int = MOST) -> int:
        """How much was dropped. Only while no round is under way; safe to repeat and to interrupt."""
        before = self.clock.now() - self.keep
        return (
            self._workflows(before, most)
            + self.store.records.forget(before=before, most=most)
            + self.store.plans.forget(before=before, most=most)
            + self.holds.forget(before=before, most=most)
        )

    def _workflows(self, before: datetime, most: int) -> int:
        moving = [request.id for request in self.store.moves.moving()]  # settled by what their workflows recorded
        asked = [order.id for order in self.store.orders.open()]
        forgotten = forget_evacuations(self._is_gone, before=before, most=most)
        for kind, but in ((ROUND, ()), (MOVE, moving), (ORDER, asked), (RETRAINING, ())):
            forgotten += durable.forget_ended(kind, before=before, most=most, but=but)
        return forgotten

    def _is_gone(self, node: NodeId) -> bool:
        try:
            return self.store.shard_map.node(node).state is NodeState.GONE
        except UnknownName:
            return True
