"""What runs now, as the planner wants to see it: read from the shard map and from what nodes were bought on."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType

from engine.market.beliefs import Beliefs
from engine.model.capacity import Resources, ShardType
from engine.model.ids import NodeId, ShardId
from engine.model.placement import NodeState, Shard, ShardState
from engine.model.plan import ShardSlot
from engine.planner.inventory import Inventory, InventoryNode
from engine.store.plans import PlanStore
from engine.store.shard_map import ShardMap

_HERE = (NodeState.EXPECTED, NodeState.JOINED, NodeState.DRAINING, NodeState.LEAVING, NodeState.RECLAIMING)
JOINS_WITHIN = timedelta(minutes=30)
"""Of its purchase; a node whose agent has not joined by then is given back, since nothing else would end it: its
instance may run and be paid for although it never boots as it should, or its provider may have taken it back before its
agent could tell. Well above what the slowest image needs to boot, install and join, and above a short outage of its
provider."""
_NOTHING = Resources(vcpus=0, memory_gib=0)


def current_inventory(
    shard_map: ShardMap,
    plans: PlanStore,
    beliefs: Beliefs,
    lost: Collection[NodeId] = (),
    data: Collection[ShardId] = (),
    types: Mapping[str, ShardType] = MappingProxyType({}),
    *,
    now: datetime,
) -> Inventory:
    """Nodes that are there or on their way. A node without shards yet counts with the slots it was planned for.

    What each was bought on tells the survival that is believed now. ``lost``: nodes that nobody counts on any more;
    ``data``: storage shards in use. ``types``: of shards, by name, beyond which a shard counts as grown.
    """
    nodes = shard_map.nodes(states=_HERE)
    bought = {planned.node.id: planned for planned in plans.bought([node.id for node in nodes])}
    expected = [node.id for node in nodes if node.state is NodeState.EXPECTED]
    overdue = {node for node, at in plans.bought_at(expected).items() if now - at >= JOINS_WITHIN}
    on_nodes: dict[NodeId, list[Shard]] = {}
    for shard in shard_map.search():
        if shard.state is not ShardState.RELEASED:
            on_nodes.setdefault(shard.node, []).append(shard)
    planned_slots = _planned_slots(plans)
    items = []
    for node in nodes:
        planned = bought.get(node.id)
        if planned is None:
            continue  # not bought through a plan of ours: not ours to plan with
        here = on_nodes.get(node.id, [])
        used = [shard for shard in here if shard.state is ShardState.BOUND]
        more = [(shard, beyond) for shard in here if (beyond := _beyond_type(shard, types)) is not None]
        items.append(
            InventoryNode(
                node=node,
                slots=_slots(here) or planned_slots.get(node.id, planned.slots),
                planned=planned.model_copy(update={"quote": planned.quote and beliefs.recalled(planned.quote)}),
                denied=node.instance_id is None and node.id in beliefs.denied_nodes,
                overdue=node.id in overdue,
                lost=node.id in lost,
                holds_data=any(shard.id in data for shard in here),
                grown=_total((beyond for _, beyond in more), node.resources.counted),
                outgrown=any(shard.state is ShardState.BOUND for shard, _ in more),
                in_use=len(used),
                memory_gib=max((shard.nominal.memory_gib for shard in used), default=0.0),
            )
        )
    return Inventory(nodes=tuple(items))


def _beyond_type(shard: Shard, types: Mapping[str, ShardType]) -> Resources | None:
    """None where it is no larger than its type, or that is not known. A limit where its type has none is not more."""
    known = types.get(shard.shard_type)
    if known is None:
        return None
    more = {
        name: max(0.0, getattr(shard.nominal, name) - getattr(known.resources, name))
        for name in known.resources.counted
    }
    return _NOTHING.model_copy(update=more) if any(value > 1e-9 for value in more.values()) else None


def _total(parts: Iterable[Resources], names: Iterable[str]) -> Resources:
    """Of those names; the rest is not counted on the node."""
    found = list(parts)
    return _NOTHING.model_copy(update={name: sum(getattr(part, name) for part in found) for name in names})


def _slots(shards: list[Shard]) -> tuple[ShardSlot, ...]:
    counts = Counter((shard.pool, shard.shard_type) for shard in shards)
    return tuple(
        ShardSlot(pool=pool, shard_type=shard_type, count=count) for (pool, shard_type), count in sorted(counts.items())
    )


def _planned_slots(plans: PlanStore) -> dict[NodeId, tuple[ShardSlot, ...]]:
    target = plans.target()
    if target is None:
        return {}
    return {planned.node.id: planned.slots for cell in target.cells for planned in cell.nodes}
