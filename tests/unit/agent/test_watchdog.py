"""Real processes, stopped and continued; the clock is ours."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.guest import start_ticks
from agent.watchdog import EARLY_SECONDS, Lease, enforce, main, process_state

NOW = 1000.0


@pytest.fixture
def guest() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def lease(guest: subprocess.Popen[bytes], ends: float) -> Lease:
    return Lease(ends, guest.pid, start_ticks(guest.pid))


def write(folder: Path, given: Lease) -> None:
    (folder / "s1").write_text(given.written())


def until(check: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not check():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_guest_runs_to_just_before_the_end_of_its_lease(tmp_path: Path, guest: subprocess.Popen[bytes]) -> None:
    mine = lease(guest, NOW + 10)
    write(tmp_path, mine)
    assert enforce(tmp_path, NOW + 9.9 - EARLY_SECONDS) == {}
    assert enforce(tmp_path, NOW + 10 - EARLY_SECONDS) == {"s1": "stopped"}
    until(lambda: process_state(mine) == "T")
    assert enforce(tmp_path, NOW + 11) == {}


def test_a_renewed_lease_lets_it_go_on(tmp_path: Path, guest: subprocess.Popen[bytes]) -> None:
    write(tmp_path, lease(guest, NOW))
    enforce(tmp_path, NOW)
    until(lambda: process_state(lease(guest, NOW)) == "T")
    write(tmp_path, lease(guest, NOW + 20))
    assert enforce(tmp_path, NOW) == {"s1": "continued"}
    until(lambda: process_state(lease(guest, NOW)) == "S")


def test_another_process_with_the_same_pid_is_left_alone(tmp_path: Path, guest: subprocess.Popen[bytes]) -> None:
    write(tmp_path, Lease(NOW, guest.pid, start_ticks(guest.pid) - 1))
    assert enforce(tmp_path, NOW + 1) == {}


@pytest.mark.parametrize("text", ["", "x", "1 2", "nan nan nan", "1 2 3 4"])
def test_a_file_that_is_no_lease_stops_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "s1").write_text(text)
    assert enforce(tmp_path, NOW) == {}


def test_it_works_as_a_process_and_ends_with_its_folder(tmp_path: Path, guest: subprocess.Popen[bytes]) -> None:
    folder = tmp_path / "leases"
    folder.mkdir()
    write(folder, lease(guest, 0.0))
    command = [sys.executable, "-m", "agent.watchdog", str(folder)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as watchdog:
        until(lambda: process_state(lease(guest, 0.0)) == "T")
        assert main([str(folder)]) == 0  # a second one finds the folder served
        guest.send_signal(signal.SIGCONT)
        for file in (folder / "s1", folder / ".watchdog"):
            file.unlink()
        folder.rmdir()
        assert watchdog.wait(10) == 0
        assert watchdog.stderr is not None
        assert "shard s1 stopped" in watchdog.stderr.read()
    assert main([]) == 2


def test_it_goes_on_where_nothing_can_be_told(tmp_path: Path, guest: subprocess.Popen[bytes]) -> None:
    folder = tmp_path / "leases"
    folder.mkdir()
    write(folder, lease(guest, 0.0))
    command = [sys.executable, "-m", "agent.watchdog", str(folder)]
    with Path("/dev/full").open("wb") as full, subprocess.Popen(command, stderr=full) as watchdog:
        until(lambda: process_state(lease(guest, 0.0)) == "T")
        write(folder, lease(guest, 1e12))
        until(lambda: process_state(lease(guest, 0.0)) == "S")
        write(folder, lease(guest, 0.0))
        until(lambda: process_state(lease(guest, 0.0)) == "T")
        for file in (folder / "s1", folder / ".watchdog"):
            file.unlink()
        folder.rmdir()
        assert watchdog.wait(10) == 0
