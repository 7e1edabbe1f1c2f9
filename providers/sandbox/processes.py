"""Finding and ending the processes of one sandbox, however they were forked.

Everything a sandbox starts carries its tag in the environment (``SHARDWRIGHT_SANDBOX``), sits in one of its network
namespaces, or in one of its cgroups. A pid alone is never trusted: membership is looked up again right before a signal.
Standard library only: the reaper imports this and must stay small.
"""

import os
import signal
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

MARKER = "SHARDWRIGHT_SANDBOX"
"""Environment variable whose value is the sandbox's tag."""
NODE_MARKER = "SHARDWRIGHT_SANDBOX_NODE"
"""TAG/NAME, for what runs on one node."""

_PROC = Path("/proc")
_NETNS = Path("/run/netns")


def all_pids() -> list[int]:
    return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]


def is_zombie(pid: int) -> bool:
    """Dead but not yet waited for by its parent; also True for one that is gone."""
    try:
        stat = (_PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return True
    return stat.rpartition(b")")[2].split()[0] in (b"Z", b"X")


def environment_value(pid: int, variable: str) -> str | None:
    """One variable of the process's environment; None where it is not set or may not be read."""
    try:
        environment = (_PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return None
    start = variable.encode() + b"="
    for entry in environment.split(b"\0"):
        if entry.startswith(start):
            return entry[len(start) :].decode(errors="replace")
    return None


def namespace_names(prefix: str) -> list[str]:
    try:
        return sorted(entry.name for entry in _NETNS.iterdir() if entry.name.startswith(prefix))
    except OSError:
        return []


def namespace_inodes(names: Iterable[str]) -> set[int]:
    inodes = set()
    for name in names:
        try:
            inodes.add((_NETNS / name).stat().st_ino)
        except OSError:
            continue
    return inodes


def in_namespaces(inodes: Collection[int]) -> set[int]:
    """Pids whose network namespace is one of ``inodes``."""
    found = set()
    for pid in all_pids() if inodes else ():
        try:
            if (_PROC / str(pid) / "ns/net").stat().st_ino in inodes:
                found.add(pid)
        except OSError:
            continue
    return found


def in_cgroups(folders: Iterable[Path]) -> set[int]:
    found: set[int] = set()
    for folder in folders:
        for procs in folder.rglob("cgroup.procs"):
            try:
                found.update(int(pid) for pid in procs.read_text().split())
            except OSError:
                continue
    return found


def tagged(wanted: Callable[[str], bool], variable: str = MARKER) -> dict[int, str]:
    """{pid: value} of every living process whose value of ``variable`` is wanted."""
    values = ((pid, environment_value(pid, variable)) for pid in all_pids())
    return {pid: value for pid, value in values if value is not None and wanted(value) and not is_zombie(pid)}


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Gone already = success."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            continue


def end_all(find: Callable[[], set[int]], *, grace_seconds: float, limit_seconds: float = 3.0) -> set[int]:
    """SIGTERM, then SIGKILL after the grace, until ``find`` finds nobody; the survivors (normally none).

    ``find`` is asked again before every round of signals, so a fork that raced the first round is caught too.
    """
    started = time.monotonic()
    terminated: set[int] = set()
    while pids := find():
        elapsed = time.monotonic() - started
        if elapsed >= grace_seconds + limit_seconds:
            return pids
        if elapsed >= grace_seconds:
            send(pids, signal.SIGKILL)
        else:
            send(pids - terminated, signal.SIGTERM)
            terminated |= pids
        time.sleep(0.02)
    return set()
