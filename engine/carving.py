"""Which shards to carve, bind and release so that the nodes hold what the plan says. Pure."""

from collections.abc import Iterable, Mapping, Sequence

from engine.model.ids import NodeId, PoolId, ShardId
from engine.model.placement import Binding, ComponentName, Shard, ShardState
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


class BindPlan(Value):
    bind: tuple[tuple[ComponentName, ShardId], ...]
    unbind: tuple[ComponentName, ...]


def plan_bindings(
    components: Mapping[PoolId, Sequence[ComponentName]],
    replicas: Mapping[PoolId, int],
    shards: Sequence[Shard],
    bindings: Sequence[Binding],
) -> BindPlan:
    """Spread each pool's replicas over its components (index 0 each), first come first; what is bound stays bound.

    A pool binds at most as many shards as it has; the others stay ready, as headroom and as room for evacuations.
    Replicas go to nodes that hold the fewest bound shards of the pool.
    """
    bound = {binding.component: binding.shard for binding in bindings}
    bind: list[tuple[ComponentName, ShardId]] = []
    unbind: list[ComponentName] = []
    for pool, names in components.items():
        if not names:
            continue
        usable = [s for s in shards if s.pool == pool and s.state in (ShardState.READY, ShardState.BOUND)]
        count = min(max(replicas.get(pool, 0), len(names)), len(usable))
        wanted = [names[i % len(names)].model_copy(update={"index": i // len(names)}) for i in range(count)]
        mine = {component: shard for component, shard in bound.items() if _base(component) in map(_base, names)}
        unbind += [component for component in sorted(mine, key=str) if component not in wanted]
        taken = {shard for component, shard in mine.items() if component in wanted}
        load: dict[NodeId, int] = {}
        for shard in usable:
            load[shard.node] = load.get(shard.node, 0) + (shard.id in taken)
        for component in wanted:
            if component in mine:
                continue
            free = [shard for shard in usable if shard.id not in taken and shard.id not in mine.values()]
            free = free or [shard for shard in usable if shard.id not in taken]
            chosen = min(free, key=lambda shard: (load[shard.node], shard.id))
            taken.add(chosen.id)
            load[chosen.node] += 1
            bind.append((component, chosen.id))
    return BindPlan(bind=tuple(bind), unbind=tuple(unbind))


def _base(component: ComponentName) -> tuple[str, str, str]:
    return component.namespace, component.workload, component.component
