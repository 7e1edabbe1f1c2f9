"""The overlay in the control store: hosts with their keys, tenants, and the view of it that every agent is given."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

import structlog
from sqlalchemy import Connection, RowMapping, delete, func, insert, select, update

from agent.overlay_wire import OverlayEntry, OverlayPeer, OverlayRequest, OverlayView, checked_endpoint
from engine.errors import AuthenticationFailed, UnknownName, UsageError
from engine.model.ids import NodeId, ShardId
from engine.model.placement import NodeState, ShardState
from engine.model.value import Value
from engine.store.admitted import require_admitted
from engine.store.database import Database
from engine.store.join_tokens import void
from engine.store.overlay_tables import (
    changed,
    overlay_generation,
    overlay_hosts,
    overlay_tenants,
    tenant_vni,
)
from engine.store.shard_tables import bindings, nodes, shards

TUNNEL_NETWORK = IPv4Address("10.99.0.0")
_LAST_SLOT = 65_534
_GATEWAY_NET, _LAST_GATEWAY = "10.9.255", 253
"""254 is the address that agents ask their guests from (agent.network.nobody)."""
_log = structlog.get_logger()


class GatewayHost(Value):
    """A host outside the fleet with an address on the overlay of one namespace."""

    name: NodeId
    namespace: str
    address: str
    joined: bool


@dataclass(frozen=True)
class _Snapshot:
    """The overlay at one generation, for every host."""

    generation: int
    tunnels: Mapping[NodeId, str]
    peers: tuple[OverlayPeer, ...]
    entries: tuple[OverlayEntry, ...]


class OverlayMap:
    """Every method is one transaction at most. Safe to share between threads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._reading = threading.Lock()
        self._snapshot: _Snapshot | None = None

    def generation(self) -> int:
        """One read, which waits for nobody's write."""
        query = select(overlay_generation.c.generation)
        with self._database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            return int(connection.execute(query).scalar() or 0)

    def register(self, host: NodeId, request: OverlayRequest, key_sha256: str | None = None) -> bool:
        """The host's key and endpoint, as it says them; whether they are news.

        ``key_sha256``: of the certificate that it asks with. That counted when it asked, and is looked at once more
        under the lock: an operator may void a gateway in between.

        Raises AuthenticationFailed for a host that is not, or no longer, part of the fleet, and for one that says
        another's key.
        """
        said = {"public_key": request.public_key, "endpoint": request.endpoint}
        with self._database.transaction() as connection:
            row = self._host(connection, host)
            if row is not None and {name: row[name] for name in said} == said:
                return False
            changed(
                self._database, connection
            )  # its lock first: nobody gives the node up between this and the next read
            if key_sha256 is not None:
                require_admitted(connection, host, key_sha256)
            self._require_own(connection, host, request.public_key)
            if row is None:
                state = connection.execute(select(nodes.c.state).where(nodes.c.id == host)).scalar()
                if state is None or state == NodeState.GONE:
                    raise AuthenticationFailed(f"{host} takes no part in the overlay", why="it is unknown, or gone")
                connection.execute(insert(overlay_hosts).values(name=host, slot=_free_slot(connection), **said))
            else:
                connection.execute(update(overlay_hosts).where(overlay_hosts.c.name == host).values(said))
        return True

    def _require_own(self, connection: Connection, host: NodeId, public_key: str) -> None:
        """WireGuard knows peers by their keys: of two with the same one only one would be reached."""
        other = select(overlay_hosts.c.name).where(
            overlay_hosts.c.public_key == public_key, overlay_hosts.c.name != host
        )
        owner = connection.execute(other).scalar()
        if owner is not None:
            raise AuthenticationFailed(f"{host} takes no part in the overlay", why=f"the key that it says is {owner}'s")

    def view(self, host: NodeId) -> OverlayView:
        """What the host's agent shall hold. Raises AuthenticationFailed for one that is not registered (any more)."""
        known = self._snapshot
        if known is None or known.generation != self.generation():
            # A change wakes every agent at once: the first to ask reads, the others find it read.
            with self._reading:
                known = self._snapshot
                if known is None or known.generation != self.generation():
                    known = self._snapshot = self._read()
        if host not in known.tunnels:
            raise AuthenticationFailed(f"{host} takes no part in the overlay", why="it is unknown, or gone")
        return OverlayView(
            generation=known.generation,
            tunnel=known.tunnels[host],
            peers=tuple(peer for peer in known.peers if peer.node != host),
            entries=known.entries,
        )

    def _read(self) -> "_Snapshot":
        """PostgreSQL sees what commits between two reads: the generation is read first, so that it is never newer than
        what follows, and the tenants last, since a binding's is entered with it."""
        with self._database.transaction() as connection:
            generation = connection.execute(select(overlay_generation.c.generation)).scalar() or 0
            query = select(overlay_hosts).where(overlay_hosts.c.public_key.is_not(None)).order_by(overlay_hosts.c.slot)
            hosts = list(connection.execute(query).mappings())
            query = (
                select(shards.c.id, shards.c.node, shards.c.epoch, shards.c.address, shards.c.mac, bindings.c.namespace)
                .join(bindings, bindings.c.shard == shards.c.id)
                .where(shards.c.state != ShardState.RELEASED.value)
                .order_by(shards.c.id)
            )
            bound = list(connection.execute(query).mappings())
            vnis = {row.namespace: row.vni for row in connection.execute(select(overlay_tenants))}
        return _Snapshot(
            generation=int(generation),
            tunnels={NodeId(row["name"]): _tunnel(row) for row in hosts},
            peers=tuple(_peer(row) for row in hosts if _reachable(row)),
            entries=tuple(_entry(row, vnis[row["namespace"]]) for row in bound)
            + tuple(_own_entry(row, vnis[row["namespace"]]) for row in hosts if row["namespace"] is not None),
        )

    # -- gateways

    def add_gateway(self, name: NodeId, namespace: str) -> GatewayHost:
        """With an address in the namespace. Raises UsageError.

        The same again is the same gateway for another host: whoever has joined as it is nobody's peer any more.
        """
        with self._database.transaction() as connection:
            row = self._host(connection, name)
            if row is not None and row["namespace"] == namespace:
                changed(self._database, connection)
                void(connection, name)
                empty = {"public_key": None, "endpoint": None}
                connection.execute(update(overlay_hosts).where(overlay_hosts.c.name == name).values(empty))
                return _gateway(row).model_copy(update={"joined": False})
            taken = connection.execute(select(nodes.c.id).where(nodes.c.id == name)).first() is not None
            if row is not None or taken:
                raise UsageError(
                    f"{name} is taken", why="by a node" if taken else f"in namespace {row['namespace']}" if row else ""
                )
            changed(self._database, connection)
            tenant_vni(self._database, connection, namespace)
            used = set(connection.execute(select(overlay_hosts.c.address)).scalars())
            number = next((n for n in range(1, _LAST_GATEWAY + 1) if f"{_GATEWAY_NET}.{n}" not in used), None)
            if number is None:
                raise UsageError("no address is free for another gateway", next_step="remove one that is not used")
            address = f"{_GATEWAY_NET}.{number}"
            values = {
                "name": name, "slot": _free_slot(connection), "namespace": namespace,
                "address": address, "mac": f"52:54:00:09:ff:{number:02x}",
            }  # fmt: skip
            connection.execute(insert(overlay_hosts).values(values))
        return GatewayHost(name=name, namespace=namespace, address=address, joined=False)

    def remove_gateway(self, name: NodeId) -> None:
        """Nobody's peer any more, and its token is void. Raises UnknownName."""
        mine = (overlay_hosts.c.name == name) & overlay_hosts.c.namespace.is_not(None)
        with self._database.transaction() as connection:
            changed(self._database, connection)
            if connection.execute(delete(overlay_hosts).where(mine)).rowcount == 0:
                raise UnknownName(f"there is no gateway {name}", next_step="shardwright gateway list")
            void(connection, name)

    def gateways(self) -> tuple[GatewayHost, ...]:
        query = select(overlay_hosts).where(overlay_hosts.c.namespace.is_not(None)).order_by(overlay_hosts.c.name)
        with self._database.transaction() as connection:
            return tuple(_gateway(row) for row in connection.execute(query).mappings())

    def is_gateway(self, name: NodeId) -> bool:
        with self._database.transaction() as connection:
            row = self._host(connection, name)
        return row is not None and row["namespace"] is not None

    def _host(self, connection: Connection, name: NodeId) -> RowMapping | None:
        return connection.execute(select(overlay_hosts).where(overlay_hosts.c.name == name)).mappings().one_or_none()


