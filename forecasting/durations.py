"""Durations as people write them: 5min, 30min, 1h, 24h, 7d."""

import re
from datetime import timedelta

from engine.errors import UsageError

UNITS = {
    "s": timedelta(seconds=1),
    "min": timedelta(minutes=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}


def parse_duration(text: str) -> timedelta:
    """``1h`` -> one hour; a bare unit means one of it. Raises UsageError for anything else, or for zero."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)?\s*(s|min|m|h|d)\s*", text.lower())
    span = float(match[1] or 1) * UNITS[match[2]] if match else timedelta(0)
    if span <= timedelta(0):
        raise UsageError(
            f"{text!r} is not a duration",
            why="a duration is a number and one of s, min, h, d",
            next_step="write for example 5min, 1h or 7d",
        )
    return span


def in_words(span: timedelta) -> str:
    """``hour``, ``3 hours``, ``30 minutes``: to follow "within the next"."""
    seconds = span.total_seconds()
    for name, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= size and seconds % size == 0:
            count = int(seconds // size)
            return name if count == 1 else f"{count} {name}s"
    return f"{seconds:g} seconds"


def roughly(span: timedelta) -> str:
    """``3.5 hours``, ``2 days``, ``1 minute``: an age or a length, to about two digits."""
    seconds = span.total_seconds()
    for name, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if abs(seconds) >= size:
            count = seconds / size
            return _counted(round(count, 1) if abs(count) < 10 else round(count), name)
    return _counted(round(seconds), "second")


def _counted(count: float, name: str) -> str:
    return f"{count:g} {name}" if count == 1 else f"{count:g} {name}s"
