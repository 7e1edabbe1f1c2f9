import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from engine.app.leaving import end_children, interruptible, undisturbed

SHELL = ["/bin/sh", "-c", "sleep 600 & echo $!; wait"]
STUBBORN = [sys.executable, "-c", "import signal, sys, time\nsignal.signal(15, signal.SIG_IGN)\nprint(0, flush=True)\n"]


@contextmanager
def handled(number: signal.Signals, handler: signal.Handlers) -> Iterator[None]:
    """However the tests themselves were started."""
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_being_told_to_end_is_an_interrupt(number: signal.Signals) -> None:
    with handled(number, signal.SIG_DFL):
        with pytest.raises(KeyboardInterrupt), interruptible():
            os.kill(os.getpid(), number)
        assert signal.getsignal(number) == signal.SIG_DFL


def test_in_the_background_an_interrupt_is_one_too() -> None:
    """A shell without job control starts such commands with SIGINT ignored."""
    with handled(signal.SIGINT, signal.SIG_IGN):
        with pytest.raises(KeyboardInterrupt), interruptible():
            os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_under_nohup_a_closed_terminal_ends_nothing() -> None:
    with handled(signal.SIGHUP, signal.SIG_IGN), interruptible():
        os.kill(os.getpid(), signal.SIGHUP)


def test_cleaning_up_is_not_disturbed() -> None:
    before = signal.getsignal(signal.SIGINT)
    with undisturbed():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGINT) is before


def test_children_end_with_their_own_but_for_the_spared() -> None:
    mine = set(psutil.Process().children())
    with (
        subprocess.Popen(SHELL, stdout=subprocess.PIPE, text=True) as shell,
        subprocess.Popen(["/bin/sleep", "600"]) as spared,
    ):
        assert shell.stdout is not None
        grandchild = int(shell.stdout.readline())
        end_children(spared={spared.pid, *(process.pid for process in mine)})
        assert shell.wait(timeout=5) is not None
        assert not psutil.pid_exists(grandchild) or psutil.Process(grandchild).status() == psutil.STATUS_ZOMBIE
        assert spared.poll() is None
        spared.kill()


def test_a_child_that_does_not_listen_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.app.leaving._CHILD_SECONDS", 0.2)
    mine = {process.pid for process in psutil.Process().children()}
    with subprocess.Popen([*STUBBORN[:2], f"{STUBBORN[2]}time.sleep(600)"], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        end_children(spared=mine)
        assert not psutil.pid_exists(child.pid)


def test_what_threads_begin_while_their_process_leaves_goes_with_it(tmp_path: Path) -> None:
    """As a thread does whose engine was ended: it asks another one what has become of the first."""
    script = """
import subprocess, sys, threading, time
from engine.app.leaving import leave

def busy():
    for _ in range(4):
        subprocess.run(["/bin/sleep", "600"])

threading.Thread(target=busy, daemon=True).start()
time.sleep(0.2)
leave(7)
"""
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    assert subprocess.run([sys.executable, "-c", script], env=environment, timeout=60, check=False).returncode == 7
    left = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("TMPDIR") == str(tmp_path):
                left.append(process.cmdline())
    assert left == []
