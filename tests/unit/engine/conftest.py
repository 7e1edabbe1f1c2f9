"""A control store in SQLite, and in PostgreSQL where the machine has a server to start."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import engine.store.all_tables  # noqa: F401 - registers every table
from engine.errors import MissingPart
from engine.store.database import Database, metadata
from tests.postgresql_server import private_postgresql


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    try:
        with private_postgresql() as url:
            yield url
    except MissingPart as missing:
        pytest.skip(f"tested on SQLite only: {missing}")


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """Every table, empty, on each kind of database."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'control.sqlite'}"
    else:
        url = request.getfixturevalue("postgresql_url")
    database = Database(url)
    metadata.create_all(database.engine)
    yield database
    if request.param == "postgresql":
        metadata.drop_all(database.engine)
    database.dispose()
