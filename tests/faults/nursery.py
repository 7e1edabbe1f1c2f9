"""The test's side of tests.faults.control_nursery: control planes as processes to wait for, read and kill."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from providers.sandbox.processes import send, tagged
from tests.faults.control_nursery import LOADED, MARKER, Order, Report
from tests.sandbox_runs import eventually

ROOT = Path(__file__).resolve().parents[2]
LOAD_SECONDS = 120.0


class Nursery:
    """Starts control planes and knows how they ended."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.control_nursery"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._ended: dict[int, int] = {}
        self._started: list[int] = []
        self._loaded = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.strip() == LOADED:
                self._loaded.set()
                continue
            report = Report.model_validate_json(line)
            if report.status is None:
                self._started.append(report.pid)
            else:
                self._ended[report.pid] = report.status

    def start(self, order: Order) -> int:
        """The pid."""
        assert self._loaded.wait(LOAD_SECONDS), "the parts do not load"
        assert self._process.stdin is not None
        before = len(self._started)
        self._process.stdin.write(order.model_dump_json() + "\n")
        self._process.stdin.flush()
        eventually(lambda: len(self._started) > before, what="the control plane is forked")
        return self._started[before]

    def status(self, pid: int) -> int | None:
        """Exit code, or minus the signal that killed it; None while it runs."""
        return self._ended.get(pid)

    def close(self) -> None:
        for pid in set(self._started) - set(self._ended):
            os.kill(pid, signal.SIGKILL)
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._reader.join(10)
        assert self._process.stdout is not None
        self._process.stdout.close()


class ControlRun:
    """One control plane process, its output in ``log``."""

    def __init__(self, nursery: Nursery, order: Order) -> None:
        self._log, self._marker, self._nursery = order.log, order.marker, nursery
        self.pid = nursery.start(order)

    def said(self) -> str:
        return self._log.read_text(encoding="utf-8") if self._log.exists() else ""

    def wait(self, seconds: float = 120.0) -> int:
        """Exit code, or minus the signal that killed it."""
        deadline = time.monotonic() + seconds
        while (status := self._nursery.status(self.pid)) is None:
            assert time.monotonic() < deadline, f"not ended within {seconds:g} s:\n{self.said()}"
            time.sleep(0.02)
        return status

    def wait_to_say(self, text: str, seconds: float = 90.0) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.said():
            assert self._nursery.status(self.pid) is None, f"ended before {text!r}:\n{self.said()}"
            assert time.monotonic() < deadline, f"no {text!r} within {seconds:g} s:\n{self.said()}"
            time.sleep(0.02)

    def interrupt(self) -> int:
        """Ctrl-C."""
        os.kill(self.pid, signal.SIGINT)
        return self.wait(30)

    def left_behind(self) -> list[str]:
        """Command lines of what it started and is still there."""
        return [command_line(pid) for pid in self._children()]

    def end(self) -> None:
        """Whatever a failed test has left of it."""
        if self._nursery.status(self.pid) is None:
            send([self.pid], signal.SIGKILL)
        send(self._children(), signal.SIGKILL)

    def _children(self) -> list[int]:
        return list(tagged(lambda value: value == self._marker, MARKER))


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
