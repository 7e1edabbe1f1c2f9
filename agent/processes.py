"""One process as /proc shows it. Standard library alone: the watchdog must never need what the agent needs."""

import os
from pathlib import Path


def look(pid: int) -> tuple[str, int] | None:
    """(state as one letter, when it began in ticks since boot); None when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else (fields[0], int(fields[19]))


def remove_scratch(folder: Path, *, mine: bool = False) -> None:
    """Remove the files ``.NAME.PID`` that processes which are dead have left half.

    ``mine``: also what an earlier process with the number of this one has left.
    """
    for scratch in folder.glob(".*.*"):
        pid = scratch.suffix[1:]
        if pid.isdecimal() and (look(int(pid)) is None or (mine and int(pid) == os.getpid())):
            scratch.unlink(missing_ok=True)
