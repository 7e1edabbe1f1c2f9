"""Which shards to carve and release so that the nodes hold what the plan says. Pure."""

from collections import Counter
from collections.abc import Iterable, Sequence

from engine.model.ids import NodeId, PoolId, ShardId
from engine.model.placement import Shard, ShardState
from engine.model.plan import PlannedNode
from engine.model.value import Value

_Kind = tuple[PoolId, str]
"""Pool and type: a pool whose type has changed, or that is divided, may have shards of two on one node."""


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
    on_nodes: dict[NodeId, dict[_Kind, list[Shard]]] = {}
    for shard in alive:
        on_nodes.setdefault(shard.node, {}).setdefault((shard.pool, shard.shard_type), []).append(shard)
    taken = {shard.id for shard in shards}
    new: list[NewShard] = []
    surplus: set[ShardId] = set()
    for node in planned:
        wanted = _wanted(node)
        here = on_nodes.get(node.node.id, {})
        for kind in sorted({*wanted, *here}):
            held = sorted(here.get(kind, ()), key=_least_used_first)
            beyond = held[: max(0, len(held) - wanted[kind])]
            surplus |= {shard.id for shard in beyond if shard.state in (ShardState.READY, ShardState.HELD)}
            for _ in range(wanted[kind] - len(held)):
                shard_id = _unused_id(node.node.id, taken)
                taken.add(shard_id)
                pool, shard_type = kind
                new.append(NewShard(id=shard_id, node=node.node.id, pool=pool, shard_type=shard_type))
    interrupted = {shard.id for shard in alive if shard.state is ShardState.HELD}
    return CarvePlan(new=tuple(new), unfinished=tuple(sorted(interrupted - surplus)), surplus=tuple(sorted(surplus)))


def _wanted(node: PlannedNode) -> Counter[_Kind]:
    counts: Counter[_Kind] = Counter()
    for slot in node.slots:
        counts[slot.pool, slot.shard_type] += slot.count
    return counts


def _least_used_first(shard: Shard) -> tuple[int, str]:
    order = (ShardState.HELD, ShardState.READY, ShardState.DRAINING, ShardState.BOUND)
    return order.index(shard.state), shard.id


def _unused_id(node: NodeId, taken: set[ShardId]) -> ShardId:
    number = 0
    while ShardId(f"{node}-s{number}") in taken:
        number += 1
    return ShardId(f"{node}-s{number}")
