"""What the market taught: every answer of a place and every node's stay, for as long as they are of use."""

import json
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Boolean, Column, Integer, RowMapping, String, Table, Text, case, delete, or_, select

from engine.market.observations import Answer, AnswerKind, Stay
from engine.model.ids import CellId, NodeId
from engine.model.market import Place, PurchaseOption
from engine.store.database import Database, UtcDateTime, metadata

market_answers = Table(
    "market_answers",
    metadata,
    Column("event", String(255), primary_key=True),
    Column("cell", String(255), primary_key=True),
    Column("zone", String(64), primary_key=True),
    Column("instance_type", String(64), primary_key=True),
    Column("option", String(16), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("at", UtcDateTime, nullable=False, index=True),
    Column("asked", Integer, nullable=False),
    Column("denied", Integer, nullable=False),
    Column("held", Integer, nullable=False),
    Column("denied_nodes", Text, nullable=False),
)

market_stays = Table(
    "market_stays",
    metadata,
    Column("node", String(128), primary_key=True),
    Column("cell", String(255), nullable=False),
    Column("zone", String(64), nullable=False),
    Column("instance_type", String(64), nullable=False),
    Column("option", String(16), nullable=False),
    Column("correlation_group", String(255), nullable=False),
    Column("since", UtcDateTime, nullable=False),
    Column("until", UtcDateTime, nullable=False, index=True),
    Column("reclaimed", Boolean, nullable=False),
)


class MarketMemory:
    """Recording the same event or the same stay again changes nothing but what is new about it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def answered(self, answers: Sequence[Answer]) -> None:
        """An event that is told again at its place replaces what was told of it before."""
        if not answers:
            return
        insert = self._database.insert(market_answers)
        fields = {name: insert.excluded[name] for name in ("kind", "at", "asked", "denied", "held", "denied_nodes")}
        upsert = insert.on_conflict_do_update(index_elements=list(market_answers.primary_key), set_=fields)
        with self._database.transaction() as connection:
            connection.execute(upsert, [_answer_row(answer) for answer in answers])

    def stayed(self, stays: Sequence[Stay]) -> None:
        """A stay that is known grows at its end, and once reclaimed it stays so."""
        if not stays:
            return
        insert = self._database.insert(market_stays)
        told = insert.excluded
        fields = {
            "until": case((market_stays.c.until < told.until, told.until), else_=market_stays.c.until),
            "reclaimed": or_(market_stays.c.reclaimed, told.reclaimed),
        }
        upsert = insert.on_conflict_do_update(index_elements=[market_stays.c.node], set_=fields)
        with self._database.transaction() as connection:
            connection.execute(upsert, [_stay_row(stay) for stay in stays])

    def answers(self, *, since: datetime) -> tuple[Answer, ...]:
        """Oldest first."""
        order = (market_answers.c.at, market_answers.c.event)
        query = select(market_answers).where(market_answers.c.at >= since).order_by(*order)
        with self._database.reading() as connection:
            return tuple(_read_answer(row) for row in connection.execute(query).mappings())

    def stays(self) -> tuple[Stay, ...]:
        """Those that are remembered, by node."""
        query = select(market_stays).order_by(market_stays.c.node)
        with self._database.reading() as connection:
            return tuple(_read_stay(row) for row in connection.execute(query).mappings())

    def forget(self, *, before: datetime) -> int:
        """Drop answers and stays that ended earlier; how many."""
        with self._database.transaction() as connection:
            answers = connection.execute(delete(market_answers).where(market_answers.c.at < before)).rowcount
            stays = connection.execute(delete(market_stays).where(market_stays.c.until < before)).rowcount
        return answers + stays


def _place_row(place: Place) -> dict[str, object]:
    return {"cell": place.cell, "zone": place.zone, "instance_type": place.instance_type, "option": place.option.value}


def _read_place(row: RowMapping) -> Place:
    return Place(CellId(row["cell"]), row["zone"], row["instance_type"], PurchaseOption(row["option"]))


def _answer_row(answer: Answer) -> dict[str, object]:
    return {
        "event": answer.event,
        **_place_row(answer.place),
        "kind": answer.kind.value,
        "at": answer.at,
        "asked": answer.asked,
        "denied": answer.denied,
        "held": answer.held,
        "denied_nodes": json.dumps(answer.denied_nodes),
    }


def _read_answer(row: RowMapping) -> Answer:
    return Answer(
        event=row["event"],
        place=_read_place(row),
        kind=AnswerKind(row["kind"]),
        at=row["at"],
        asked=row["asked"],
        denied=row["denied"],
        held=row["held"],
        denied_nodes=tuple(NodeId(name) for name in json.loads(row["denied_nodes"])),
    )


def _stay_row(stay: Stay) -> dict[str, object]:
    return {
        "node": stay.node,
        **_place_row(stay.place),
        "correlation_group": stay.correlation_group,
        "since": stay.since,
        "until": stay.until,
        "reclaimed": stay.reclaimed,
    }


def _read_stay(row: RowMapping) -> Stay:
    return Stay(
        node=NodeId(row["node"]),
        place=_read_place(row),
        correlation_group=row["correlation_group"],
        since=row["since"],
        until=row["until"],
        reclaimed=row["reclaimed"],
    )
