"""What runs now, as the planner wants to see it: read from the shard map and from what nodes were bought on."""

from collections import Counter
from collections.abc import Collection

from engine.market.beliefs import Beliefs
from engine.model.ids import NodeId, ShardId
from engine.model.placement import NodeState, Shard, ShardState
from engine.model.plan import ShardSlot
from engine.planner.inventory import Inventory, InventoryNode
from engine.store.plans import PlanStore
from engine.store.shard_map import ShardMap

_HERE = (NodeState.EXPECTED, NodeState.JOINED, NodeState.DRAINING, NodeState.RECLAIMING)


def current_inventory(
    shard_map: ShardMap,
    plans: PlanStore,
    beliefs: Beliefs,
    lost: Collection[NodeId] = (),
    data: Collection[ShardId] = (),
) -> Inventory:
    """Nodes that are there or on their way. A node without shards yet counts with the slots it was planned for.

    What each was bought on tells the survival that is believed now. ``lost``: nodes that nobody counts on any more;
    ``data``: storage shards in use.
    """
    nodes = shard_map.nodes(states=_HERE)
    bought = {planned.node.id: planned for planned in plans.bought([node.id for node in nodes])}
    shards = shard_map.search()
    planned_slots = _planned_slots(plans)
    items = []
    for node in nodes:
        planned = bought.get(node.id)
        if planned is None:
            continue  # not bought through a plan of ours: not ours to plan with
        here = [shard for shard in shards if shard.node == node.id and shard.state is not ShardState.RELEASED]
        items.append(
            InventoryNode(
                node=node,
                slots=_slots(here) or planned_slots.get(node.id, planned.slots),
                planned=planned.model_copy(update={"quote": planned.quote and beliefs.recalled(planned.quote)}),
                denied=node.instance_id is None and node.id in beliefs.denied_nodes,
                lost=node.id in lost,
                holds_data=any(shard.id in data for shard in here),
                in_use=sum(shard.state is ShardState.BOUND for shard in here),
            )
        )
    return Inventory(nodes=tuple(items))


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
