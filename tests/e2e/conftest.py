"""Root as an ordinary user, for what must work without privileges."""

import os
import subprocess
from collections.abc import Iterator

import pytest

from tests.command import NOBODY


@pytest.fixture
def ordinary_user() -> Iterator[tuple[str, ...]]:
    """What to put in front of commands. For root: a user namespace in which it is nobody and has no capability."""
    if os.geteuid() != 0:
        yield ()
        return
    holder = subprocess.Popen([*NOBODY, "sh", "-c", "id -u; exec sleep 600"], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        if holder.stdout.readline().strip() != "65534":
            pytest.skip("root cannot become an ordinary user here; run the tests as one")
        yield ("nsenter", f"--user=/proc/{holder.pid}/ns/user", "--preserve-credentials", "--")
    finally:
        holder.kill()
        holder.communicate()
