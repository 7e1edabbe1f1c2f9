"""What an order to resize a running shard comes to: its new size, and which spares of its node give way. Pure."""

from collections.abc import Collection, Iterable, Sequence

from engine.errors import ConcurrentUpdate, InsufficientCapacity, UnknownName
from engine.model.capacity import Resources
from engine.model.ids import ShardId
from engine.model.move import MoveUnderWay
from engine.model.order import Order, OrderKind, OrderState, Resized
from engine.model.placement import Binding, ComponentName, Node, NodeState, Shard, ShardState


def bound_shard(component: ComponentName | None, shards: Iterable[Shard], bindings: Iterable[Binding]) -> Shard:
    """Raises UnknownName."""
    bound = next((binding.shard for binding in bindings if binding.component == component), None)
    found = next((shard for shard in shards if shard.id == bound), None)
    if found is None:
        raise UnknownName(f"{component} is not known", why="no shard is bound to it", next_step="shardwright shards")
    return found


def size(
    order: Order, shard: Shard, has: Resources, node: Node, shards: Sequence[Shard], fixed: Collection[ShardId] = ()
) -> Resized:
    """``has``: what it has now; the same again is no mistake. ``fixed``: storage shards in use, which never give way.

    Raises ConcurrentUpdate where the shard is about to leave, or grows on a node that is; InsufficientCapacity where
    the node has no room beside its bound shards.
    """
    wanted = has if order.size is None else order.size.of(has)
    _require_staying(order, shard, node, grows=bool(growing(has, wanted)))
    resized = Resized(shard=shard.id, before=has, after=wanted)
    return resized.model_copy(update={"displaced": _giving_way(order, resized, node, shards, fixed)})


def require_alone(order: Order, shard: ShardId, moves: Iterable[MoveUnderWay], open_orders: Iterable[Order]) -> None:
    """Raises ConcurrentUpdate while the shard moves, or an earlier order resizes it."""
    moving = [one.progress.request.id for one in moves if one.progress.request.shard == shard]
    if moving:
        raise ConcurrentUpdate(
            f"{order.component} cannot be resized now", why=f"{moving[0]} is under way",
            next_step=f"shardwright moves --follow, then shardwright {order}",
        )  # fmt: skip
    for other in open_orders:  # oldest first
        if other.id == order.id:
            return
        if other.kind is OrderKind.RESIZE and other.component == order.component:
            raise ConcurrentUpdate(
                f"{order.component} cannot be resized now", why=f"{other.id} resizes it",
                next_step=f"shardwright {order}",
            )  # fmt: skip


def being_resized(open_orders: Iterable[Order], shards: Collection[ShardId]) -> bool:
    """Whether the size of one of them is being changed at this moment."""
    return any(
        order.state is OrderState.TAKEN and order.resized is not None and order.resized.shard in shards
        for order in open_orders
    )


def resize_asked(open_orders: Iterable[Order], shard: ShardId, components: Collection[ComponentName]) -> bool:
    """Whether an order that has not ended may change its size: one that is yet to begin, too."""
    return any(
        order.kind is OrderKind.RESIZE
        and (order.component in components or (order.resized is not None and order.resized.shard == shard))
        for order in open_orders
    )


def at_most(one: Resources, other: Resources) -> Resources:
    """The larger of both in everything: what a shard may have while it is not known which of them it has."""
    return Resources(**{name: max(getattr(one, name), getattr(other, name)) for name in Resources.model_fields})


def growing(has: Resources, wanted: Resources) -> tuple[str, ...]:
    """In what it will need more. A limit that is lifted (0) needs nothing."""
    return tuple(name for name in Resources.model_fields if getattr(wanted, name) > getattr(has, name))


def words(resources: Resources) -> str:
    found = [f"{resources.vcpus:g} vCPU", f"{resources.memory_gib:g} GiB"]
    found += [f"{resources.storage_iops:g} IOPS"] if resources.storage_iops else []
    return ", ".join(found + ([f"{resources.network_mbps:g} Mbit/s"] if resources.network_mbps else []))


_LEFT = (NodeState.DRAINING, NodeState.RECLAIMING)
"""A smaller shard may find a place elsewhere, so shrinking is no mistake there."""


def _require_staying(order: Order, shard: Shard, node: Node, *, grows: bool) -> None:
    if shard.state is not ShardState.BOUND:
        raise ConcurrentUpdate(
            f"{order.component} cannot be resized", why=f"it is {shard.state}", next_step="shardwright shards"
        )
    if node.state is not NodeState.JOINED and (grows or node.state not in _LEFT):
        raise ConcurrentUpdate(
            f"{order.component} cannot be resized", why=f"its node {node.id} is {node.state}",
            next_step=f"once it is on another node: shardwright {order}",
        )  # fmt: skip


def _giving_way(
    order: Order, resized: Resized, node: Node, shards: Sequence[Shard], fixed: Collection[ShardId]
) -> tuple[ShardId, ...]:
    """Spares of the node in the order of their names, as few as are needed; none where nothing grows."""
    wanted = resized.after
    grows = growing(resized.before, wanted)
    beside = [one for one in shards if one.node == node.id and one.id != resized.shard]
    spares = sorted(
        (one for one in beside if one.state is ShardState.READY and one.id not in fixed), key=lambda one: one.id
    )
    for number in range(len(spares) + 1):
        gone = spares[:number]
        stay = [one.nominal for one in beside if one not in gone and one.state is not ShardState.RELEASED]
        short = [name for name in node.resources.short_of(wanted, stay) if name in grows]
        if not short:
            return tuple(one.id for one in gone)
    raise InsufficientCapacity(
        f"node {node.id} has no room for {words(wanted)}",
        why="; ".join(f"{name}: {getattr(wanted, name):g} wanted of {_left(node.resources, stay, name):g} "
                      "beside its other shards" for name in short),
        next_step=f"shardwright nodes, then shardwright move {order.component} --to NODE, then shardwright {order}",
    )  # fmt: skip


def _left(whole: Resources, taken: Iterable[Resources], name: str) -> float:
    left: float = getattr(whole, name) - sum(getattr(one, name) for one in taken)
    return max(0.0, left)
