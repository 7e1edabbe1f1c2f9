"""One control plane per state. The lock goes with its process, however that ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, text

from engine.errors import StateInUse
from engine.store.database import Database

_ADVISORY_LOCK = 0x5348_4152_4457
"""PostgreSQL's advisory locks are numbers; this one is ours."""


@contextmanager
def hold_state(database: Database) -> Iterator[None]:
    """Hold the state of ``database`` for the length of the context. Raises StateInUse, naming the holder if known.

    SQLite: a file lock beside the database. PostgreSQL: a session's advisory lock, gone with its connection.
    """
    if database.engine.dialect.name == "postgresql":
        with _hold_session(database):
            yield
    elif database.engine.url.database in (None, "", ":memory:"):
        yield
    else:
        with hold_file(Path(f"{database.engine.url.database}.lock")):
            yield


def state_is_held(database: Database) -> bool:
    """Whether a control plane runs on this state now. A moment later it may be otherwise."""
    # Asking by taking it could be in somebody's way.
    if database.engine.dialect.name == "postgresql":
        with database.transaction() as connection:
            return _holder(connection) is not None
    lock = Path(f"{database.engine.url.database}.lock")
    if not lock.exists() or not lock.read_text(encoding="utf-8"):
        return False  # whoever had it has given it back
    try:
        with hold_state(database):
            return False
    except StateInUse:
        return True


@contextmanager
def hold_file(path: Path, who: str = "control plane") -> Iterator[None]:
    """Hold a lock file. Raises StateInUse: another ``who`` does.

    The file stays: removing it would let two processes lock two different files of one name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise _in_use(str(path), f"process {file.read().strip() or 'unknown'}", who) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


@contextmanager
def _hold_session(database: Database) -> Iterator[None]:
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        got = connection.execute(text("SELECT pg_try_advisory_lock(:id)"), {"id": _ADVISORY_LOCK}).scalar()
        if not got:
            holder = _holder(connection)
            raise _in_use(database.engine.url.render_as_string(hide_password=True), f"a session from {holder}")
        try:
            yield
        finally:
            connection.execute(text("SELECT pg_advisory_unlock(:id)"), {"id": _ADVISORY_LOCK})


def _holder(connection: Connection) -> str | None:
    """Where the session that has PostgreSQL's lock came from; None: nobody has it."""
    query = text(
        "SELECT coalesce(host(a.client_addr), 'a local socket') FROM pg_locks l JOIN pg_stat_activity a"
        " USING (pid) WHERE l.locktype = 'advisory' AND l.granted"
        " AND (l.classid::bigint << 32 | l.objid::bigint) = :id"
    )
    return connection.execute(query, {"id": _ADVISORY_LOCK}).scalar()


def _in_use(state: str, holder: str, who: str = "control plane") -> StateInUse:
    return StateInUse(
        f"another {who} uses this state ({state})",
        why=f"held by {holder}",
        next_step="stop it, or use another state.directory",
    )
