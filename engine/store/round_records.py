"""The records that explain rounds, as documents; who writes them knows their schema."""

from datetime import datetime

from sqlalchemy import Column, String, Table, Text, delete, select

from engine.model.ids import PlanId, RoundId
from engine.model.value import Utc, Value
from engine.store.database import Database, UtcDateTime, metadata

rounds = Table(
    "rounds",
    metadata,
    Column("id", String(128), primary_key=True),
    Column("started_at", UtcDateTime, nullable=False, index=True),
    Column("finished_at", UtcDateTime),
    Column("plan", String(128)),
    Column("document", Text, nullable=False),
)


NEWEST = 10
"""Rounds whose records stay however old they are: targets are read from the last one."""


class StoredRound(Value):
    id: RoundId
    started_at: Utc
    finished_at: Utc | None = None
    """None: still going on, or never came to its end."""
    plan: PlanId | None = None
    document: str
    """The record as JSON."""


class RoundRecords:
    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, record: StoredRound) -> None:
        """Add, or replace the record of the same round."""
        row = record.model_dump()
        insert = self._database.insert(rounds).values(row)
        with self._database.transaction() as connection:
            connection.execute(insert.on_conflict_do_update(index_elements=[rounds.c.id], set_=row))

    def get(self, round_id: RoundId) -> StoredRound | None:
        with self._database.reading() as connection:
            row = connection.execute(select(rounds).where(rounds.c.id == round_id)).mappings().first()
        return None if row is None else StoredRound(**row)

    def latest(self, count: int) -> tuple[StoredRound, ...]:
        """Newest first."""
        with self._database.reading() as connection:
            rows = connection.execute(select(rounds).order_by(rounds.c.started_at.desc()).limit(count)).mappings().all()
        return tuple(StoredRound(**row) for row in rows)

    def forget(self, *, before: datetime, most: int) -> int:
        """Drop the records of rounds that began earlier, the oldest first; how many. The newest few stay."""
        newest = select(rounds.c.id).order_by(rounds.c.started_at.desc()).limit(NEWEST)
        old = select(rounds.c.id).where(rounds.c.started_at < before, rounds.c.id.not_in(newest))
        oldest = old.order_by(rounds.c.started_at).limit(most)
        with self._database.transaction() as connection:
            return connection.execute(delete(rounds).where(rounds.c.id.in_(oldest))).rowcount
