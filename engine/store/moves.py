"""The history of moves: one report each, as a document."""

from sqlalchemy import Column, String, Table, Text, or_, select

from engine.model.move import UNSETTLED, MoveReport
from engine.store.database import Database, UtcDateTime, metadata

moves = Table(
    "moves",
    metadata,
    Column("id", String(128), primary_key=True),
    Column("shard", String(128), nullable=False, index=True),
    Column("finished_at", UtcDateTime, nullable=False, index=True),
    Column("document", Text, nullable=False),
)


class MoveHistory:
    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, report: MoveReport) -> None:
        """Add, or replace the report of the same move."""
        row = {
            "id": report.request.id,
            "shard": report.request.shard,
            "finished_at": report.finished_at,
            "document": report.model_dump_json(),
        }
        insert = self._database.insert(moves).values(row)
        with self._database.transaction() as connection:
            connection.execute(insert.on_conflict_do_update(index_elements=[moves.c.id], set_=row))

    def unsettled(self) -> tuple[MoveReport, ...]:
        """Moves that have not come to their end, oldest first."""
        # The documents are our own compact JSON, and only the report itself has a phase.
        unsettled = or_(*(moves.c.document.contains(f'"phase":"{phase.value}"') for phase in UNSETTLED))
        query = select(moves.c.document).where(unsettled).order_by(moves.c.finished_at)
        with self._database.transaction() as connection:
            return tuple(MoveReport.model_validate_json(text) for text in connection.execute(query).scalars())

    def latest(self, count: int) -> tuple[MoveReport, ...]:
        """Newest first."""
        query = select(moves.c.document).order_by(moves.c.finished_at.desc()).limit(count)
        with self._database.transaction() as connection:
            return tuple(MoveReport.model_validate_json(text) for text in connection.execute(query).scalars())
