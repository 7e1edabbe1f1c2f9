"""Nodes that are gone without a notice: their agents are silent, and their providers do not list them any more.

Both must be so, and for a while: a node that is only cut off keeps its shards, which may run; a provider's list may
leave one out for a moment. A stopped instance is listed, has its disk, and may come back: it is waited for.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

from engine.clock import Clock
from engine.errors import PROVIDER_PROBLEMS, ProviderUnavailable, ShardwrightError, StaleEpoch, UnknownName
from engine.events import Event, Observe
from engine.fleet.agent_client import AgentClients
from engine.fleet.nodes import PARALLEL_NODES, Fleet
from engine.model.ids import NodeId, provider_of
from engine.model.move import MoveUnderWay
from engine.model.placement import Node, NodeState
from engine.side_by_side import side_by_side
from engine.store.shard_map import ShardMap
from providers.base import SupportsInventory

EVERY_SECONDS = 30.0
SILENT_FOR = timedelta(minutes=2)
"""Before its provider is asked at all."""
_LOOKS = 2
"""That must find it missing, one after the other."""
_WATCHED = (NodeState.JOINED, NodeState.DRAINING)
"""A node that is taken back, or given back, leaves in its own way."""


class Vanished:
    """``once`` is called again and again, by one thread."""

    def __init__(
        self,
        shard_map: ShardMap,
        fleet: Fleet,
        agents: AgentClients,
        inventories: Mapping[str, SupportsInventory],
        under_way: Callable[[], tuple[MoveUnderWay, ...]],
        give_back: Callable[[NodeId], None],
        clock: Clock,
        observe: Observe,
    ) -> None:
        """``inventories``: by provider, of those that have one; ``give_back``: ends what was bought for a node."""
        self._map, self._fleet, self._agents, self._inventories = shard_map, fleet, agents, inventories
        self._under_way, self._give_back, self._clock, self._observe = under_way, give_back, clock, observe
        self._silent: dict[NodeId, datetime] = {}
        self._missing: dict[NodeId, int] = {}

    def once(self) -> None:
        """Look at every node; the shards of one that is gone are gone with it, and the next round replaces them."""
        self._release_what_went()
        nodes = self._map.nodes(states=_WATCHED)
        self._listen(nodes)
        now = self._clock.now()
        due = [node for node in nodes if now - self._silent.get(node.id, now) >= SILENT_FOR]
        missing = {node.id: self._missing.get(node.id, 0) + 1 for node in self._unlisted(due)}
        self._missing = missing
        for node in due:
            if missing.get(node.id, 0) >= _LOOKS and not self._in_a_move(node.id):
                self._leave(node)

    def _listen(self, nodes: Sequence[Node]) -> None:
        answered = side_by_side(self._answers, nodes, at_once=PARALLEL_NODES)
        now = self._clock.now()
        silent = [node.id for node, answers in zip(nodes, answered, strict=True) if not answers]
        self._silent = {node: self._silent.get(node, now) for node in silent}

    def _answers(self, node: Node) -> bool:
        try:
            self._agents(node.id).status()
        except ProviderUnavailable:
            return False
        except ShardwrightError:
            return True  # whatever it says
        return True

    def _unlisted(self, nodes: Iterable[Node]) -> list[Node]:
        """Of the nodes, those that their provider can list and does not."""
        found = []
        by_provider: dict[str, list[Node]] = {}
        for node in nodes:
            by_provider.setdefault(provider_of(node.cell), []).append(node)
        for provider, silent in by_provider.items():
            inventory = self._inventories.get(provider)
            if inventory is None:
                continue
            try:
                listed = {record.node for record in inventory.instances()}
            except ShardwrightError as problem:
                self._say(f"{provider} cannot say whether {', '.join(node.id for node in silent)} is there: {problem}")
                continue
            found += [node for node in silent if node.id not in listed]
        return found

    def _in_a_move(self, node: NodeId) -> bool:
        """Its move ends first: it may have brought the shard to safety."""
        requests = [one.progress.request for one in self._under_way()]
        return any(node in (request.source, request.destination) for request in requests)

    def _leave(self, node: Node) -> None:
        shards = self._map.search(node=node.id)
        try:
            self._give_back(node.id)
        except PROVIDER_PROBLEMS as problem:  # before it counts as gone: nobody looks at a gone node again
            self._say(f"{node.id} is gone, and what was paid for it is given back at a later look: {problem}")
            return
        if self._map.change_state(node.id, NodeState.GONE, only_from=_WATCHED):
            text = f"{node.id} is gone without a notice: {provider_of(node.cell)} does not list it any more"
            self._say(f"{text}; {len(shards)} shards went with it, and the next round replaces them")
        self._release_what_went()

    def _release_what_went(self) -> None:
        """Also what an earlier process did not come to."""
        gone = {node.id for node in self._map.nodes(states=[NodeState.GONE])}
        for shard in self._map.search() if gone else ():
            if shard.node in gone:
                with suppress(UnknownName, StaleEpoch):  # somebody else was sooner, or it has just moved off
                    self._fleet.release(shard)

    def _say(self, text: str) -> None:
        self._observe(Event(step="fleet", text=text))
