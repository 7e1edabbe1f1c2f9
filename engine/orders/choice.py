"""What an order comes to: which shards move where, why, and what the move gate says of each. Pure.

The same for a dry run and for the real thing; places are chosen as an evacuation chooses them (engine.evacuation), and
the sum is the planner's (engine.planner.move_gate).
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from engine.errors import ConcurrentUpdate, UnknownName, UsageError
from engine.evacuation.choice import Evacuation, plan_evacuation
from engine.model.capacity import Placement
from engine.model.ids import NodeId, PoolId, ShardId, provider_of
from engine.model.move import MoveRequest
from engine.model.order import Order, Stranded
from engine.model.placement import Binding, Node, NodeState, Shard
from engine.model.plan import MoveCause, MoveGateReport
from engine.model.value import Value
from engine.orders.sizing import bound_shard
from engine.planner.inventory import Inventory
from engine.planner.move_gate import gate_to_running
from engine.planner.policy import PlanPolicy

if TYPE_CHECKING:
    from engine.store.shard_map import ShardMap


class Intention(Value):
    """One shard that moves. An operator's word is enough: a gate that does not pass is told, and stops nothing."""

    request: MoveRequest
    why: str


class Choice(Value):
    displaced: tuple[ShardId, ...]
    intentions: tuple[Intention, ...]
    stranded: tuple[Stranded, ...]


class SeenFleet(Value):
    """All that a choice is made from, as it is now."""

    nodes: tuple[Node, ...]
    shards: tuple[Shard, ...]
    bindings: tuple[Binding, ...]
    inventory: Inventory
    fixed: frozenset[ShardId] = frozenset()
    """Storage shards whose disks are in use from elsewhere."""

    @classmethod
    def of(cls, shard_map: "ShardMap", inventory: Inventory, fixed: frozenset[ShardId]) -> "SeenFleet":
        shards, bindings = shard_map.search(), shard_map.bindings()
        return cls(nodes=shard_map.nodes(), shards=shards, bindings=bindings, inventory=inventory, fixed=fixed)


def choose(
    order: Order, fleet: SeenFleet, placements: Mapping[PoolId, Placement], policy: PlanPolicy, now: datetime
) -> Choice:
    """Raises UnknownName and UsageError for an order that makes no sense, ConcurrentUpdate for one at a wrong time."""
    if order.node is not None:
        require_drainable(order.node, fleet.nodes)
        found = _evacuation(order, order.node, None, fleet, placements)
    else:
        shard = bound_shard(order.component, fleet.shards, fleet.bindings)
        _require_target(order, shard, fleet.nodes)
        found = _evacuation(order, shard.node, shard.id, fleet, placements)
    reasons = dict(found.reasons)
    return Choice(
        displaced=found.displaced,
        intentions=tuple(
            Intention(
                request=move.model_copy(update={"gate": _gate(move, fleet.inventory, policy, now)}),
                why=reasons[move.shard],
            )
            for move in found.moves
        ),
        stranded=tuple(Stranded(shard=shard_id, why=reasons[shard_id]) for shard_id in found.stranded),
    )


def require_drainable(node_id: NodeId, nodes: Sequence[Node]) -> None:
    """Raises UnknownName, UsageError (it is not there yet), ConcurrentUpdate (its provider takes it back)."""
    node = next((one for one in nodes if one.id == node_id and one.state is not NodeState.GONE), None)
    if node is None:
        raise UnknownName(f"node {node_id} is not known", why="no such node is there", next_step="shardwright nodes")
    if node.state is NodeState.RECLAIMING:
        raise ConcurrentUpdate(
            f"node {node_id} cannot be drained",
            why="its provider takes it back, and it is being evacuated",
            next_step="shardwright moves --follow",
        )
    if node.state is NodeState.EXPECTED:
        raise UsageError(
            f"node {node_id} cannot be drained", why="it has not joined yet", next_step="shardwright nodes"
        )


def _require_target(order: Order, shard: Shard, nodes: Sequence[Node]) -> None:
    here = next(node for node in nodes if node.id == shard.node)
    if order.to is None:
        return
    there = [node for node in nodes if node.state is not NodeState.GONE]
    if order.to == here.id:
        raise UsageError(f"{order.component} is on {here.id} already", next_step="shardwright shards")
    if order.to not in {node.id for node in there} | {provider_of(node.cell) for node in there}:
        raise UnknownName(
            f"there is no node and no provider with nodes of the name {order.to}",
            why=f"providers with nodes: {', '.join(sorted({provider_of(node.cell) for node in there}))}",
            next_step="shardwright nodes",
        )


def _evacuation(
    order: Order, leaving: NodeId, only: ShardId | None, fleet: SeenFleet, placements: Mapping[PoolId, Placement]
) -> Evacuation:
    return plan_evacuation(
        leaving,
        fleet.nodes,
        fleet.shards,
        placements,
        cause=MoveCause.OPERATOR,
        deadline=None,
        attempt=order.id,
        only=only,
        to=order.to,
        fixed=fleet.fixed,
    )


def _gate(move: MoveRequest, inventory: Inventory, policy: PlanPolicy, now: datetime) -> MoveGateReport | None:
    """None where one of the two nodes was not bought through a plan, so that nothing is known of its terms."""
    known = {item.node.id: item for item in inventory.nodes}
    if move.source not in known or move.destination not in known:
        return None
    return gate_to_running(policy, known[move.source], known[move.destination], now=now)
