"""Stops guests whose run lease has run out, even where the agent hangs or is dead: a process of its own.

    python -m agent.watchdog LEASES

``LEASES`` is a folder with one file a shard: the lease's end on CLOCK_BOOTTIME, and the guest's process by pid and
start time. A guest past the end is stopped (SIGSTOP), one whose lease was renewed goes on (SIGCONT). Ends when another
watchdog serves the folder, or with the folder. Standard library alone: it must stay small, and never need what the
agent needs.
"""

import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path

from agent import processes

EVERY_SECONDS = 0.25
EARLY_SECONDS = 2.0
"""A guest is stopped this long before its lease ends: the control plane may start it elsewhere from then on."""
LOCK_NAME = ".watchdog"
_STANDARD_ERROR = 2
_LOCK_TRIES, _LOCK_SECONDS = 20, 0.02


@dataclass(frozen=True)
class Lease:
    ends: float
    """Seconds on CLOCK_BOOTTIME, which counts a suspended host too."""
    pid: int
    start_ticks: int

    def written(self) -> str:
        return f"{self.ends:.3f} {self.pid} {self.start_ticks}\n"

    @classmethod
    def read(cls, text: str) -> "Lease":
        """Raises ValueError."""
        ends, pid, ticks = text.split()
        return cls(float(ends), int(pid), int(ticks))


def boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def process_state(lease: Lease) -> str | None:
    """The letter that /proc shows, T for stopped; None: that very process is gone."""
    found = processes.look(lease.pid)
    return None if found is None or found[1] != lease.start_ticks else found[0]


def enforce(folder: Path, now: float) -> dict[str, str]:
    """One look at every lease; what was done to which shard: stopped or continued."""
    done: dict[str, str] = {}
    for file in sorted(folder.glob("[!.]*")):
        try:
            lease = Lease.read(file.read_text())
        except (OSError, ValueError):
            continue
        state = process_state(lease)
        if state is None:
            continue
        over = now >= lease.ends - EARLY_SECONDS
        if over != (state == "T"):
            with suppress(ProcessLookupError):
                os.kill(lease.pid, signal.SIGSTOP if over else signal.SIGCONT)
                done[file.name] = "stopped" if over else "continued"
    return done


def served(folder: Path) -> bool:
    """Whether a watchdog runs for the folder: one holds the lock for as long as it lives. Raises OSError."""
    handle = _take(folder)
    if handle is not None:
        os.close(handle)
    return handle is None


def _take(folder: Path) -> int | None:
    """The lock; None: somebody has it."""
    handle = os.open(folder / LOCK_NAME, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        flock(handle, LOCK_EX | LOCK_NB)
    except OSError as problem:
        os.close(handle)
        if isinstance(problem, BlockingIOError):
            return None
        raise
    return handle


def _begin(folder: Path) -> int | None:
    """The lock; None: another watchdog has it. An agent that looks at it (``served``) has it for a moment only."""
    for _ in range(_LOCK_TRIES):
        handle = _take(folder)
        if handle is not None:
            return handle
        time.sleep(_LOCK_SECONDS)
    return None


def _tell(line: str) -> None:
    """Where it can be told: a full disk under the log must not end whoever enforces the leases."""
    with suppress(OSError):
        os.write(_STANDARD_ERROR, f"{line}\n".encode())  # as it is: what a buffer keeps is tried again with every line


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    if _begin(folder) is None:
        return 0
    while folder.exists():
        for shard, what in enforce(folder, boottime()).items():
            _tell(f"watchdog: shard {shard} {what}")
        time.sleep(EVERY_SECONDS)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
