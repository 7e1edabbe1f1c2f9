"""The test's side of tests.faults.mover_nursery: controllers of moves to hold in a phase, to kill and to hear out."""

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from engine.migration.base import MoveLimits
from engine.model.move import MovePhase, MoveReport, MoveRequest
from tests.faults.mover_nursery import LOADED, Order

_ROOT = Path(__file__).resolve().parents[2]
_LOAD_SECONDS = 120.0

QUICK_LIMITS = MoveLimits(
    reserve_ttl=60, mirror_at_least=20, precopy=20, stall=4, switch=8, deadline_reserve=2, unreachable=4, prepare=30
)
"""A tenth to a half of the usual ones, so that a fault is waited out in seconds."""


class MoverNursery:
    def __init__(self) -> None:
        self._link, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.mover_nursery"], cwd=_ROOT, stdin=theirs.fileno()
            )
        self._link.settimeout(_LOAD_SECONDS)
        assert self._link.recv(len(LOADED)) == LOADED

    def start(
        self, folder: Path, request: MoveRequest, *, wait_in: MovePhase | None = None, limits: MoveLimits = QUICK_LIMITS
    ) -> "Mover":
        said, says = os.pipe()
        listens, tell = os.pipe()
        order = Order(folder=folder, request=request, wait_in=wait_in, limits_json=limits.model_dump_json())
        socket.send_fds(self._link, [order.model_dump_json().encode()], [says, listens])
        os.close(says)
        os.close(listens)
        pid = int(self._link.recv(32))
        return Mover(pid, said, tell)

    def close(self) -> None:
        self._link.close()
        self._process.wait(20)


class Mover:
    """One controller process."""

    def __init__(self, pid: int, said: int, tell: int) -> None:
        self._pid, self._said, self._tell = pid, said, tell
        self._pending, self.ended = b"", False
        self.report: MoveReport | None = None
        self.phases: list[MovePhase] = []

    def wait_for(self, phase: MovePhase, seconds: float = 60.0) -> bool:
        """False when it ended before it came there. Raises AssertionError when neither happens in time."""
        return self._read_until(lambda: phase in self.phases, seconds)

    def hear_out(self, seconds: float = 120.0) -> MoveReport | None:
        """Its report; None when it was killed."""
        self._read_until(lambda: False, seconds)
        self.close()
        return self.report

    def go_on(self) -> None:
        """Out of the phase in which it was to wait; one that has ended waits nowhere."""
        if self._tell < 0:
            return
        try:
            os.write(self._tell, b".")
        except BrokenPipeError:
            return

    def kill(self) -> None:
        if not self.ended:
            os.kill(self._pid, signal.SIGKILL)
        self._read_until(lambda: False, 20)
        self.close()

    def close(self) -> None:
        for descriptor in (self._said, self._tell):
            if descriptor >= 0:
                os.close(descriptor)
        self._said = self._tell = -1

    def _read_until(self, enough: Callable[[], bool], seconds: float) -> bool:
        end = time.monotonic() + seconds
        while not enough():
            if self.ended:
                return False
            left = end - time.monotonic()
            if left <= 0 or not select.select([self._said], [], [], left)[0]:
                raise AssertionError(f"the controller has said nothing more for {seconds:g} s: {self.phases}")
            data = os.read(self._said, 65536)
            self.ended = not data
            *lines, self._pending = (self._pending + data).split(b"\n")
            for line in lines:
                if line.startswith(b"{"):
                    self.report = MoveReport.model_validate_json(line)
                else:
                    self.phases.append(MovePhase(line.decode()))
        return True
