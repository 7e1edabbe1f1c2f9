import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from providers.sandbox.processes import (
    MARKER,
    all_pids,
    end_all,
    environment_value,
    in_namespaces,
    is_zombie,
    namespace_inodes,
    namespace_names,
    send,
    tagged,
)

TAG = "sw0f00d5"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"


@pytest.fixture
def stubborn() -> Iterator[subprocess.Popen[str]]:
    """A marked process that ignores SIGTERM."""
    with subprocess.Popen(
        [sys.executable, "-c", STUBBORN], env={MARKER: TAG}, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        yield process
        process.kill()


def test_a_process_is_found_by_the_tag_in_its_environment(stubborn: subprocess.Popen[str]) -> None:
    assert stubborn.pid in all_pids()
    assert environment_value(stubborn.pid, MARKER) == TAG
    assert environment_value(stubborn.pid, "SOMETHING_ELSE") is None
    assert tagged(lambda tag: tag == TAG) == {stubborn.pid: TAG}
    assert tagged(lambda tag: tag == TAG[:-1]) == {}


def test_what_ignores_sigterm_is_killed_after_the_grace(stubborn: subprocess.Popen[str]) -> None:
    def find() -> set[int]:
        return set(tagged(lambda tag: tag == TAG))

    assert end_all(find, grace_seconds=0.1) == set()
    assert stubborn.wait(timeout=5) == -signal.SIGKILL


def test_survivors_are_named_when_nothing_helps() -> None:
    assert end_all(lambda: {2**22 + 1}, grace_seconds=0.0, limit_seconds=0.1) == {2**22 + 1}


def test_a_dead_child_that_nobody_waited_for_is_a_zombie() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert is_zombie(process.pid)
    process.wait()
    assert is_zombie(process.pid)
    assert not is_zombie(os.getpid())
    send([process.pid], signal.SIGKILL)


def test_namespaces_that_are_not_there_hold_nobody() -> None:
    assert namespace_names("no-such-prefix-") == []
    assert namespace_inodes(["no-such-namespace"]) == set()
    assert in_namespaces(set()) == set()
    own = Path("/proc/self/ns/net").stat().st_ino
    assert os.getpid() in in_namespaces({own})
