"""What /proc shows of real processes."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from agent import processes
from tests.small_fleet import wait_for


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        yield process
        process.kill()


def test_a_process_is_known_by_its_state_and_its_beginning(sleeper: subprocess.Popen[bytes]) -> None:
    began = processes.look(sleeper.pid)
    assert began is not None
    os.kill(sleeper.pid, signal.SIGSTOP)
    wait_for(lambda: processes.look(sleeper.pid) == ("T", began[1]), 5, lambda: str(processes.look(sleeper.pid)))


def test_one_that_is_gone_or_waits_to_be_reaped_is_none(sleeper: subprocess.Popen[bytes]) -> None:
    sleeper.kill()
    wait_for(lambda: processes.look(sleeper.pid) is None, 5, lambda: str(processes.look(sleeper.pid)))
    sleeper.wait()
    assert processes.look(sleeper.pid) is None
