"""The shard map: which node holds which shard at which epoch, and which component is bound to it.

The epoch is the fencing token: exactly one node owns a shard at one epoch, and only ``ShardMap.move`` raises it, by a
compare-and-swap in one statement. Nodes never decide who may run; they ask here. Everything is safe to repeat.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, delete, select, update
from sqlalchemy.exc import IntegrityError

from engine.clock import Clock
from engine.errors import ConcurrentUpdate, StaleEpoch, UnknownName, UsageError
from engine.model.capacity import Resources
from engine.model.ids import CellId, MoveId, NodeId, PoolId, ShardId
from engine.model.placement import BEYOND_ALL, Binding, ComponentName, Node, NodeState, Shard, ShardState
from engine.store.database import Database
from engine.store.overlay_tables import changed, forget_host, tenant_vni
from engine.store.shard_tables import (
    OVERLAY_ADDRESSES,
    binding_row,
    bindings,
    named,
    node_row,
    nodes,
    overlay_address,
    overlay_cursor,
    read_binding,
    read_node,
    read_shard,
    removed_shards,
    shard_row,
    shards,
)

_TAKES_NOTHING = (ShardState.DRAINING.value, ShardState.RELEASED.value)
_MAY_LEAVE = (NodeState.EXPECTED.value, NodeState.DRAINING.value, NodeState.LEAVING.value)


class ShardMap:
    """Nodes, shards and bindings in the control store. Raises UnknownName for what is not there."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock
        self._listeners: list[Callable[[], None]] = []

    def on_overlay_change(self, listener: Callable[[], None]) -> None:
        """Called, from whichever thread, after each change of what the overlay must look like. It returns at once."""
        self._listeners.append(listener)

    # -- nodes

    def put_node(self, node: Node) -> Node:
        """Add the node, or replace what is known about it."""
        row = node_row(node)
        with self._database.transaction() as connection:
            insert = self._database.insert(nodes).values(row)
            connection.execute(insert.on_conflict_do_update(index_elements=[nodes.c.id], set_=row))
        return node

    def update_node(
        self,
        node_id: NodeId,
        *,
        state: NodeState | None = None,
        instance_id: str | None = None,
        agent_url: str | None = None,
        underlay_address: str | None = None,
    ) -> Node:
        """Change what is given; None leaves a field as it is."""
        changes = {
            name: value
            for name, value in (
                ("state", None if state is None else state.value),
                ("instance_id", instance_id),
                ("agent_url", agent_url),
                ("underlay_address", underlay_address),
            )
            if value is not None
        }
        with self._changing_overlay() if state is not None else self._database.transaction() as connection:
            if state is NodeState.GONE:  # its lock first, as when a host is entered
                changed(self._database, connection)
            if changes:
                connection.execute(update(nodes).where(nodes.c.id == node_id).values(changes))
            if state is NodeState.GONE:
                forget_host(connection, node_id)
            return read_node(_one(connection, select(nodes).where(nodes.c.id == node_id), f"node {node_id}"))

    def change_state(self, node_id: NodeId, state: NodeState, *, only_from: Iterable[NodeState]) -> bool:
        """Compare and swap; False, and nothing changed, where the node is in another state by now."""
        allowed = [one.value for one in only_from]
        change = update(nodes).where(nodes.c.id == node_id, nodes.c.state.in_(allowed)).values(state=state.value)
        gone = state is NodeState.GONE
        with self._changing_overlay() if gone else self._database.transaction() as connection:
            if gone:  # as in update_node
                changed(self._database, connection)
            swapped = connection.execute(change).rowcount == 1
            if gone and swapped:
                forget_host(connection, node_id)
            return swapped

    def retire(self, node_id: NodeId) -> bool:
        """A node that takes no shards leaves for good, where nothing is bound to those that it has.

        False, and nothing changed, where it has to stay. Again = success. Afterwards no move commits there.
        """
        with self._database.transaction() as connection:
            changed(self._database, connection)  # for its lock: who commits a move has it when the node is looked at
            state = _one(connection, select(nodes.c.state).where(nodes.c.id == node_id), f"node {node_id}")["state"]
            in_use = shards.c.state.in_([ShardState.BOUND.value, ShardState.DRAINING.value])
            used = connection.execute(select(shards.c.id).where(shards.c.node == node_id, in_use)).first()
            if used is not None or state not in _MAY_LEAVE:
                return False
            connection.execute(update(nodes).where(nodes.c.id == node_id).values(state=NodeState.LEAVING.value))
        return True

    def node(self, node_id: NodeId) -> Node:
        with self._database.reading() as connection:
            return read_node(_one(connection, select(nodes).where(nodes.c.id == node_id), f"node {node_id}"))

    def nodes(
        self,
        *,
        cell: CellId | None = None,
        provider: str | None = None,
        states: Iterable[NodeState] | None = None,
        ids: Iterable[NodeId] | None = None,
    ) -> tuple[Node, ...]:
        """By id; every filter that is given must hold."""
        query = select(nodes).order_by(nodes.c.id)
        if cell is not None:
            query = query.where(nodes.c.cell == cell)
        if provider is not None:
            query = query.where(nodes.c.provider == provider)
        if states is not None:
            query = query.where(nodes.c.state.in_([state.value for state in states]))
        if ids is not None:
            query = query.where(nodes.c.id.in_(list(ids)))
        with self._database.reading() as connection:
            return tuple(read_node(row) for row in connection.execute(query).mappings())

    def hosts(self) -> tuple[Node, ...]:
        """By id: those that shards are on. Nodes that are gone stay known for good, and there are more every day."""
        query = select(nodes).where(nodes.c.id.in_(select(shards.c.node))).order_by(nodes.c.id)
        with self._database.reading() as connection:
            return tuple(read_node(row) for row in connection.execute(query).mappings())

    def remove_node(self, node_id: NodeId) -> None:
        """Already gone = success. Raises UsageError while shards are on it."""
        try:
            with self._changing_overlay() as connection:
                connection.execute(delete(nodes).where(nodes.c.id == node_id))
                forget_host(connection, node_id)
        except IntegrityError as error:
            raise UsageError(
                f"node {node_id} still holds shards", next_step="move or remove its shards first"
            ) from error

    # -- shards

    def add_shard(
        self,
        shard_id: ShardId,
        *,
        shard_type: str,
        pool: PoolId,
        node: NodeId,
        nominal: Resources,
        state: ShardState = ShardState.HELD,
    ) -> Shard:
        """A new shard with an overlay address and MAC of its own; the same id again is the same shard.

        At epoch 1, or where a shard of that id was removed, beyond everything that was ever said of that one.
        """
        with self._database.transaction() as connection:
            _one(connection, select(nodes.c.id).where(nodes.c.id == node), f"node {node}")
            known = connection.execute(select(shards).where(shards.c.id == shard_id)).mappings().one_or_none()
            if known is not None:
                return _same_shard(read_shard(known), shard_type, pool)
            last = connection.execute(select(removed_shards.c.epoch).where(removed_shards.c.id == shard_id)).scalar()
            address, mac = self._free_address(connection)
            shard = Shard(
                id=shard_id, shard_type=shard_type, pool=pool, node=node, state=state, nominal=nominal,
                address=address, mac=mac, epoch=1 if last is None else last + BEYOND_ALL + 1,
            )  # fmt: skip
            connection.execute(self._database.insert(shards).values(shard_row(shard)))
        return shard

    def get(self, shard_id: ShardId) -> Shard:
        with self._database.reading() as connection:
            return read_shard(_one(connection, _by_id(shard_id), f"shard {shard_id}"))

    def move(self, shard_id: ShardId, *, expected_epoch: int, to_node: NodeId, move_id: MoveId | None = None) -> Shard:
        """The commit point of a move: owner := ``to_node``, epoch := ``expected_epoch`` + 1, or StaleEpoch.

        Raises ConcurrentUpdate where the shard would come to a node that is leaving or gone.

        With ``move_id`` a repeat by the same move (a step retried after a crash) finds its own success; without it a
        repeat raises StaleEpoch like any other late caller.
        """
        swap = (
            update(shards)
            .where(shards.c.id == shard_id, shards.c.epoch == expected_epoch)
            .where(shards.c.state != ShardState.RELEASED.value)
            .values(node=to_node, epoch=expected_epoch + 1, moved_by=move_id)
        )
        with self._database.transaction() as connection:
            _one(connection, select(nodes.c.id).where(nodes.c.id == to_node), f"node {to_node}")
            was_on = connection.execute(select(shards.c.node).where(shards.c.id == shard_id)).scalar()
            swapped = connection.execute(swap).rowcount == 1
            row = _one(connection, _by_id(shard_id), f"shard {shard_id}")
            if swapped:
                changed(self._database, connection)
                if was_on != to_node:
                    _require_open(connection, to_node, shard_id)
        if swapped:
            self._tell()
        shard = read_shard(row)
        own_earlier_success = (
            move_id is not None
            and row["moved_by"] == move_id
            and (shard.epoch, shard.node) == (expected_epoch + 1, to_node)
        )
        if not swapped and not own_earlier_success:
            raise StaleEpoch(
                f"shard {shard_id} is not at epoch {expected_epoch}",
                why=f"epoch {shard.epoch} ({shard.state}) on node {shard.node}",
            )
        return shard

    def set_state(
        self,
        shard_id: ShardId,
        state: ShardState,
        *,
        expected_epoch: int | None = None,
        only_from: Iterable[ShardState] = tuple(ShardState),
    ) -> Shard:
        """Compare and swap. Released is final. With ``expected_epoch`` a caller of an older epoch gets StaleEpoch.

        Raises ConcurrentUpdate where the shard is in another state than ``only_from`` by now.
        """
        released = state is ShardState.RELEASED
        allowed = [one.value for one in only_from if released or one is not ShardState.RELEASED]
        swap = update(shards).where(shards.c.id == shard_id, shards.c.state.in_(allowed)).values(state=state.value)
        if expected_epoch is not None:
            swap = swap.where(shards.c.epoch == expected_epoch)
        with self._changing_overlay() if released else self._database.transaction() as connection:
            swapped = connection.execute(swap).rowcount == 1
            shard = read_shard(_one(connection, _by_id(shard_id), f"shard {shard_id}"))
            if not swapped and expected_epoch not in (None, shard.epoch):
                raise StaleEpoch(f"shard {shard_id} is at epoch {shard.epoch}, not {expected_epoch}")
            if not swapped:
                raise ConcurrentUpdate(f"shard {shard_id} is {shard.state} and cannot become {state}")
        return shard

    def set_measured(self, shard_id: ShardId, measured: Resources) -> Shard:
        with self._database.transaction() as connection:
            changed = update(shards).where(shards.c.id == shard_id).values(measured=measured.model_dump_json())
            connection.execute(changed)
            return read_shard(_one(connection, _by_id(shard_id), f"shard {shard_id}"))

    def set_nominal(self, shard_id: ShardId, nominal: Resources) -> Shard:
        """What the shard takes of its node from now on."""
        with self._database.transaction() as connection:
            changed = update(shards).where(shards.c.id == shard_id).values(nominal=nominal.model_dump_json())
            connection.execute(changed)
            return read_shard(_one(connection, _by_id(shard_id), f"shard {shard_id}"))

    def recount(self, seen: Shard, nominal: Resources) -> bool:
        """``set_nominal`` where epoch and size are those that the caller has read; False, and nothing changed, else."""
        with self._database.transaction() as connection:
            row = connection.execute(_by_id(seen.id).with_for_update()).mappings().one_or_none()
            now = None if row is None else read_shard(row)
            if now is None or (now.epoch, now.nominal) != (seen.epoch, seen.nominal):
                return False
            change = update(shards).where(shards.c.id == seen.id).values(nominal=nominal.model_dump_json())
            connection.execute(change)
        return True

    def search(
        self,
        *,
        shard_type: str | None = None,
        provider: str | None = None,
        region: str | None = None,
        state: ShardState | None = None,
        node: NodeId | None = None,
        pool: PoolId | None = None,
    ) -> tuple[Shard, ...]:
        """By id; every filter that is given must hold, no filter lists all."""
        wanted = (
            (shards.c.shard_type, shard_type),
            (nodes.c.provider, provider),
            (nodes.c.region, region),
            (shards.c.state, None if state is None else state.value),
            (shards.c.node, node),
            (shards.c.pool, pool),
        )
        query = select(shards).join(nodes, nodes.c.id == shards.c.node).order_by(shards.c.id)
        query = query.where(*(column == value for column, value in wanted if value is not None))
        with self._database.reading() as connection:
            return tuple(read_shard(row) for row in connection.execute(query).mappings())

    def remove(self, shard_id: ShardId, *, expected_epoch: int | None = None) -> None:
        """With its binding; frees its address. Already gone = success.

        With ``expected_epoch`` a shard at another epoch stays: it has moved, or was made anew under that id.
        """
        found = select(shards.c.epoch).where(shards.c.id == shard_id).with_for_update()
        with self._changing_overlay() as connection:
            epoch = connection.execute(found).scalar_one_or_none()
            if epoch is not None and expected_epoch in (None, epoch):
                connection.execute(delete(bindings).where(bindings.c.shard == shard_id))
                connection.execute(delete(shards).where(shards.c.id == shard_id))
                insert = self._database.insert(removed_shards).values(id=shard_id, epoch=epoch)
                newer = insert.on_conflict_do_update(index_elements=[removed_shards.c.id], set_={"epoch": epoch})
                connection.execute(newer)

    # -- bindings

    def bind(self, component: ComponentName, shard_id: ShardId) -> Binding:
        """Bind, or re-bind the component to another shard (the old one turns ready). Same pair, same binding.

        From then on the shard is on the overlay of the component's namespace, and on no other.

        Raises UsageError when the shard serves another component or is draining or released, ConcurrentUpdate where its
        node is leaving or gone, or where it is given up at the same moment.
        """
        with self._database.transaction() as connection:
            shard = read_shard(_one(connection, _by_id(shard_id), f"shard {shard_id}"))
            known = connection.execute(select(bindings).where(named(bindings, component))).mappings().one_or_none()
            if known is not None and known["shard"] == shard_id:
                return read_binding(known)
            other = connection.execute(select(bindings).where(bindings.c.shard == shard_id)).mappings().one_or_none()
            if other is not None:
                raise UsageError(f"shard {shard_id} is bound to {read_binding(other).component}")
            if shard.state in _TAKES_NOTHING:
                raise UsageError(f"shard {shard_id} is {shard.state} and takes no component")
            taken = update(shards).where(shards.c.id == shard_id, shards.c.state.not_in(_TAKES_NOTHING))
            if connection.execute(taken.values(state=ShardState.BOUND.value)).rowcount == 0:
                raise ConcurrentUpdate(f"shard {shard_id} was given up just now and takes no component")
            if known is not None:
                self._unbind(connection, component, ShardId(known["shard"]))
            binding = Binding(component=component, shard=shard_id, bound_at=self._clock.now())
            connection.execute(self._database.insert(bindings).values(binding_row(binding)))
            changed(self._database, connection)  # first: whoever numbers another tenant waits
            _require_open(connection, shard.node, shard_id)
            tenant_vni(self._database, connection, component.namespace)
        self._tell()
        return binding

    def unbind(self, component: ComponentName, *, drained_by: datetime | None = None) -> bool:
        """The shard turns ready. Not bound = success; whether it was.

        With ``drained_by`` only where the component is being drained, and until then at the latest.
        """
        bound = select(bindings.c.shard).where(named(bindings, component))
        if drained_by is not None:
            bound = bound.where(bindings.c.draining_until <= drained_by)
        with self._changing_overlay() as connection:
            shard_id = connection.execute(bound).scalar_one_or_none()
            # Whoever keeps the component takes its shard's row first, so what is read under that lock stays so.
            connection.execute(select(shards.c.id).where(shards.c.id == shard_id).with_for_update())
            if shard_id is None or connection.execute(bound).scalar_one_or_none() != shard_id:
                return False
            self._unbind(connection, component, ShardId(shard_id))
        return True

    def drain(self, component: ComponentName, until: datetime) -> None:
        """Out of its name now, still bound until ``until``. Draining already, or not bound = success."""
        self._set_draining(component, until, ShardState.BOUND, ShardState.DRAINING)

    def keep(self, component: ComponentName) -> None:
        """Wanted again: back in its name. Not draining = success."""
        self._set_draining(component, None, ShardState.DRAINING, ShardState.BOUND)

    def resolve(self, component: ComponentName) -> Shard:
        """The shard that serves the component now."""
        query = select(shards).join(bindings, bindings.c.shard == shards.c.id).where(named(bindings, component))
        with self._database.reading() as connection:
            return read_shard(_one(connection, query, str(component)))

    def bindings(self, *, namespace: str | None = None, shard: ShardId | None = None) -> tuple[Binding, ...]:
        query = select(bindings).order_by(*bindings.primary_key.columns)
        if namespace is not None:
            query = query.where(bindings.c.namespace == namespace)
        if shard is not None:
            query = query.where(bindings.c.shard == shard)
        with self._database.reading() as connection:
            return tuple(read_binding(row) for row in connection.execute(query).mappings())

    # -- inside a transaction

    def _set_draining(
        self, component: ComponentName, until: datetime | None, before: ShardState, after: ShardState
    ) -> None:
        with self._database.transaction() as connection:
            shard_id = connection.execute(
                select(bindings.c.shard).where(named(bindings, component))
            ).scalar_one_or_none()
            swap = update(shards).where(shards.c.id == shard_id, shards.c.state == before.value)
            if shard_id is not None and connection.execute(swap.values(state=after.value)).rowcount == 1:
                connection.execute(update(bindings).where(named(bindings, component)).values(draining_until=until))

    @contextmanager
    def _changing_overlay(self) -> Iterator[Connection]:
        """A transaction that changes what the overlay must look like."""
        with self._database.transaction() as connection:
            yield connection
            changed(self._database, connection)
        self._tell()

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()

    def _free_address(self, connection: Connection) -> tuple[str, str]:
        # The cursor row is the lock: on SQLite the whole transaction holds it, on PostgreSQL its row lock does.
        start_row = self._database.insert(overlay_cursor).values(id=1, next=0).on_conflict_do_nothing()
        connection.execute(start_row)
        step = update(overlay_cursor).values(next=overlay_cursor.c.next + 1).returning(overlay_cursor.c.next)
        for _ in range(OVERLAY_ADDRESSES):
            slot = (int(connection.execute(step).scalar_one()) - 1) % OVERLAY_ADDRESSES
            address, mac = overlay_address(slot)
            if connection.execute(select(shards.c.id).where(shards.c.address == address)).first() is None:
                return address, mac
        raise UsageError(
            "no overlay address is free", why=f"all {OVERLAY_ADDRESSES} are in use", next_step="remove shards"
        )

    def _unbind(self, connection: Connection, component: ComponentName, shard_id: ShardId) -> None:
        """The shard's row first, as everybody takes it before its binding: or two of them could wait for each other."""
        serving = (ShardState.BOUND.value, ShardState.DRAINING.value)
        ready = update(shards).where(shards.c.id == shard_id, shards.c.state.in_(serving))
        connection.execute(ready.values(state=ShardState.READY.value))
        connection.execute(delete(bindings).where(named(bindings, component)))


def _one(connection: Connection, query: Select[Any], what: str) -> RowMapping:
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        raise UnknownName(
            f"{what} is not known",
            why="the shard map has no such entry",
            next_step="shardwright shards lists what is there",
        )
    return row


def _by_id(shard_id: ShardId) -> Select[Any]:
    return select(shards).where(shards.c.id == shard_id)


def _require_open(connection: Connection, node_id: NodeId, shard_id: ShardId) -> None:
    """Read after the lock that ``ShardMap.retire`` takes too, or a node that just leaves would be taken for open."""
    state = connection.execute(select(nodes.c.state).where(nodes.c.id == node_id)).scalar()
    if state in (NodeState.LEAVING.value, NodeState.GONE.value):
        raise ConcurrentUpdate(f"shard {shard_id} cannot be used on node {node_id}", why=f"it is {state}")


def _same_shard(known: Shard, shard_type: str, pool: PoolId) -> Shard:
    if (known.shard_type, known.pool) != (shard_type, pool):
        raise UsageError(f"shard {known.id} exists as {known.shard_type} of pool {known.pool}")
    return known
