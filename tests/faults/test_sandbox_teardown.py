"""Whatever is killed, and however: nothing of a sandbox stays on the machine."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from engine.errors import StateInUse, UsageError
from providers.sandbox import supervisor
from providers.sandbox.control import SandboxClient
from providers.sandbox.info import SandboxInfo
from providers.sandbox.processes import MARKER, tagged
from providers.sandbox.servers import ServerFailed
from providers.sandbox.teardown import leftovers
from tests.sandbox_runs import buy_node, console, eventually, wait_for_node

pytestmark = [pytest.mark.slow, pytest.mark.root]

STUBBORN = """#!/bin/sh
env -i setsid sleep 3600 &
trap '' TERM INT HUP
echo booted
while :; do sleep 1; done
"""


def running(state: Path) -> SandboxInfo:
    """A sandbox with one node whose processes ignore SIGTERM and have left their session and environment."""
    info = supervisor.start(state, providers=["harbor"])
    client = SandboxClient(info)
    buy_node(info, "n1", STUBBORN)
    wait_for_node(client, "n1")
    client.attach_client("c1")
    client.close()
    eventually(lambda: "booted" in console(info, "n1"), what="the node boots")
    kinds = {leftover.kind for leftover in leftovers(info.tag)}
    assert {"process", "namespace", "link"} <= kinds
    return info


def gone(info: SandboxInfo, *, seconds: float) -> None:
    eventually(lambda: leftovers(info.tag) == [], seconds=seconds, what=f"left over: {leftovers(info.tag)}")
    eventually(lambda: not Path(info.state_dir).exists(), seconds=1, what="the state folder goes")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_takes_everything_away_in_time(tmp_path: Path, number: signal.Signals) -> None:
    info = running(tmp_path / "state")
    started = time.monotonic()
    os.kill(info.supervisor_pid, number)
    gone(info, seconds=5)
    assert time.monotonic() - started < 5
    assert supervisor.stop(tmp_path / "state") == []


def test_kill_9_of_the_supervisor_leaves_the_work_to_the_reaper(tmp_path: Path) -> None:
    info = running(tmp_path / "state")
    os.kill(info.supervisor_pid, signal.SIGKILL)
    gone(info, seconds=5)
    supervisor.stop(tmp_path / "state")


def test_kill_9_of_supervisor_and_reaper_is_cleaned_by_down(tmp_path: Path) -> None:
    info = running(tmp_path / "state")
    for leftover in leftovers(info.tag):
        if leftover.kind == "process" and " reap " in leftover.name:
            os.kill(int(leftover.name.split()[0]), signal.SIGKILL)
    os.kill(info.supervisor_pid, signal.SIGKILL)
    time.sleep(0.3)  # nobody is left who could clean up; see that nobody does
    assert {leftover.kind for leftover in leftovers(info.tag)} >= {"process", "namespace", "link"}
    down = [sys.executable, "-m", "providers.sandbox", "down", "--state", str(tmp_path / "state")]
    assert subprocess.run(down, timeout=10, check=False).returncode == 0
    gone(info, seconds=0.1)
    assert subprocess.run(down, timeout=10, check=False).returncode == 0
    supervisor.stop(tmp_path / "state")


def test_the_next_sandbox_in_the_same_folder_clears_what_was_killed(tmp_path: Path) -> None:
    state = tmp_path / "state"
    first = running(state)
    pids = tagged(lambda tag: tag == first.tag)
    for pid in pids:
        with suppress(ProcessLookupError):  # it has followed another already
            os.kill(pid, signal.SIGKILL)
    supervisor._started.pop(state.resolve()).wait(timeout=5)
    second = supervisor.start(state, providers=["harbor"])
    assert second.tag != first.tag
    assert leftovers(first.tag) == []
    assert supervisor.stop(state) == []


def test_the_sandbox_goes_with_the_process_that_started_it(tmp_path: Path) -> None:
    state = tmp_path / "state"
    script = (
        "import sys, time; from pathlib import Path; from providers.sandbox import supervisor;"
        "supervisor.start(Path(sys.argv[1]), providers=['harbor']); print('up', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(state)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "up\n"
        info = SandboxInfo.load(state)
        parent.kill()
    gone(info, seconds=5)


def test_a_kill_while_it_is_still_starting_leaves_nothing(tmp_path: Path) -> None:
    state, tag = tmp_path / "state", "sw0ddba1"
    command = [sys.executable, "-m", "providers.sandbox", "up", "--state", str(state), "--providers", "harbor"]
    for delay in (0.05, 0.6, 1.2):
        with subprocess.Popen(
            command, env=os.environ | {MARKER: tag}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            time.sleep(delay)
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=6)
        eventually(lambda: leftovers(tag) == [], seconds=5, what=f"left over: {leftovers(tag)}")


def test_one_state_folder_holds_one_sandbox(tmp_path: Path) -> None:
    state = tmp_path / "state"
    info = supervisor.start(state, providers=["harbor"])
    up = [sys.executable, "-m", "providers.sandbox", "up", "--state", str(state), "--providers", "harbor"]
    second = subprocess.run(up, capture_output=True, text=True, timeout=20, check=False)
    assert second.returncode == StateInUse.exit_code
    assert "already runs" in second.stderr
    assert SandboxInfo.load(state) == info
    assert supervisor.stop(state) == []


def test_a_server_that_does_not_start_is_an_error_with_its_log(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / "logs").write_text("in the way of the log folder")
    with pytest.raises(ServerFailed, match="did not start"):
        supervisor.start(state, providers=["harbor"])
    assert not (state / "sandbox.json").exists()
    with pytest.raises((UsageError, ServerFailed), match="unknown sandbox providers: oracle"):
        supervisor.start(tmp_path / "other", providers=["oracle"])
