from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, insert, select
from sqlalchemy.exc import StatementError

from engine.store.database import Database, DecimalText, UtcDateTime


@pytest.fixture
def things(tmp_path: Path):
    database = Database(f"sqlite:///{tmp_path / 'x.sqlite'}")
    own = MetaData()
    table = Table(
        "things", own, Column("id", Integer, primary_key=True), Column("cost", DecimalText), Column("at", UtcDateTime)
    )
    own.create_all(database.engine)
    yield database, table
    database.dispose()


def test_decimals_and_times_come_back_exactly(things) -> None:
    database, table = things
    moment = datetime(2026, 11, 23, 13, 0, tzinfo=timezone(timedelta(hours=1)))
    with database.transaction() as connection:
        connection.execute(insert(table).values(id=1, cost=Decimal("0.100000000000000001"), at=moment))
    with database.transaction() as connection:
        row = connection.execute(select(table)).one()
    assert row.cost == Decimal("0.100000000000000001")
    assert row.at == moment
    assert row.at.tzinfo is UTC


def test_a_naive_time_is_refused(things) -> None:
    database, table = things
    with pytest.raises(StatementError, match="naive"), database.transaction() as connection:
        connection.execute(insert(table).values(id=1, at=datetime(2026, 1, 1)))  # noqa: DTZ001


def test_an_error_rolls_everything_back(things) -> None:
    database, table = things
    with pytest.raises(RuntimeError), database.transaction() as connection:  # noqa: PT012
        connection.execute(insert(table).values(id=1))
        raise RuntimeError("half way")
    with database.transaction() as connection:
        assert connection.execute(select(table)).all() == []


def test_a_reader_waits_for_no_writer_and_holds_none_up(things) -> None:
    database, table = things
    with database.transaction() as writing:
        writing.execute(insert(table).values(id=1))
        with database.reading() as connection:
            assert connection.execute(select(table)).all() == []
    with database.reading() as connection:
        assert len(connection.execute(select(table)).all()) == 1
        with database.transaction() as writing:
            writing.execute(insert(table).values(id=2))
        assert len(connection.execute(select(table)).all()) == 1, "it sees one state throughout"
