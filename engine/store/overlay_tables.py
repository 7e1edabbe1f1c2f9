"""Tables of the overlay between nodes: who takes part, the number of each tenant, and the generation of it all.

Whoever changes what an agent is told (``engine.store.overlay_map``, ``engine.store.shard_map``) raises the generation
in the same transaction.
"""

from sqlalchemy import Column, Connection, Integer, String, Table, delete, func, select

from engine.errors import UsageError
from engine.model.ids import NodeId
from engine.store.database import Database, metadata

overlay_hosts = Table(
    "overlay_hosts",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("slot", Integer, nullable=False, unique=True),
    Column("public_key", String(44)),
    Column("endpoint", String(32)),
    Column("namespace", String(63)),
    Column("address", String(15), unique=True),
    Column("mac", String(17)),
)
"""Nodes, and gateways: those have a namespace, an overlay address and a MAC of their own."""

overlay_tenants = Table(
    "overlay_tenants",
    metadata,
    Column("namespace", String(63), primary_key=True),
    Column("vni", Integer, nullable=False, unique=True),
)
overlay_generation = Table(
    "overlay_generation",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("generation", Integer, nullable=False),
)
"""One row."""

TABLES = (overlay_hosts, overlay_tenants, overlay_generation)
_FIRST_VNI, _LARGEST_VNI = 4097, (1 << 24) - 1


def changed(database: Database, connection: Connection) -> None:
    """On PostgreSQL the row stays locked to the transaction's end: call it last, or before a number is chosen."""
    row = database.insert(overlay_generation).values(id=1, generation=1)
    higher = {"generation": overlay_generation.c.generation + 1}
    connection.execute(row.on_conflict_do_update(index_elements=[overlay_generation.c.id], set_=higher))


def tenant_vni(database: Database, connection: Connection, namespace: str) -> int:
    """The tenant's number; a namespace that is new gets the next one, and keeps it for good. Raises UsageError."""
    wanted = select(overlay_tenants.c.vni).where(overlay_tenants.c.namespace == namespace)
    known = connection.execute(wanted).scalar()
    if known is not None:
        return int(known)
    highest = connection.execute(select(func.max(overlay_tenants.c.vni))).scalar()
    vni = _FIRST_VNI if highest is None else int(highest) + 1
    if vni > _LARGEST_VNI:
        raise UsageError("no network number is free for another namespace", why=f"{_LARGEST_VNI} is the largest")
    row = database.insert(overlay_tenants).values(namespace=namespace, vni=vni)
    connection.execute(row.on_conflict_do_nothing(index_elements=[overlay_tenants.c.namespace]))
    return int(connection.execute(wanted).scalar_one())


def forget_host(connection: Connection, host: NodeId) -> None:
    """Nobody's peer any more."""
    connection.execute(delete(overlay_hosts).where(overlay_hosts.c.name == host))
