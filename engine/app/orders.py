"""An operator's orders from a process of their own: looked at beforehand, put into the store, followed to their end."""

import secrets
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

from agent.memory_size import mib, require_step
from engine import errors
from engine.app.configured import plan_policy
from engine.clock import Clock
from engine.config import Configuration
from engine.errors import ConcurrentUpdate, ShardwrightError, UnknownName, UsageError
from engine.inventory import current_inventory
from engine.market_watch import MarketWatch
from engine.model.ids import MoveId, NodeId, OrderId
from engine.model.move import MoveReport, MoveUnderWay
from engine.model.order import Order, OrderKind, OrderState, Problem, Resized, Size
from engine.model.placement import ComponentName, NodeState, ShardState
from engine.model.plan import MoveCause
from engine.model.value import Value
from engine.orders.choice import Choice, SeenFleet, choose
from engine.orders.sizing import bound_shard, require_alone, size

if TYPE_CHECKING:
    from engine.store.opened import Store

EVERY_SECONDS = 0.5
TAKEN_WITHIN = timedelta(seconds=15)
"""A control plane that runs takes up what is asked within a second or two."""
_RUN = "shardwright run --serve --rounds 0"


class Watched(Value):
    """How something that is followed stands: moves under way, and those that have ended."""

    under_way: tuple[MoveUnderWay, ...]
    ended: tuple[MoveReport, ...]
    over: bool


def new_order(kind: OrderKind, clock: Clock, *, component: ComponentName | None = None, node: NodeId | None = None,
              to: str | None = None, size: Size | None = None) -> Order:  # fmt: skip
    now = clock.now()
    key = OrderId(f"order-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}")
    return Order(id=key, kind=kind, asked_at=now, component=component, node=node, to=to, size=size)


def preview(configuration: Configuration, store: "Store", order: Order, clock: Clock) -> Choice:
    """What the order would come to now; changes nothing. Raises as ``engine.orders.choice.choose``."""
    beliefs = MarketWatch(store.market, store.shard_map, store.plans, clock).beliefs()
    inventory = current_inventory(store.shard_map, store.plans, beliefs, now=clock.now())
    fleet = SeenFleet.of(store.shard_map, inventory, store.attachments.in_use())
    placements = {pool.id: pool.placement for pool in configuration.pool_values()}
    return choose(order, fleet, placements, plan_policy(configuration), clock.now())


def preview_resize(store: "Store", order: Order) -> Resized:
    """What the order would come to now, as far as the store knows; what the guest can have, its node says. Changes
    nothing. Raises UnknownName, UsageError, and as ``engine.orders.sizing``.
    """
    shards = store.shard_map.search()
    shard = bound_shard(order.component, shards, store.shard_map.bindings())
    require_alone(order, shard.id, store.moves.under_way(), store.orders.open())
    node, fixed = store.shard_map.node(shard.node), store.attachments.in_use()
    resized = size(order, shard, shard.nominal, node, shards, fixed)
    require_step(mib(resized.before.memory_gib), mib(resized.after.memory_gib))
    return resized


def require_control_plane(
    store: "Store", again: str, *, sofar: str = "nothing was asked for and nothing was changed"
) -> None:
    """Raises ShardwrightError where nobody would take the order up; ``again``: the command to give then.

    ``sofar``: what has been done already.
    """
    from engine.store.state_lock import state_is_held

    if not state_is_held(store.database):
        raise ShardwrightError(
            "no control plane runs on this state, and only that one may move shards",
            why=sofar,
            next_step=f"{_RUN}   (it buys nothing), and beside it: {again}",
        )


def follow_order(store: "Store", order: Order, clock: Clock) -> Iterator[Watched]:
    """How its moves stand, again and again until it has ended. Raises what kept it from beginning."""
    from engine.store.state_lock import state_is_held

    held_at = clock.now()
    while True:
        found = store.orders.get(order.id)
        if found.problem is not None:
            raise as_error(found.problem)
        wanted = set(found.moves)
        over = found.state is OrderState.ENDED
        under_way = tuple(one for one in store.moves.under_way() if one.progress.request.id in wanted)
        reports = (store.moves.report(move) for move in found.moves)
        ended = tuple(report for report in reports if report is not None)
        yield Watched(under_way=under_way, ended=ended, over=over)
        if over:
            return
        if state_is_held(store.database):
            held_at = clock.now()
        elif clock.now() - held_at > TAKEN_WITHIN:
            raise ShardwrightError(
                f"nobody works on {order.id} any more",
                why="the control plane has ended meanwhile; the next one on this state takes it up",
                next_step=f"{_RUN}, then shardwright moves",
            )
        clock.sleep(EVERY_SECONDS)


def follow_moves(store: "Store", clock: Clock, *, only: MoveId | None = None) -> Iterator[Watched]:
    """All that is under way, or that one move, again and again until nothing is.

    Raises ShardwrightError where nobody drives them any more.
    """
    from engine.store.state_lock import state_is_held

    seen: list[MoveId] = [] if only is None else [only]
    held_at = clock.now()
    while True:
        under_way = tuple(one for one in store.moves.under_way() if only in (None, one.progress.request.id))
        seen += [one.progress.request.id for one in under_way if one.progress.request.id not in seen]
        reports = (store.moves.report(move) for move in seen)
        ended = tuple(report for report in reports if report is not None)
        over = not under_way
        yield Watched(under_way=under_way, ended=ended, over=over)
        if over:
            return
        held_at = clock.now() if state_is_held(store.database) else held_at
        if clock.now() - held_at > TAKEN_WITHIN:
            raise ShardwrightError(
                "moves are under way, and no control plane drives them",
                why="it has ended; the next one on this state goes on with them",
                next_step=f"{_RUN}, then shardwright moves --follow",
            )
        clock.sleep(EVERY_SECONDS)


def undo_drain(store: "Store", node_id: NodeId) -> bool:
    """The node takes shards again; False where it was not drained. Raises UnknownName, ConcurrentUpdate."""
    node = store.shard_map.node(node_id)
    if node.state is NodeState.GONE:
        raise UnknownName(f"node {node_id} is gone", why="it was given back", next_step="shardwright nodes")
    if store.shard_map.change_state(node_id, NodeState.JOINED, only_from=[NodeState.DRAINING]):
        return True
    state = store.shard_map.node(node_id).state
    if state is not NodeState.JOINED:
        raise ConcurrentUpdate(f"node {node_id} was not drained", why=f"it is {state}", next_step="shardwright nodes")
    return False


def cancel(store: "Store", move: MoveId, clock: Clock) -> None:
    """Mark the move as not wanted. Raises UsageError for one that has ended or leaves a reclaimed node, UnknownName."""
    requests = (one.progress.request for one in store.moves.under_way())
    if any(request.id == move and request.cause is MoveCause.RECLAIM for request in requests):
        raise UsageError(
            f"move {move} cannot be cancelled",
            why="the node goes away: there is nothing to stay on",
            next_step="shardwright moves --follow",
        )
    store.moves.cancel(move, clock.now())


def as_error(problem: Problem) -> ShardwrightError:
    """The error that an order ended with, of its own kind."""
    kind = getattr(errors, problem.kind, ShardwrightError)
    error: ShardwrightError = kind(problem.what, why=problem.why, next_step=problem.next_step)
    return error


def empty(store: "Store", node: NodeId) -> bool:
    """Whether nobody needs a shard of the node any more: neither a component nor whoever has its data there."""
    needed = (ShardState.BOUND, ShardState.DRAINING)
    return not any(shard.state in needed for shard in store.shard_map.search(node=node))
