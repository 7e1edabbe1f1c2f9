"""Which shards to carve and release so that the nodes hold what the plan says. Pure."""

from collections.abc import Iterable, Sequence

from engine.model.ids import NodeId, PoolId, ShardId
from engine.model.placement import Shard, ShardState
from engine.model.plan import PlannedNode
from engine.model.value import Value


class NewShard(Value):
    """A shard that is planned for a node and not there yet."""

    id: ShardId
    node: NodeId
    pool: PoolId
    shard_type: str


class CarvePlan(Value):
    """``unfinished`` are known shards whose carving was interrupted; carving them again is harmless."""

    new: tuple[NewShard, ...]
    unfinished: tuple[ShardId, ...]
    surplus: tuple[ShardId, ...]
    """Ready shards beyond the plan's slots, to be given up."""


def plan_carving(planned: Iterable[PlannedNode], shards: Sequence[Shard]) -> CarvePlan:
    """Top every node up to its slots; give up ready shards beyond them (bound ones are never given up)."""
    alive = [shard for shard in shards if shard.state is not ShardState.RELEASED]
    taken = {shard.id for shard in shards}
    new: list[NewShard] = []
    surplus: list[ShardId] = []
    for node in planned:
        slots = {slot.pool: slot for slot in node.slots}
        here = [shard for shard in alive if shard.node == node.node.id]
        for pool in sorted({*slots, *(shard.pool for shard in here)}):
            wanted = slots[pool].count if pool in slots else 0
            held = sorted((shard for shard in here if shard.pool == pool), key=_least_used_first)
            for shard in held[: max(0, len(held) - wanted)]:
                if shard.state in (ShardState.READY, ShardState.HELD):
                    surplus.append(shard.id)
            for _ in range(wanted - len(held)):
                shard_id = _unused_id(node.node.id, taken)
                taken.add(shard_id)
                new.append(NewShard(id=shard_id, node=node.node.id, pool=pool, shard_type=slots[pool].shard_type))
    unfinished = tuple(
        sorted(shard.id for shard in alive if shard.state is ShardState.HELD and shard.id not in surplus)
    )
    return CarvePlan(new=tuple(new), unfinished=unfinished, surplus=tuple(surplus))


def _least_used_first(shard: Shard) -> tuple[int, str]:
    order = (ShardState.HELD, ShardState.READY, ShardState.DRAINING, ShardState.BOUND)
    return order.index(shard.state), shard.id


def _unused_id(node: NodeId, taken: set[ShardId]) -> ShardId:
    number = 0
    while ShardId(f"{node}-s{number}") in taken:
        number += 1
    return ShardId(f"{node}-s{number}")
