"""Where the shards of a node go when it has to be left. Pure: values in, move requests out."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime

from engine.model.capacity import Placement, Resources
from engine.model.ids import MoveId, NodeId, PoolId, ShardId, provider_of
from engine.model.move import MoveRequest
from engine.model.placement import Node, NodeState, Shard, ShardState
from engine.model.plan import MoveCause
from engine.model.value import Value


class Evacuation(Value):
    """What to do, in order: spare shards to give up first, then the moves; ``stranded`` found no place."""

    displaced: tuple[ShardId, ...]
    """Ready shards nobody is bound to, released to make room."""
    moves: tuple[MoveRequest, ...]
    stranded: tuple[ShardId, ...]


def plan_evacuation(
    leaving: NodeId,
    nodes: Sequence[Node],
    shards: Sequence[Shard],
    placements: Mapping[PoolId, Placement],
    *,
    cause: MoveCause,
    deadline: datetime | None,
    attempt: str,
    fixed: Collection[ShardId] = (),
) -> Evacuation:
    """Send each bound shard of ``leaving`` to the node that fails least together with it.

    A destination must be joined, allowed by the pool and have room, where a ready shard of the same type counts as room
    (it is given up). Preferred: another provider, then another region, then free room without giving up a spare,
    then the cheapest node. ``attempt`` makes the move ids; the same attempt gives the same ids.
    ``fixed``: shards that cannot move, since others use their disk from elsewhere.
    """
    source = next(node for node in nodes if node.id == leaving)
    room = _Room(nodes, shards, leaving)
    displaced: list[ShardId] = []
    moves: list[MoveRequest] = []
    stranded: list[ShardId] = []
    for shard in sorted(_bound(shards, leaving), key=lambda bound: bound.id):
        placement = placements.get(shard.pool, Placement())
        found = None if shard.id in fixed else room.best_for(shard, source, placement)
        if found is None:
            stranded.append(shard.id)
            continue
        node, spare = found
        if spare is not None:
            displaced.append(spare.id)
        room.take(node, shard, spare)
        moves.append(
            MoveRequest(
                id=MoveId(f"move-{shard.id}-{attempt}"),
                shard=shard.id,
                source=leaving,
                destination=node.id,
                cause=cause,
                deadline=deadline,
            )
        )
    return Evacuation(displaced=tuple(displaced), moves=tuple(moves), stranded=tuple(stranded))


def _bound(shards: Iterable[Shard], node: NodeId) -> list[Shard]:
    return [shard for shard in shards if shard.node == node and shard.state is ShardState.BOUND]


def free_resources(node: Node, shards: Iterable[Shard]) -> Resources:
    """What is left of the node beside the shards carved from it; never below zero."""
    carved = [shard.nominal for shard in shards if shard.node == node.id and shard.state is not ShardState.RELEASED]
    whole = node.resources
    return Resources(
        vcpus=max(0.0, whole.vcpus - sum(part.vcpus for part in carved)),
        memory_gib=max(0.0, whole.memory_gib - sum(part.memory_gib for part in carved)),
        storage_iops=max(0.0, whole.storage_iops - sum(part.storage_iops for part in carved)),
        network_mbps=max(0.0, whole.network_mbps - sum(part.network_mbps for part in carved)),
    )


class _Room:
    """What is free where, while destinations are being handed out."""

    def __init__(self, nodes: Sequence[Node], shards: Sequence[Shard], leaving: NodeId) -> None:
        self._nodes = [node for node in nodes if node.id != leaving and node.state is NodeState.JOINED]
        self._shards = [shard for shard in shards if shard.node != leaving]

    def best_for(self, shard: Shard, source: Node, placement: Placement) -> tuple[Node, Shard | None] | None:
        candidates = []
        for node in self._nodes:
            provider, _, region = node.cell.split("/", 2)
            if not placement.allows(provider, region):
                continue
            spare = None
            if free_resources(node, self._shards).holds(shard.nominal) < 1:
                spare = self._spare(node, shard)
                if spare is None:
                    continue
            rank = (
                provider == provider_of(source.cell),
                node.cell == source.cell,
                spare is not None,
                node.hourly_price.amount,
                node.id,
            )
            candidates.append((rank, node, spare))
        if not candidates:
            return None
        _, node, spare = min(candidates, key=lambda candidate: candidate[0])
        return node, spare

    def _spare(self, node: Node, wanted: Shard) -> Shard | None:
        spares = (
            shard
            for shard in self._shards
            if shard.node == node.id and shard.state is ShardState.READY and shard.shard_type == wanted.shard_type
        )
        return min(spares, key=lambda shard: shard.id, default=None)

    def take(self, node: Node, shard: Shard, spare: Shard | None) -> None:
        if spare is not None:
            self._shards.remove(spare)
        self._shards.append(shard.model_copy(update={"node": node.id}))
