"""Resizing a running shard, in steps of the order's workflow: each may be repeated after a crash.

The shard map counts the larger of both sizes before the agent is told anything, so nobody else is given that room, and
what the agent says the shard has at the end; whatever went wrong in between. Where it did not answer to what it was
told, it may still do that: the larger size stands until its node has answered to what it is told later
(engine.orders.recount).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from dbos import DBOS

from agent.resizing import require_possible
from agent.wire import ShardStatus
from engine.errors import ConcurrentUpdate, ProviderUnavailable, ShardwrightError
from engine.evacuation.workflow import make_room
from engine.events import Event, Observe
from engine.fleet.nodes import Fleet, as_measured
from engine.model.capacity import Resources
from engine.model.ids import MoveId, NodeId, OrderId, ShardId
from engine.model.move import MoveRequest, MoveUnderWay
from engine.model.order import OrderState, Resized
from engine.orders.sizing import at_most, being_resized, bound_shard, require_alone, size, words
from engine.store.orders import Orders
from engine.store.shard_map import ShardMap

MOVES_WAIT_SECONDS, PRESSED_WAIT_SECONDS = 10.0, 2.0
"""How long a move waits for a resize of its shard, and how long one that has a deadline does. Most guests are done by
then; one that does not let go of its memory may take longer (agent.memory_size.LONGEST_SECONDS, and as long to undo
it), and its node makes the move wait.
"""


class Resizes(Protocol):
    """What is asked of a node's agent (engine.fleet.agent_client.AgentClient)."""

    def shard(self, shard: ShardId) -> ShardStatus: ...

    def resize(self, shard: ShardId, epoch: int, resources: Resources) -> ShardStatus: ...


@dataclass(frozen=True)
class ResizeContext:
    orders: Orders
    shard_map: ShardMap
    fleet: Fleet
    agents: Callable[[NodeId], Resizes]
    under_way: Callable[[], tuple[MoveUnderWay, ...]]
    """Every move that has not ended, those included that have yet to begin."""
    fixed: Callable[[], frozenset[ShardId]]
    """Storage shards in use."""
    observe: Observe


_contexts: list[ResizeContext] = []


def configure(context: ResizeContext) -> None:
    """Set what resizes of this process work with; before DBOS is launched."""
    _contexts[:] = [context]


def resize(order_id: OrderId) -> None:
    """Inside a workflow. Raises what kept it from being done; the shard map is right then, too."""
    resized = DBOS.run_step({"name": "size"}, _size, order_id)
    DBOS.run_step({"name": "make_room"}, _make_room, resized)
    DBOS.run_step({"name": "claim"}, _claim, resized)
    problem: ShardwrightError | None = None
    try:
        DBOS.run_step({"name": "tell"}, _tell, resized)
    except ShardwrightError as refused:
        problem = refused
    unanswered = isinstance(problem, ProviderUnavailable)
    has = DBOS.run_step({"name": "settle"}, _settle, resized, unanswered)
    if problem is not None and not (unanswered and has == resized.after):
        raise problem
    if has != resized.after:
        raise ConcurrentUpdate(
            f"shard {resized.shard} was resized, and then moved or resized otherwise",
            why="its node does not say what it has" if has is None else f"it has {words(has)}",
            next_step="shardwright shards, then again",
        )


def held_back(orders: Orders, requests: Iterable[MoveRequest], waited_seconds: float) -> frozenset[MoveId]:
    """Moves that are announced and may not begin yet: what is resized now is moved once it has its new size.

    A resize looks for moves after it has said that it begins, and moves look for resizes after they were announced, so
    they do not overlap, but for a resize that takes longer than anybody may wait for.
    """
    patient = [one for one in requests if waited_seconds < _wait_seconds(one)]
    open_orders = orders.open() if patient else ()
    return frozenset(one.id for one in patient if being_resized(open_orders, {one.shard}))


def _wait_seconds(request: MoveRequest) -> float:
    return MOVES_WAIT_SECONDS if request.deadline is None else PRESSED_WAIT_SECONDS


def _size(order_id: OrderId) -> Resized:
    """From what is so now. Nothing is changed but the order, which says from here on that the shard is resized."""
    context = _context()
    order, shards = context.orders.get(order_id), context.shard_map.search()
    shard = bound_shard(order.component, shards, context.shard_map.bindings())
    status = context.agents(shard.node).shard(shard.id)
    node = context.shard_map.node(shard.node)
    resized = size(order, shard, status.resources, node, shards, context.fixed())
    require_possible(status.profile, status.resources, resized.after)
    context.orders.put(order.model_copy(update={"state": OrderState.TAKEN, "resized": resized}))
    require_alone(order, shard.id, context.under_way(), context.orders.open())
    context.observe(
        Event(step="order", text=f"{order}: {words(resized.before)} becomes {words(resized.after)}, "
                                 f"{len(resized.displaced)} spares give way")
    )  # fmt: skip
    return resized


def _make_room(resized: Resized) -> None:
    context = _context()
    make_room(context.shard_map, context.fleet, resized.displaced)


def _claim(resized: Resized) -> None:
    """Beside what it counts with already: an earlier resize may still come."""
    shard_map = _context().shard_map
    counted = shard_map.get(resized.shard).nominal
    shard_map.set_nominal(resized.shard, at_most(counted, at_most(resized.before, resized.after)))


def _tell(resized: Resized) -> None:
    """Fenced by the epoch: whoever owns the shard by then is another node, or knows a newer one."""
    context = _context()
    shard = context.shard_map.get(resized.shard)
    context.agents(shard.node).resize(shard.id, shard.epoch, resized.after)


def _settle(resized: Resized, unanswered: bool) -> Resources | None:
    """What the shard has by its agent's word, and counts with from now on; None where nobody says: the claim stands.

    ``unanswered``: the agent may still be about to do what it was told.
    """
    context = _context()
    try:
        shard = context.shard_map.get(resized.shard)
        status = context.agents(shard.node).shard(shard.id)
        if unanswered and status.resources != resized.after:
            raise ProviderUnavailable(f"node {shard.node} has not answered, and may do it yet")
        context.shard_map.set_nominal(shard.id, status.resources)
        context.shard_map.set_measured(shard.id, as_measured(status.resources, status.measured))
    except ShardwrightError as problem:
        context.observe(Event(step="order", text=f"{resized.shard} counts with the larger of both sizes: {problem}"))
        return None
    return status.resources


def _context() -> ResizeContext:
    if not _contexts:
        raise ShardwrightError("resizes are not configured in this process")
    return _contexts[0]
