"""Tables of the shard map and the rows <-> values in them. Only ``shard_map`` writes these."""

from ipaddress import IPv4Address
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    ForeignKey,
    Integer,
    PrimaryKeyConstraint,
    RowMapping,
    String,
    Table,
    Text,
    and_,
)

from engine.model.capacity import Resources
from engine.model.ids import CellId, NodeId, PoolId, ShardId
from engine.model.market import PurchaseOption
from engine.model.money import Money
from engine.model.placement import Binding, ComponentName, Node, NodeState, Shard, ShardState
from engine.store.database import DecimalText, UtcDateTime, metadata
from engine.store.overlay_tables import TABLES as OVERLAY_TABLES

nodes = Table(
    "nodes",
    metadata,
    Column("id", String(128), primary_key=True),
    Column("cell", String(255), nullable=False, index=True),
    Column("provider", String(64), nullable=False, index=True),
    Column("region", String(64), nullable=False),
    Column("zone", String(64), nullable=False),
    Column("instance_type", String(64), nullable=False),
    Column("option", String(16), nullable=False),
    Column("hourly_price", DecimalText, nullable=False),
    Column("currency", String(3), nullable=False),
    Column("resources", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("instance_id", String(255)),
    Column("agent_url", String(255)),
    Column("underlay_address", String(64)),
)
shards = Table(
    "shards",
    metadata,
    Column("id", String(128), primary_key=True),
    Column("shard_type", String(64), nullable=False),
    Column("pool", String(128), nullable=False),
    Column("node", String(128), ForeignKey("nodes.id"), nullable=False, index=True),
    Column("state", String(16), nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("moved_by", String(128)),
    Column("nominal", Text, nullable=False),
    Column("measured", Text),
    Column("address", String(15), nullable=False, unique=True),
    Column("mac", String(17), nullable=False, unique=True),
)
removed_shards = Table(
    "removed_shards",
    metadata,
    Column("id", String(128), primary_key=True),
    Column("epoch", Integer, nullable=False),
)
"""The last epoch of every shard that was: nodes remember it, and refuse a shard of the same id that starts below."""

bindings = Table(
    "bindings",
    metadata,
    Column("namespace", String(63)),
    Column("workload", String(63)),
    Column("component", String(63)),
    Column("ordinal", Integer),
    Column("shard", String(128), ForeignKey("shards.id"), nullable=False, unique=True),
    Column("bound_at", UtcDateTime, nullable=False),
    Column("draining_until", UtcDateTime),
    PrimaryKeyConstraint("namespace", "workload", "component", "ordinal"),
)
overlay_cursor = Table(
    "overlay_cursor", metadata, Column("id", Integer, primary_key=True), Column("next", Integer, nullable=False)
)
"""One row: where the search for a free overlay address starts, so that an address is reused as late as possible."""

TABLES = (nodes, shards, removed_shards, bindings, overlay_cursor, *OVERLAY_TABLES)
"""Everything that ShardMap writes."""

_FIRST_NET, _LAST_NET, _PER_NET = 1, 254, 254
OVERLAY_ADDRESSES = (_LAST_NET - _FIRST_NET + 1) * _PER_NET
"""10.9.1.1 to 10.9.254.254; 10.9.0.x and 10.9.255.x are kept for gateways and clients."""


def named(table: Table, component: ComponentName) -> ColumnElement[bool]:
    """The rows of a component, in any table that has the four columns of its name."""
    return and_(
        table.c.namespace == component.namespace,
        table.c.workload == component.workload,
        table.c.component == component.component,
        table.c.ordinal == component.index,
    )


def overlay_address(slot: int) -> tuple[str, str]:
    """(IPv4 address, MAC) of a slot in 0..OVERLAY_ADDRESSES-1."""
    net, host = divmod(slot, _PER_NET)
    address = IPv4Address((10 << 24) + (9 << 16) + ((_FIRST_NET + net) << 8) + host + 1)
    return str(address), f"52:54:00:09:{_FIRST_NET + net:02x}:{host + 1:02x}"


def node_row(node: Node) -> dict[str, Any]:
    provider, _, region = node.cell.split("/", 2) if node.cell.count("/") == 2 else (node.cell, "", "")
    return {
        "id": node.id,
        "cell": node.cell,
        "provider": provider,
        "region": region,
        "zone": node.zone,
        "instance_type": node.instance_type,
        "option": node.option.value,
        "hourly_price": node.hourly_price.amount,
        "currency": node.hourly_price.currency,
        "resources": node.resources.model_dump_json(),
        "state": node.state.value,
        "instance_id": node.instance_id,
        "agent_url": node.agent_url,
        "underlay_address": node.underlay_address,
    }


def read_node(row: RowMapping) -> Node:
    return Node(
        id=NodeId(row["id"]),
        cell=CellId(row["cell"]),
        zone=row["zone"],
        instance_type=row["instance_type"],
        option=PurchaseOption(row["option"]),
        hourly_price=Money(amount=row["hourly_price"], currency=row["currency"]),
        resources=Resources.model_validate_json(row["resources"]),
        state=NodeState(row["state"]),
        instance_id=row["instance_id"],
        agent_url=row["agent_url"],
        underlay_address=row["underlay_address"],
    )


def shard_row(shard: Shard) -> dict[str, Any]:
    measured = None if shard.measured is None else shard.measured.model_dump_json()
    plain = shard.model_dump(mode="json", exclude={"nominal", "measured"})
    return plain | {"nominal": shard.nominal.model_dump_json(), "measured": measured}


def read_shard(row: RowMapping) -> Shard:
    measured = row["measured"]
    return Shard(
        id=ShardId(row["id"]),
        shard_type=row["shard_type"],
        pool=PoolId(row["pool"]),
        node=NodeId(row["node"]),
        state=ShardState(row["state"]),
        epoch=row["epoch"],
        nominal=Resources.model_validate_json(row["nominal"]),
        measured=None if measured is None else Resources.model_validate_json(measured),
        address=row["address"],
        mac=row["mac"],
    )


def binding_row(binding: Binding) -> dict[str, Any]:
    name = binding.component
    return {
        "namespace": name.namespace,
        "workload": name.workload,
        "component": name.component,
        "ordinal": name.index,
        "shard": binding.shard,
        "bound_at": binding.bound_at,
        "draining_until": binding.draining_until,
    }


def read_binding(row: RowMapping) -> Binding:
    component = ComponentName(
        namespace=row["namespace"], workload=row["workload"], component=row["component"], index=row["ordinal"]
    )
    return Binding(
        component=component,
        shard=ShardId(row["shard"]),
        bound_at=row["bound_at"],
        draining_until=row["draining_until"],
    )
