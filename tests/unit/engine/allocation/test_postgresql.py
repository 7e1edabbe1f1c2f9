"""What the control store does differently on PostgreSQL: migrations and the state lock."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from engine.errors import StateInUse
from engine.store.database import Database, metadata
from engine.store.migrate import upgrade
from engine.store.state_lock import hold_state
from tests.earlier_store import ledger_outlives_the_upgrade


@pytest.fixture
def postgresql(postgresql_url: str) -> Iterator[Database]:
    database = Database(postgresql_url)
    yield database
    metadata.drop_all(database.engine)
    with database.transaction() as connection:
        connection.execute(text("DROP TABLE IF EXISTS alembic_version"))
    database.dispose()


def test_tables_and_migrations_agree(postgresql: Database) -> None:
    assert upgrade(postgresql) is True
    assert upgrade(postgresql) is False
    with postgresql.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "target_metadata": metadata})
        assert compare_metadata(context, metadata) == []


def test_a_ledger_of_an_earlier_schema_keeps_its_bills(postgresql: Database) -> None:
    ledger_outlives_the_upgrade(postgresql)


def test_a_rush_makes_no_connection_beyond_the_pool(postgresql: Database) -> None:
    start = Barrier(40)

    def backends(_: int) -> set[int]:
        start.wait()
        found = set()
        for _turn in range(5):
            with postgresql.transaction() as connection:
                found.add(int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one()))
        return found

    with ThreadPoolExecutor(40) as executor:
        seen = set().union(*executor.map(backends, range(40)))
    assert len(seen) <= 15


def test_a_second_control_plane_is_refused(postgresql: Database) -> None:
    other = Database(postgresql.url)
    with hold_state(postgresql), pytest.raises(StateInUse, match="held by a session from"), hold_state(other):
        pytest.fail("two at once")
    with hold_state(other):
        pass
    other.dispose()
