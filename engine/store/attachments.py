"""Which storage shard holds a replica's data, and which shard on which node may use it.

The data belongs to the replica's name: it stays while the shard that serves the name moves or is replaced. A row stays
when its storage is lost, so that nobody is ever given an empty disk in its place unasked.
"""

from typing import Any

from sqlalchemy import Column, Integer, PrimaryKeyConstraint, RowMapping, String, Table, delete, select, update

from engine.errors import UsageError
from engine.model.ids import NodeId, ShardId
from engine.model.placement import ComponentName, Epoch, Shard
from engine.model.value import Value
from engine.store.database import Database, metadata
from engine.store.shard_tables import named

attachments = Table(
    "attachments",
    metadata,
    Column("namespace", String(63)),
    Column("workload", String(63)),
    Column("component", String(63)),
    Column("ordinal", Integer),
    Column("storage", String(128), nullable=False, unique=True),
    Column("shard", String(128)),
    Column("node", String(128)),
    Column("shard_epoch", Integer, nullable=False),
    Column("epoch", Integer, nullable=False),
    PrimaryKeyConstraint("namespace", "workload", "component", "ordinal"),
)


class Attachment(Value):
    """``shard`` at ``shard_epoch`` on ``node`` may use the storage since the storage's ``epoch``; None: nobody yet."""

    component: ComponentName
    storage: ShardId
    shard: ShardId | None = None
    node: NodeId | None = None
    shard_epoch: Epoch = 0
    epoch: Epoch = 0


class Attachments:
    def __init__(self, database: Database) -> None:
        self._database = database

    def assign(self, component: ComponentName, storage: ShardId) -> Attachment:
        """Give the replica its storage; the same pair again is the same attachment. Raises UsageError."""
        with self._database.transaction() as connection:
            known = (
                connection.execute(select(attachments).where(named(attachments, component))).mappings().one_or_none()
            )
            if known is not None:
                found = _read(known)
                if found.storage != storage:
                    raise UsageError(f"{component} keeps its data on {found.storage}", why=f"asked for {storage}")
                return found
            fresh = Attachment(component=component, storage=storage)
            connection.execute(self._database.insert(attachments).values(_row(fresh)))
        return fresh

    def grant(self, component: ComponentName, shard: Shard, epoch: Epoch) -> None:
        """Write down that the shard as it is now may use the storage since ``epoch``; an older one changes nothing."""
        newer = update(attachments).where(named(attachments, component), attachments.c.epoch <= epoch)
        with self._database.transaction() as connection:
            connection.execute(newer.values(shard=shard.id, node=shard.node, shard_epoch=shard.epoch, epoch=epoch))

    def forget(self, component: ComponentName) -> None:
        """The replica may be given another disk. Not there = success."""
        with self._database.transaction() as connection:
            connection.execute(delete(attachments).where(named(attachments, component)))

    def all(self) -> tuple[Attachment, ...]:
        """By name."""
        query = select(attachments).order_by(*attachments.primary_key.columns)
        with self._database.reading() as connection:
            return tuple(_read(row) for row in connection.execute(query).mappings())

    def in_use(self) -> frozenset[ShardId]:
        """Storage shards that hold somebody's data."""
        return frozenset(one.storage for one in self.all())


def _row(attachment: Attachment) -> dict[str, Any]:
    name = attachment.component
    return {
        "namespace": name.namespace,
        "workload": name.workload,
        "component": name.component,
        "ordinal": name.index,
        "storage": attachment.storage,
        "shard": attachment.shard,
        "node": attachment.node,
        "shard_epoch": attachment.shard_epoch,
        "epoch": attachment.epoch,
    }


def _read(row: RowMapping) -> Attachment:
    return Attachment(
        component=ComponentName(
            namespace=row["namespace"], workload=row["workload"], component=row["component"], index=row["ordinal"]
        ),
        storage=ShardId(row["storage"]),
        shard=None if row["shard"] is None else ShardId(row["shard"]),
        node=None if row["node"] is None else NodeId(row["node"]),
        shard_epoch=row["shard_epoch"],
        epoch=row["epoch"],
    )
