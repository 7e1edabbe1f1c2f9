"""Until when a node may let each of its shards run: what was granted, so that a shard is never started twice.

The grant is written before the node hears of it. Whoever wants to start a shard elsewhere without proof that its node
is dead waits for ``free_at``.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from sqlalchemy import Column, Integer, String, Table, select

from engine.clock import Clock
from engine.model.ids import NodeId, ShardId
from engine.model.placement import ShardState
from engine.store.database import Database, UtcDateTime, metadata
from engine.store.shard_tables import shards

SKEW = timedelta(seconds=2)
"""What the clocks of node and control plane may differ in speed and in the answer's way."""

run_leases = Table(
    "run_leases",
    metadata,
    Column("shard", String(128), primary_key=True),
    Column("node", String(128), nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("until", UtcDateTime, nullable=False),
)


class RunLeases:
    """One row a shard: its newest lease."""

    def __init__(self, database: Database, clock: Clock, lease: timedelta) -> None:
        """``lease``: how long one grant is good for."""
        self._database, self._clock, self.lease = database, clock, lease

    def grant(self, node: NodeId, asked: Iterable[tuple[ShardId, int]]) -> tuple[ShardId, ...]:
        """Those of the (shard, epoch) pairs that the store gives to this node at this epoch; now plus ``lease``."""
        wanted = dict(asked)
        if not wanted:
            return ()
        owned = (
            select(shards.c.id, shards.c.epoch)
            .where(shards.c.id.in_(wanted), shards.c.node == node)
            .where(shards.c.state != ShardState.RELEASED.value)
        )
        with self._database.transaction() as connection:
            mine = [(row.id, row.epoch) for row in connection.execute(owned) if wanted[row.id] == row.epoch]
            until = self._clock.now() + self.lease
            for shard, epoch in mine:
                row = {"shard": shard, "node": node, "epoch": epoch, "until": until}
                statement = self._database.insert(run_leases).values(row)
                connection.execute(statement.on_conflict_do_update(index_elements=[run_leases.c.shard], set_=row))
        return tuple(ShardId(shard) for shard, _ in mine)

    def free_at(self, shard: ShardId, since: datetime) -> datetime:
        """When a node that has lost the shard does not run it any more, whatever becomes of it.

        ``since``: a moment by which that node had been told to run it; the command was its first grant, and it may have
        asked for none after that.
        """
        with self._database.transaction() as connection:
            until = connection.execute(select(run_leases.c.until).where(run_leases.c.shard == shard)).scalar()
        first = since + self.lease
        return (first if until is None else max(first, until)) + SKEW
