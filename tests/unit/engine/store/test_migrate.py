"""The migrations make exactly the tables that the code uses, on an empty store and again on their own result."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import event, text

import engine.store.migrate as migrate
from engine.errors import ShardwrightError
from engine.store import all_tables
from engine.store.database import Database, metadata
from tests.earlier_store import ledger_outlives_the_upgrade, scripts


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'empty.sqlite'}")
    yield database
    database.dispose()


def test_tables_and_migrations_agree(empty: Database) -> None:
    assert migrate.upgrade(empty) is True
    assert len(all_tables.MODULES) > 0
    with empty.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "target_metadata": metadata})
        assert compare_metadata(context, metadata) == []


def test_head_is_the_newest_script() -> None:
    assert ScriptDirectory.from_config(scripts()).get_current_head() == migrate.HEAD


def test_a_ledger_of_an_earlier_schema_keeps_its_bills(empty: Database) -> None:
    ledger_outlives_the_upgrade(empty)


def test_an_up_to_date_store_costs_a_look_and_a_query(empty: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    migrate.upgrade(empty)
    asked: list[str] = []
    event.listen(empty.engine, "before_cursor_execute", lambda _c, _cursor, statement, *_: asked.append(statement))
    monkeypatch.setitem(sys.modules, "alembic", None)  # slow to import: nobody does
    assert migrate.upgrade(empty) is False
    assert asked[-1] == "SELECT version_num FROM alembic_version"
    assert [statement.split()[0] for statement in asked] == ["BEGIN", "PRAGMA", "SELECT"]


def test_every_store_module_is_registered() -> None:
    """A table that all_tables does not import would never be migrated."""
    folder = Path(migrate.__file__).parent
    declaring = {path.stem for path in folder.glob("*.py") if " = Table(" in path.read_text(encoding="utf-8")}
    assert declaring == {module.__name__.rsplit(".", 1)[-1] for module in all_tables.MODULES}


def test_a_newer_store_is_a_named_error(empty: Database) -> None:
    migrate.upgrade(empty)
    with empty.transaction() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ShardwrightError, match="schema 9999"):
        migrate.upgrade(empty)


def test_a_failed_migration_leaves_nothing(empty: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    with empty.transaction() as connection:
        connection.execute(text("CREATE TABLE leases (key TEXT)"))
    with pytest.raises(Exception, match="already exists"):
        migrate.upgrade(empty)
    assert migrate.revision(empty) is None
