"""What nodes report of their shards' health: one row a shard, the newest report."""

from collections.abc import Iterable

from sqlalchemy import Column, Integer, String, Table, Text, delete, select

from engine.clock import Clock
from engine.model.composite import HealthState, ShardHealth
from engine.model.ids import NodeId, ShardId
from engine.model.placement import Epoch, ShardState
from engine.model.value import Value
from engine.store.database import Database, UtcDateTime, metadata
from engine.store.shard_tables import shards

shard_health = Table(
    "shard_health",
    metadata,
    Column("shard", String(128), primary_key=True),
    Column("node", String(128), nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("since", UtcDateTime, nullable=False),
    Column("reported_at", UtcDateTime, nullable=False),
)


class Reported(Value):
    """One shard as its node sees it now."""

    shard: ShardId
    epoch: Epoch
    state: HealthState
    reason: str = ""


class HealthBook:
    """A report counts only from the node that owns the shard, at the epoch that it owns it at."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock

    def report(self, node: NodeId, reports: Iterable[Reported]) -> tuple[ShardHealth, ...]:
        """Keep what the node may speak for; returns those whose state has changed."""
        told = {one.shard: one for one in reports}
        if not told:
            return ()
        owned = (
            select(shards.c.id, shards.c.epoch)
            .where(shards.c.id.in_(told), shards.c.node == node)
            .where(shards.c.state != ShardState.RELEASED.value)
        )
        now, changed = self._clock.now(), []
        with self._database.transaction() as connection:
            rows = connection.execute(select(shard_health).where(shard_health.c.shard.in_(told))).mappings()
            before = {row["shard"]: (row["state"], row["since"]) for row in rows}
            for row in connection.execute(owned).all():
                one = told[ShardId(row.id)]
                if one.epoch != row.epoch:
                    continue
                state, since = before.get(row.id, ("", now))
                same = state == one.state.value
                fresh = ShardHealth(
                    shard=one.shard, node=node, epoch=one.epoch, state=one.state, reason=one.reason,
                    since=since if same else now, reported_at=now,
                )  # fmt: skip
                values = fresh.model_dump(mode="python") | {"state": fresh.state.value}
                statement = self._database.insert(shard_health).values(values)
                connection.execute(statement.on_conflict_do_update(index_elements=[shard_health.c.shard], set_=values))
                changed += [] if same else [fresh]
        return tuple(changed)

    def all(self) -> dict[ShardId, ShardHealth]:
        """Of every shard that was ever reported and is still there."""
        query = select(shard_health).join(shards, shards.c.id == shard_health.c.shard)
        with self._database.reading() as connection:
            found = [
                ShardHealth.model_validate(dict(row) | {"state": HealthState(row["state"])})
                for row in connection.execute(query).mappings()
            ]
        return {one.shard: one for one in found}

    def forget(self) -> None:
        """Of shards that are no more."""
        with self._database.transaction() as connection:
            connection.execute(delete(shard_health).where(shard_health.c.shard.not_in(select(shards.c.id))))
