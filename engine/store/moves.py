"""The moves: those under way as they stand now, and the history, one report each; all as documents."""

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import Column, String, Table, Text, delete, func, or_, select, update

from engine.errors import UnknownName, UsageError
from engine.model.ids import MoveId
from engine.model.move import UNSETTLED, MovePhase, MoveProgress, MoveReport, MoveRequest, MoveUnderWay
from engine.store.database import Database, UtcDateTime, metadata

moves = Table(
    "moves",
    metadata,
    Column("id", String(128), primary_key=True),
    Column("shard", String(128), nullable=False, index=True),
    Column("finished_at", UtcDateTime, nullable=False, index=True),
    Column("document", Text, nullable=False),
)
moves_under_way = Table(
    "moves_under_way",
    metadata,
    Column("id", String(128), primary_key=True),
    Column("since", UtcDateTime, nullable=False),
    Column("cancelled_at", UtcDateTime),
    Column("asked_by", String(128)),
    Column("document", Text, nullable=False),
)


class MoveHistory:
    def __init__(self, database: Database) -> None:
        self._database = database

    # -- under way

    def announce(self, requests: Iterable[MoveRequest], now: datetime, asked_by: str | None = None) -> None:
        """Moves that are about to begin, or wait for their turn. How they stand stays, where that is known already.

        ``asked_by``: the workflow that waits for them.
        """
        for request in requests:
            first = MoveProgress(request=request, phase=MovePhase.REQUESTED, at=now)
            self._enter(first, {"asked_by": asked_by}, changes={"asked_by": asked_by})

    def stands(self, progress: MoveProgress) -> None:
        """How a move stands now; one that has a report already is not under way any more."""
        self._enter(progress, {}, changes={"document": progress.model_dump_json()})

    def _enter(self, progress: MoveProgress, more: dict[str, str | None], *, changes: dict[str, str | None]) -> None:
        row = {"id": progress.request.id, "since": progress.at, "document": progress.model_dump_json(), **more}
        insert = self._database.insert(moves_under_way).values(row)
        with self._database.transaction() as connection:
            if connection.execute(select(moves.c.id).where(moves.c.id == row["id"])).first() is None:
                connection.execute(insert.on_conflict_do_update(index_elements=[moves_under_way.c.id], set_=changes))

    def under_way(self) -> tuple[MoveUnderWay, ...]:
        """Oldest first."""
        query = select(moves_under_way).order_by(moves_under_way.c.since, moves_under_way.c.id)
        with self._database.reading() as connection:
            return tuple(
                MoveUnderWay(
                    progress=MoveProgress.model_validate_json(row["document"]),
                    since=row["since"],
                    cancelled=row["cancelled_at"] is not None,
                    asked_by=row["asked_by"],
                )
                for row in connection.execute(query).mappings()
            )

    def cancel(self, move: MoveId, now: datetime) -> None:
        """Say that the move is not wanted any more; again is no mistake.

        Raises UsageError for one that has ended, UnknownName.
        """
        mark = update(moves_under_way).where(moves_under_way.c.id == move).values(cancelled_at=now)
        with self._database.transaction() as connection:
            if connection.execute(mark).rowcount == 1:
                return
        ended = self.report(move)
        if ended is None:
            raise UnknownName(
                f"move {move} is not known", why="the store has no such move", next_step="shardwright moves"
            )
        raise UsageError(
            f"move {move} cannot be cancelled",
            why=f"it has ended: {ended.phase} at {ended.finished_at:%Y-%m-%d %H:%M:%S} UTC",
            next_step="shardwright moves",
        )

    def cancelled(self) -> frozenset[MoveId]:
        query = select(moves_under_way.c.id).where(moves_under_way.c.cancelled_at.is_not(None))
        with self._database.reading() as connection:
            return frozenset(MoveId(found) for found in connection.execute(query).scalars())

    # -- the history

    def put(self, report: MoveReport) -> None:
        """Add, or replace the report of the same move, which is then not under way any more."""
        self._put(report, replace=True)

    def put_first(self, report: MoveReport) -> bool:
        """The same, but a report that is there already stays; whether there was none."""
        return self._put(report, replace=False)

    def _put(self, report: MoveReport, *, replace: bool) -> bool:
        row = {
            "id": report.request.id,
            "shard": report.request.shard,
            "finished_at": report.finished_at,
            "document": report.model_dump_json(),
        }
        insert = self._database.insert(moves).values(row)
        with self._database.transaction() as connection:
            same = insert.on_conflict_do_update(index_elements=[moves.c.id], set_=row)
            entering = (same if replace else insert.on_conflict_do_nothing()).returning(moves.c.id)
            entered = connection.execute(entering).first() is not None
            connection.execute(delete(moves_under_way).where(moves_under_way.c.id == report.request.id))
        return entered

    def report(self, move: MoveId) -> MoveReport | None:
        with self._database.reading() as connection:
            found = connection.execute(select(moves.c.document).where(moves.c.id == move)).scalar()
        return None if found is None else MoveReport.model_validate_json(found)

    def unsettled(self) -> tuple[MoveReport, ...]:
        """Moves that have not come to their end, oldest first."""
        # The documents are our own compact JSON, and only the report itself has a phase.
        unsettled = or_(*(moves.c.document.contains(f'"phase":"{phase.value}"') for phase in UNSETTLED))
        query = select(moves.c.document).where(unsettled).order_by(moves.c.finished_at)
        with self._database.reading() as connection:
            return tuple(MoveReport.model_validate_json(text) for text in connection.execute(query).scalars())

    def moving(self) -> tuple[MoveRequest, ...]:
        """Under way, or not settled yet."""
        under_way = (one.progress.request for one in self.under_way())
        return (*under_way, *(report.request for report in self.unsettled()))

    def count(self) -> int:
        with self._database.reading() as connection:
            return connection.execute(select(func.count()).select_from(moves)).scalar_one()

    def latest(self, count: int) -> tuple[MoveReport, ...]:
        """Newest first."""
        query = select(moves.c.document).order_by(moves.c.finished_at.desc()).limit(count)
        with self._database.reading() as connection:
            return tuple(MoveReport.model_validate_json(text) for text in connection.execute(query).scalars())