def _free_slot(connection: Connection) -> int:
    """As late as possible one that was in use before."""
    highest = int(connection.execute(select(func.max(overlay_hosts.c.slot))).scalar() or 0)
    if highest < _LAST_SLOT:
        return highest + 1
    used = set(connection.execute(select(overlay_hosts.c.slot)).scalars())
    free = next((slot for slot in range(1, _LAST_SLOT) if slot not in used), None)
    if free is None:
        raise UsageError("no address is free in the tunnel", why=f"{_LAST_SLOT} hosts are in it")
    return free


def _tunnel(row: RowMapping) -> str:
    return str(TUNNEL_NETWORK + int(row["slot"]))


def _reachable(row: RowMapping) -> bool:
    """An older version took endpoints that are none, for which agents of that version drop all their peers."""
    try:
        checked_endpoint(row["endpoint"])
    except ValueError as problem:
        _log.warning("nobody's peer", host=row["name"], endpoint=row["endpoint"], error=f"its endpoint {problem}")
        return False
    return True


def _peer(row: RowMapping) -> OverlayPeer:
    return OverlayPeer(
        node=NodeId(row["name"]), public_key=row["public_key"], endpoint=row["endpoint"], tunnel=_tunnel(row)
    )


def _entry(row: RowMapping, vni: int) -> OverlayEntry:
    return OverlayEntry(
        shard=ShardId(row["id"]), node=NodeId(row["node"]), epoch=row["epoch"], vni=vni,
        address=row["address"], mac=row["mac"],
    )  # fmt: skip


def _own_entry(row: RowMapping, vni: int) -> OverlayEntry:
    return OverlayEntry(
        shard=ShardId(row["name"]), node=NodeId(row["name"]), epoch=0, vni=vni, address=row["address"], mac=row["mac"]
    )


def _gateway(row: RowMapping) -> GatewayHost:
    return GatewayHost(
        name=NodeId(row["name"]), namespace=row["namespace"], address=row["address"],
        joined=row["public_key"] is not None,
    )  # fmt: skip
