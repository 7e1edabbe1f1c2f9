"""Storage from elsewhere: where a replica keeps its data, and that only the replica's present shard writes to it.

The storage shard's own epoch is the fencing token: the store raises it whenever another shard, or the same shard on
another node, becomes its user, and the storage's node obeys no earlier one. Everything is safe to repeat.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

import structlog

from agent.wire import AccessRequest, AttachedDisk, AttachRequest, VolumeRequest
from engine.composition.binding import Rules
from engine.errors import ConcurrentUpdate, NodeSilent, ShardwrightError, StaleEpoch, UnknownName
from engine.fleet.agent_client import AgentClient
from engine.fleet.nodes import Carved
from engine.model.ids import CellId, NodeId, ShardId, provider_of
from engine.model.placement import Binding, ComponentName, Node, NodeState, Shard, ShardState
from engine.store.attachments import Attachment, Attachments
from engine.store.shard_map import ShardMap

PATIENCE = 4
"""How many looks a shard that has moved is left to its move, which hands the storage over at the right moment. A sweep
comes every ten seconds: by then the move has done so, or is over."""
_log = structlog.get_logger()


class Storage:
    """Safe to share between threads; ``engine.migration.base.AttachedStorage`` among others."""

    def __init__(
        self, shard_map: ShardMap, attachments: Attachments, agents: Callable[[NodeId], AgentClient], rules: Rules
    ) -> None:
        self._map, self._attachments, self._agents, self._rules = shard_map, attachments, agents, rules
        self._connected: dict[ComponentName, Attachment] = {}
        """What the nodes have been told already, as far as this process knows."""
        self._moved: dict[ComponentName, tuple[NodeId, int, int]] = {}
        """Shards that are elsewhere than their storage knows: node, epoch, how often that was seen."""

    # -- making and giving

    def create(self, shard: Shard, disk_mib: int) -> Carved:
        """The storage shard's disk on its node; ready afterwards."""
        request = VolumeRequest(shard=shard.id, epoch=shard.epoch, resources=shard.nominal, disk_mib=disk_mib)
        try:
            self._agents(shard.node).create_volume(request)
            self._map.set_state(shard.id, ShardState.READY, expected_epoch=shard.epoch)
        except ShardwrightError as problem:
            return Carved(shard=shard.id, failure=str(problem))
        return Carved(shard=shard.id, boot_seconds=0.0)

    def assign(self) -> tuple[Attachment, ...]:
        """Give every bound replica that is to have storage a ready storage shard, once; returns the new ones.

        Not one on a node that is to be left: a disk that is in use does not move.
        """
        known = self._attachments.all()
        missing = [
            binding
            for binding in self._map.bindings()
            if (rule := self._rules.get(binding.component.base)) is not None and rule.storage is not None
            if binding.component not in {one.component for one in known}
        ]
        made = []
        for binding in missing:
            pool = self._rules[binding.component.base].storage
            taken = {one.storage for one in self._attachments.all()}
            nodes = {node.id: node for node in self._map.nodes()}
            ready = [
                shard
                for shard in self._map.search(pool=pool, state=ShardState.READY)
                if shard.id not in taken and nodes[shard.node].state is NodeState.JOINED
            ]
            with suppress(UnknownName):  # given up meanwhile: whoever gets its name is given a disk
                chosen = nearest(ready, nodes[self._map.get(binding.shard).node], nodes.values())
                if chosen is not None and (given := self._give(binding.component, chosen.id)) is not None:
                    made.append(given)
        for one in self._attachments.all():
            self._keep_bound(one.storage)
        return tuple(made)

    def _give(self, component: ComponentName, storage: ShardId) -> Attachment | None:
        """None where the disk was given up at this moment: nothing was ever on it, so the next look gives another."""
        given = self._attachments.assign(component, storage)
        try:
            self._map.set_state(storage, ShardState.BOUND, only_from=[ShardState.READY, ShardState.BOUND])
        except (UnknownName, ConcurrentUpdate):
            self._attachments.forget(component)
            return None
        return given

    def _keep_bound(self, storage: ShardId) -> None:
        """Bound: it is nobody's spare, and its node is not given up over it."""
        # Lost with its node, or given up: its name keeps saying so.
        with suppress(UnknownName, ConcurrentUpdate):
            if self._map.get(storage).state is ShardState.READY:
                self._map.set_state(storage, ShardState.BOUND, only_from=[ShardState.READY])

    def in_use(self) -> frozenset[ShardId]:
        return self._attachments.in_use()

    # -- connecting

    def connect_all(self) -> tuple[str, ...]:
        """Every attached disk is at its replica's present shard; says what could not be done now.

        Nodes are asked only where something has changed since this process last told them, and a silent one is asked
        once: every further disk would wait for it as long, and all others behind it.
        """
        silent: set[NodeId] = set()
        bound = {one.component: one for one in self._map.bindings()}
        problems = []
        for attachment in self._attachments.all():
            binding = bound.get(attachment.component)
            if binding is None:
                continue
            try:
                self._connect(attachment, binding, silent)
            except ShardwrightError as problem:
                problems.append(f"{attachment.component}: its storage {attachment.storage} is not attached: {problem}")
        return tuple(problems)

    def _connect(self, attachment: Attachment, binding: Binding, silent: set[NodeId]) -> None:
        shard, storage = self._map.get(binding.shard), self._map.get(attachment.storage)
        if self._is_current(attachment, shard, storage) and self._connected.get(binding.component) == attachment:
            return
        if self._may_be_moving(attachment, shard, storage):
            return
        with _unless_silent(storage.node, silent):
            disk = self._hold(attachment, shard)
        with _unless_silent(shard.node, silent):
            self._agents(shard.node).attach(shard.id, AttachRequest(epoch=shard.epoch, disk=disk))
        self._connected[binding.component] = attachment.model_copy(
            update={"shard": shard.id, "node": shard.node, "shard_epoch": shard.epoch, "epoch": disk.epoch}
        )

    def _may_be_moving(self, attachment: Attachment, shard: Shard, storage: Shard) -> bool:
        """Between the store's swap and the last bytes of its memory, a move still needs the source's connection."""
        if self._is_current(attachment, shard, storage) or attachment.shard != shard.id:
            self._moved.pop(attachment.component, None)
            return False
        node, epoch, seen = self._moved.get(attachment.component, (shard.node, shard.epoch, 0))
        seen = seen + 1 if (node, epoch) == (shard.node, shard.epoch) else 1
        self._moved[attachment.component] = (shard.node, shard.epoch, seen)
        return seen < PATIENCE

    @staticmethod
    def _is_current(attachment: Attachment, shard: Shard, storage: Shard) -> bool:
        known = (attachment.shard, attachment.node, attachment.shard_epoch, attachment.epoch)
        return known == (shard.id, shard.node, shard.epoch, storage.epoch)

    def _hold(self, attachment: Attachment, shard: Shard) -> AttachedDisk:
        """The shard as it is now is the only user; any change, and a move that was given up, raises the epoch."""
        storage = self._map.get(attachment.storage)
        if not self._is_current(attachment, shard, storage):
            storage = self._map.move(storage.id, expected_epoch=storage.epoch, to_node=storage.node)
            self._attachments.grant(attachment.component, shard, storage.epoch)
        request = AccessRequest(epoch=storage.epoch, node=shard.node)
        return self._agents(storage.node).hold(storage.id, request)

    # -- while the shard moves

    def admit(self, shard_id: ShardId, destination: NodeId) -> AttachedDisk | None:
        attachment = self._of(shard_id)
        if attachment is None:
            return None
        self._hold(attachment, self._map.get(shard_id))
        storage = self._map.get(attachment.storage)
        return self._agents(storage.node).admit(storage.id, AccessRequest(epoch=storage.epoch, node=destination))

    def _of(self, shard_id: ShardId) -> Attachment | None:
        """Of the replica that is bound to it: the name keeps the data, and an id may come back as another shard."""
        known = [one for one in self._attachments.all() if one.shard == shard_id]
        if not known:  # most shards, whose switchover waits for this
            return None
        names = {one.component for one in self._map.bindings(shard=shard_id)}
        return next((one for one in known if one.component in names), None)

    def hand_over(self, shard_id: ShardId) -> None:
        for last in (False, True):
            attachment = self._of(shard_id)
            if attachment is None:
                return
            try:
                self._hold(attachment, self._map.get(shard_id))
                return
            except ShardwrightError as problem:
                if isinstance(problem, StaleEpoch) and not last:
                    continue  # the sweep was there at the same moment
                # It asserts the epoch once the node answers; the source's guest does not run meanwhile.
                _log.warning("storage is handed over later", storage=attachment.storage, error=str(problem))
                return


@contextmanager
def _unless_silent(node: NodeId, silent: set[NodeId]) -> Iterator[None]:
    """Ask the node, unless it was silent a moment ago. Raises NodeSilent."""
    if node in silent:
        raise NodeSilent(f"node {node} does not answer", why="it did not a moment ago")
    try:
        yield
    except NodeSilent:
        silent.add(node)
        raise


def nearest(ready: Sequence[Shard], to: Node, nodes: Iterable[Node]) -> Shard | None:
    """Reads and writes wait for the way: the same cell goes first, then the same provider, then any."""
    cells = {node.id: node.cell for node in nodes}

    def way(shard: Shard) -> tuple[bool, bool, str]:
        cell = cells.get(shard.node, CellId(""))
        return cell != to.cell, provider_of(cell) != provider_of(to.cell), shard.id

    return min(ready, key=way, default=None)
