"""Nodes that leave the fleet: closed to what would move there, emptied, and what was bought for them given back."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from engine.allocation.holds import PlanHolds
from engine.errors import PROVIDER_PROBLEMS, ProviderUnavailable, StaleEpoch, UnknownName
from engine.events import Event, Observe
from engine.fleet.nodes import Fleet
from engine.model.ids import NodeId
from engine.model.move import MoveRequest
from engine.model.placement import NodeState
from engine.model.plan import CellPlan, Plan, PlannedNode
from engine.planner.inventory import Inventory
from engine.store.plans import PlanStore
from engine.store.shard_map import ShardMap


@dataclass(frozen=True)
class LeavingNodes:
    """In this order: ``to_close``, ``emptied``, and once its cell's stack does without it ``given_back``. Each may be
    repeated.
    """

    shard_map: ShardMap
    plans: PlanStore
    holds: PlanHolds
    fleet: Fleet
    moving: Callable[[], Collection[MoveRequest]]
    observe: Observe

    def to_close(self, nodes: Collection[NodeId]) -> tuple[NodeId, ...]:
        """Those that nobody has drained. Written down before any is closed: from then on they look drained."""
        return tuple(sorted(node.id for node in self.shard_map.nodes(ids=nodes, states=[NodeState.JOINED])))

    def emptied(self, nodes: Sequence[NodeId], undrained: Collection[NodeId]) -> tuple[NodeId, ...]:
        """Those whose spare shards are given up, and which leave for good.

        ``undrained`` of them are closed first: no evacuation and no order moves anything there. What has to stay of
        those takes shards again, also where this ends in an error, or goes on after a crash.
        """
        gone: list[NodeId] = []
        try:
            for node_id in undrained:
                self.shard_map.change_state(node_id, NodeState.DRAINING, only_from=[NodeState.JOINED])
            gone += [node_id for node_id in nodes if self._emptied(node_id)]
        finally:
            for node_id in undrained:
                if node_id not in gone:  # one that has retired before an error leaves all the same
                    self.shard_map.change_state(node_id, NodeState.JOINED, only_from=[NodeState.DRAINING])
        return tuple(gone)

    def _emptied(self, node_id: NodeId) -> bool:
        """Once the spare shards of the node are given up; False, and nothing given up, where it has to stay.

        A move that was sent there before it was closed keeps it; one that is told of later finds it leaving when it
        would commit (``ShardMap.move``).
        """
        if self.shard_map.node(node_id).state is NodeState.RECLAIMING:
            return False
        if any(node_id in (one.source, one.destination) for one in self.moving()):
            self._say(f"{node_id} stays: a move from or to it has not ended")
            return False
        if not self.shard_map.retire(node_id):
            self._say(f"{node_id} stays: a component is bound to one of its shards, or it takes shards again")
            return False
        for shard in self.shard_map.search(node=node_id):
            try:
                self.fleet.release(shard)
            except (UnknownName, StaleEpoch):
                continue  # a drained one, given up just now, or one that has just moved
            except ProviderUnavailable as problem:  # its instance ends in a moment
                self._say(f"{shard.id} goes with its node: {problem}")
                self.shard_map.remove(shard.id, expected_epoch=shard.epoch)
        return True

    def given_back(self, node_id: NodeId) -> bool:
        """Before it counts as gone: nobody looks at what was paid for a gone node again. False: it stays leaving, and
        the next round asks again.
        """
        try:
            self.give_back(node_id)
        except PROVIDER_PROBLEMS as problem:
            self._say(f"what was paid for {node_id} is given back by a later round: {problem}")
            return False
        return True

    def give_back(self, node_id: NodeId) -> None:
        """What was bought for a node that has left. Nothing there = success."""
        for planned in self.plans.bought([node_id]):
            self.holds.release_node(planned.token)

    def _say(self, text: str) -> None:
        self.observe(Event(step="shrink", text=text))


def with_leaving(plan: Plan, inventory: Inventory) -> Plan:
    """The plan with the nodes that leave still in their cells: they go once their shards have moved.

    Those that their providers are taking back too, since ending them any sooner would cut an evacuation short;
    but not those that never came up, nor those that an earlier round has emptied for good: their instances may have
    ended, and would be made again.
    """
    over = (NodeState.EXPECTED, NodeState.LEAVING)
    known = {item.node.id: item.planned for item in inventory.nodes if item.node.state not in over}
    staying: dict[str, list[PlannedNode]] = {}
    for node_id in plan.leaving:
        planned = known.get(node_id)
        if planned is not None:
            staying.setdefault(planned.node.cell, []).append(planned.model_copy(update={"quote": None}))
    cells = tuple(
        CellPlan(cell=cell.cell, generation=cell.generation, nodes=(*cell.nodes, *staying.get(cell.cell.id, ())))
        for cell in plan.cells
    )
    return plan.model_copy(update={"cells": cells})
