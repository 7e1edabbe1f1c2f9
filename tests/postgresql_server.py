"""A throw-away PostgreSQL server, where the machine has one to start: for tests and benchmarks."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.errors import MissingPart

_UNPRIVILEGED = "postgres"


@contextmanager
def private_postgresql(*, max_connections: int = 50) -> Iterator[str]:
    """The URL of an empty server on a socket of its own; no port is opened. Durable as by default (fsync is on).

    Raises MissingPart where PostgreSQL is not installed, or cannot run as root.
    """
    binaries = _binaries()
    folder = Path(tempfile.mkdtemp(prefix="sw-pg-"))
    data = folder / "data"
    control = [str(binaries / "pg_ctl"), "-D", str(data), "-w"]
    as_user: dict[str, str] = {}
    try:
        if os.geteuid() == 0:
            account = _account()
            os.chown(folder, account.pw_uid, account.pw_gid)
            as_user = {"user": _UNPRIVILEGED}
        initdb = [str(binaries / "initdb"), "-D", str(data), "-U", "shardwright", "-A", "trust", "-E", "UTF8"]
        subprocess.run([*initdb, "--no-sync"], check=True, capture_output=True, cwd=folder, **as_user)
        options = f"-c listen_addresses='' -k {folder} -c max_connections={max_connections}"
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


def _binaries() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    if found:
        return found[-1].parent
    if on_path is not None:
        return Path(on_path).parent
    raise MissingPart("PostgreSQL is not installed", next_step="install the server of your distribution")


def _account() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(_UNPRIVILEGED)
    except KeyError as error:
        raise MissingPart(f"PostgreSQL refuses to run as root and there is no user {_UNPRIVILEGED}") from error
