"""One process as /proc shows it. Standard library alone: the watchdog must never need what the agent needs."""

from pathlib import Path


def look(pid: int) -> tuple[str, int] | None:
    """(state as one letter, when it began in ticks since boot); None when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else (fields[0], int(fields[19]))
