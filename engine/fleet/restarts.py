"""Guests that have died are booted again, each from its own disk, while the store says that its shard is there.

A guest dies by itself, or with its QEMU, or with its host. Its node does not boot it again unasked: it cannot know
whether the shard was given away meanwhile.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

from agent.wire import GuestState, NodeStatus
from engine.clock import Clock
from engine.errors import ShardwrightError, UnknownName
from engine.events import Event, Observe
from engine.fleet.agent_client import AgentClients
from engine.fleet.nodes import PARALLEL_NODES, Fleet
from engine.model.ids import NodeId, ShardId
from engine.model.move import MoveUnderWay
from engine.model.placement import CARVED, Node, NodeState, Shard
from engine.side_by_side import side_by_side
from engine.store.shard_map import ShardMap

EVERY_SECONDS = 10.0
_LONGEST_PAUSE = timedelta(minutes=15)
"""Between two boots of a guest that dies again and again; the pauses grow up to it."""


class Restarts:
    """``once`` is called again and again, by one thread."""

    def __init__(
        self,
        shard_map: ShardMap,
        fleet: Fleet,
        agents: AgentClients,
        under_way: Callable[[], tuple[MoveUnderWay, ...]],
        clock: Clock,
        observe: Observe,
    ) -> None:
        """``under_way``: every move that has not ended; what moves is brought up by its move."""
        self._map, self._fleet, self._agents, self._under_way = shard_map, fleet, agents, under_way
        self._clock, self._observe = clock, observe
        self._tried: dict[ShardId, tuple[int, datetime]] = {}

    def once(self) -> None:
        """Look at every node that answers, and boot what has died there."""
        nodes = self._map.nodes(states=[NodeState.JOINED, NodeState.DRAINING])
        dead = [shard for found in side_by_side(self._dead, nodes, at_once=PARALLEL_NODES) for shard in found]
        side_by_side(self._boot, [shard for shard in dead if self._due(shard.id)], at_once=PARALLEL_NODES)

    def _dead(self, node: Node) -> list[Shard]:
        try:
            status: NodeStatus = self._agents(node.id).status()
        except ShardwrightError:
            return []  # a silent node is another matter
        found = []
        for told in status.shards:
            if told.state is GuestState.DEAD and told.move is None:
                found += self._ours(told.shard, told.epoch, node.id)
        return found

    def _ours(self, shard_id: ShardId, epoch: int, node: NodeId) -> list[Shard]:
        """Read after its node was asked: from a dead guest no move begins any more."""
        try:
            shard = self._map.get(shard_id)
        except UnknownName:
            return []
        moving = {one.progress.request.shard for one in self._under_way()}
        here = shard.node == node and epoch <= shard.epoch and shard.state in CARVED
        return [shard] if here and shard_id not in moving else []

    def _due(self, shard: ShardId) -> bool:
        tries, last = self._tried.get(shard, (0, None))
        if last is None:
            return True
        pause = min(_LONGEST_PAUSE, timedelta(seconds=EVERY_SECONDS * 2.0 ** min(tries, 10)))
        return self._clock.now() - last >= pause

    def _boot(self, found: Shard) -> None:
        """Read once more: others were booted meanwhile, and a round may have given this one up or moved it."""
        current = self._ours(found.id, found.epoch, found.node)
        if current:
            self._boot_now(current[0])

    def _boot_now(self, shard: Shard) -> None:
        self._say(f"the guest of {shard.id} on {shard.node} has died: it is booted from its disk")
        carved = self._fleet.boot_again(shard)
        self._tried[shard.id] = (self._tries(shard.id) + 1, self._clock.now())
        if carved.failure:
            self._say(f"{shard.id} does not boot: {carved.failure}")

    def _tries(self, shard: ShardId) -> int:
        """Of late: one that has run for long begins anew."""
        tries, last = self._tried.get(shard, (0, self._clock.now()))
        return tries if self._clock.now() - last <= 2 * _LONGEST_PAUSE else 0

    def _say(self, text: str) -> None:
        self._observe(Event(step="restart", text=text))
