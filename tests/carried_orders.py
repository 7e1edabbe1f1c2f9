"""Orders carried out under the real DBOS in one process, on whatever stands in for fleet, nodes and moves."""

from collections.abc import Callable
from typing import Any

from dbos import DBOS

from engine.clock import Clock
from engine.durable import unfinished
from engine.events import Observe, unseen
from engine.model.ids import NodeId
from engine.model.move import MoveUnderWay
from engine.model.order import Order
from engine.orders import resize, workflow
from engine.planner.inventory import Inventory
from engine.planner.policy import PlanPolicy
from engine.store.orders import Orders
from engine.store.shard_map import ShardMap


def serve_orders(orders: Orders, shard_map: ShardMap, clock: Clock, *, fleet: Any, moves: Any) -> None:
    """Before DBOS is launched."""
    workflow.configure(
        workflow.OrderContext(
            orders=orders, shard_map=shard_map, fleet=fleet, moves=moves, placements={}, policy=PlanPolicy(),
            inventory=Inventory, fixed=frozenset, clock=clock, observe=unseen,
        )
    )  # fmt: skip


def serve_resizes(
    orders: Orders,
    shard_map: ShardMap,
    *,
    fleet: Any,
    agents: Callable[[NodeId], resize.Resizes],
    under_way: Callable[[], tuple[MoveUnderWay, ...]],
    observe: Observe = unseen,
) -> None:
    """Before DBOS is launched."""
    resize.configure(
        resize.ResizeContext(
            orders=orders, shard_map=shard_map, fleet=fleet, agents=agents, under_way=under_way, fixed=frozenset,
            observe=observe,
        )
    )  # fmt: skip


def carried_out(orders: Orders, order: Order) -> Order:
    """As it has ended."""
    orders.put(order)
    workflow.take_orders()
    for key in unfinished(workflow.NAME):
        DBOS.retrieve_workflow(key).get_result()
    return orders.get(order.id)
