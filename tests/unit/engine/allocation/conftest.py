"""A control store in SQLite, and in PostgreSQL where the machine has a server to start."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import engine.store.all_tables  # noqa: F401 - registers every table
from engine.allocation.locking import ResourceLocking
from engine.clock import ManualClock
from engine.store.database import Database, metadata

_UNPRIVILEGED = "postgres"


def _binaries() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else (Path(on_path).parent if on_path else None)


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """A throw-away server on a socket of its own; no port is opened."""
    binaries = _binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed: locking is tested on SQLite only")
    as_user: dict[str, str] = {}
    folder = Path(tempfile.mkdtemp(prefix="sw-pg-"))
    if os.geteuid() == 0:
        try:
            account = pwd.getpwnam(_UNPRIVILEGED)
        except KeyError:
            pytest.skip(f"PostgreSQL refuses to run as root and there is no user {_UNPRIVILEGED}")
        os.chown(folder, account.pw_uid, account.pw_gid)
        as_user = {"user": _UNPRIVILEGED}
    data = folder / "data"
    control = [str(binaries / "pg_ctl"), "-D", str(data), "-w"]
    try:
        initdb = [str(binaries / "initdb"), "-D", str(data), "-U", "shardwright", "-A", "trust", "-E", "UTF8"]
        subprocess.run([*initdb, "--no-sync"], check=True, capture_output=True, cwd=folder, **as_user)
        options = f"-c listen_addresses='' -k {folder} -c max_connections=50"
        subprocess.run(
            [*control, "-l", str(folder / "log"), "-o", options, "start"],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            **as_user,
        )
        yield f"postgresql+psycopg://shardwright@/postgres?host={folder}"
    finally:
        if data.exists():
            stop = [*control, "-m", "immediate", "stop"]
            subprocess.run(stop, capture_output=True, cwd=folder, check=False, **as_user)
        shutil.rmtree(folder, ignore_errors=True)


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


@pytest.fixture
def locking(store: Database, clock: ManualClock) -> ResourceLocking:
    return ResourceLocking(store, clock)
