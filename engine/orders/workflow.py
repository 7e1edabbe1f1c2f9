"""Orders carried out, each as a durable workflow: choose, make room, move; what came of it is told in the order.

The order is a row in the store. Whoever has asked reads there what became of it; a control plane that dies over it
goes on with it when it is back.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dbos import DBOS, SetWorkflowID

from engine.clock import Clock
from engine.durable import goes_on
from engine.errors import ConcurrentUpdate, ShardwrightError
from engine.evacuation.workflow import make_room
from engine.events import Event, Observe
from engine.fleet.nodes import Fleet
from engine.migration.several import Moves
from engine.model.capacity import Placement
from engine.model.ids import OrderId, PoolId, ShardId
from engine.model.order import Order, OrderKind, OrderState, Problem
from engine.model.placement import NodeState
from engine.orders.choice import Choice, SeenFleet, choose, require_drainable
from engine.orders.resize import resize
from engine.planner.inventory import Inventory
from engine.planner.policy import PlanPolicy
from engine.store.orders import Orders
from engine.store.shard_map import ShardMap

NAME = "order"
EVERY_SECONDS = 1.0
"""How often a control plane looks for new orders."""


@dataclass(frozen=True)
class OrderContext:
    orders: Orders
    shard_map: ShardMap
    fleet: Fleet
    moves: Moves
    placements: Mapping[PoolId, Placement]
    policy: PlanPolicy
    inventory: Callable[[], Inventory]
    fixed: Callable[[], frozenset[ShardId]]
    """Shards that cannot move (SeenFleet.fixed)."""
    clock: Clock
    observe: Observe


_contexts: list[OrderContext] = []


def configure(context: OrderContext) -> None:
    """Set what orders of this process work with; before DBOS is launched."""
    _contexts[:] = [context]


def take_orders() -> None:
    """Begin what has been asked for; what has begun already is only found. One that broke off is ended."""
    for order in _context().orders.open():
        if order.state is OrderState.ASKED:
            with SetWorkflowID(order.id):
                DBOS.start_workflow(carry_out, order.id)
        if not goes_on(order.id):
            _end_if_broken(order.id)


def _end_if_broken(order_id: OrderId) -> None:
    """Its workflow does not go on: it broke off, or an older version has begun it. Its moves are ended where those of
    others are (engine.migration.abandoned).
    """
    status, order = DBOS.get_workflow_status(order_id), _context().orders.get(order_id)
    if order.state is not OrderState.ENDED:  # it may have ended since
        why = str(status.error) if status is not None and status.error else "nobody carries it out any more"
        # The larger size of a resize counts until its node has answered (engine.orders.recount).
        look = f"shardwright {order}" if order.kind is OrderKind.RESIZE else "shardwright moves"
        _end(order_id, ShardwrightError(f"{order} broke off", why=why, next_step=look))


@DBOS.workflow(name=NAME)
def carry_out(order_id: OrderId) -> None:
    """What goes wrong is told in the order."""
    if _context().orders.get(order_id).kind is OrderKind.RESIZE:
        _carry_out_resize(order_id)
        return
    try:
        choice = DBOS.run_step({"name": "choose"}, _choose, order_id)
        DBOS.run_step({"name": "make_room"}, _make_room, choice)
    except ShardwrightError as problem:
        DBOS.run_step({"name": "end"}, _end, order_id, problem)
        return
    _context().moves.run([intention.request for intention in choice.intentions])
    DBOS.run_step({"name": "end"}, _end, order_id, None)


def _carry_out_resize(order_id: OrderId) -> None:
    told: ShardwrightError | None = None
    try:
        resize(order_id)
    except ShardwrightError as problem:
        told = problem
    DBOS.run_step({"name": "end"}, _end, order_id, told)


def _choose(order_id: OrderId) -> Choice:
    """From what is so now, not when it was asked. A node that is drained takes nothing from here on: it is closed
    first, so that nothing comes that the choice has not seen.
    """
    context = _context()
    order = context.orders.get(order_id)
    if order.node is not None:
        require_drainable(order.node, context.shard_map.nodes())
        _drain(order)
    fleet = SeenFleet.of(context.shard_map, context.inventory(), context.fixed())
    choice = choose(order, fleet, context.placements, context.policy, context.clock.now())
    taken = {
        "state": OrderState.TAKEN,
        "moves": tuple(intention.request.id for intention in choice.intentions),
        "stranded": choice.stranded,
    }
    context.orders.put(order.model_copy(update=taken))
    context.observe(
        Event(
            step="order",
            text=f"{order}: {len(choice.intentions)} shards move, {len(choice.displaced)} spares give way, "
            f"{len(choice.stranded)} find no place",
        )
    )
    return choice


def _drain(order: Order) -> None:
    shard_map, node = _context().shard_map, order.node
    assert node is not None
    states = (NodeState.JOINED, NodeState.DRAINING)
    if not shard_map.change_state(node, NodeState.DRAINING, only_from=states):
        raise ConcurrentUpdate(f"node {node} cannot be drained", why=f"it is {shard_map.node(node).state} by now")


def _make_room(choice: Choice) -> None:
    context = _context()
    make_room(context.shard_map, context.fleet, choice.displaced)


def _end(order_id: OrderId, problem: ShardwrightError | None) -> None:
    context = _context()
    order = context.orders.get(order_id)
    told = None
    if problem is not None:
        told = Problem(kind=type(problem).__name__, what=problem.what, why=problem.why, next_step=problem.next_step)
        context.observe(Event(step="order", text=f"{order}: {problem}"))
    context.orders.put(order.model_copy(update={"state": OrderState.ENDED, "problem": told}))


def _context() -> OrderContext:
    if not _contexts:
        raise ShardwrightError("orders are not configured in this process")
    return _contexts[0]
