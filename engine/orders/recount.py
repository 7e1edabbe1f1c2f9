"""What shards have, asked again: a resize whose node did not answer leaves the larger of both sizes in the shard map.

The node may still have been about to do it. So it is told the size that it says the shard has: behind whatever it was
told before, by the guest's own lock, and then its answer is final. A node that does not answer keeps the claim.
"""

from collections.abc import Callable
from typing import Protocol

from agent.wire import GuestState, NodeStatus, ShardStatus
from engine.errors import ShardwrightError, UnknownName
from engine.events import Event, Observe
from engine.fleet.nodes import PARALLEL_NODES, as_measured
from engine.model.ids import NodeId, ShardId
from engine.model.move import MoveUnderWay
from engine.model.placement import CARVED, Node, NodeState, Shard
from engine.orders.resize import Resizes
from engine.orders.sizing import resize_asked, words
from engine.side_by_side import side_by_side
from engine.store.orders import Orders
from engine.store.shard_map import ShardMap

EVERY_SECONDS = 30.0


class Tells(Resizes, Protocol):
    """What is asked of a node's agent (engine.fleet.agent_client.AgentClient)."""

    def status(self) -> NodeStatus: ...


class Recount:
    """``once`` is called again and again, by one thread."""

    def __init__(
        self,
        shard_map: ShardMap,
        orders: Orders,
        agents: Callable[[NodeId], Tells],
        under_way: Callable[[], tuple[MoveUnderWay, ...]],
        observe: Observe,
    ) -> None:
        """``under_way``: every move that has not ended."""
        self._map, self._orders, self._agents, self._under_way = shard_map, orders, agents, under_way
        self._observe = observe

    def once(self) -> None:
        """Look at every node that answers."""
        nodes = self._map.nodes(states=[NodeState.JOINED, NodeState.DRAINING])
        side_by_side(self._look, nodes, at_once=PARALLEL_NODES)

    def _look(self, node: Node) -> None:
        try:
            told = self._agents(node.id).status().shards
        except ShardwrightError:
            return  # it may have either size still
        for status in told:
            shard = self._in_doubt(status, node.id)
            if shard is not None:
                self._settle(shard, status)

    def _in_doubt(self, status: ShardStatus, node: NodeId) -> Shard | None:
        """The shard as the map has it, where it counts with another size, and nobody is about to change that.

        Its node was told the map's size when it was carved, and what it says after every resize is the map's, so they
        are equal, to the last digit, but for what was left in doubt.
        """
        if status.state is not GuestState.RUNNING or status.move is not None:
            return None
        try:
            shard = self._map.get(status.shard)
        except UnknownName:
            return None
        its = (shard.node, shard.epoch) == (node, status.epoch) and shard.state in CARVED
        return shard if its and shard.nominal != status.resources and self._left_alone(shard.id) else None

    def _left_alone(self, shard: ShardId) -> bool:
        if any(one.progress.request.shard == shard for one in self._under_way()):
            return False
        bound = {binding.component for binding in self._map.bindings(shard=shard)}
        return not resize_asked(self._orders.open(), shard, bound)

    def _settle(self, shard: Shard, status: ShardStatus) -> None:
        """Refused, or not answered: the claim stands until the next look."""
        try:
            has = self._agents(shard.node).resize(shard.id, shard.epoch, status.resources)
        except ShardwrightError:
            return
        if self._left_alone(shard.id) and self._map.recount(shard, has.resources):  # else: an order has come meanwhile
            self._map.set_measured(shard.id, as_measured(has.resources, has.measured))
            text = f"{shard.id} counts with {words(has.resources)} again: its node says that it has that"
            self._observe(Event(step="resize", text=text))
