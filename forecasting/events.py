"""Scheduled events (a launch, a promotion, a match) that are known before they happen, as covariates of a forecast.

The file is CSV: ``start, end, name`` and, optionally, ``series`` and ``region``: which ones it touches, several joined
by ``;``, with ``*`` as in file names; empty: all of them.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from engine.errors import BadUsageData
from engine.model.value import Utc, Value
from forecasting.base import Array

REQUIRED = ("start", "end", "name")
OPTIONAL = ("series", "region")
LONGEST = timedelta(days=366)
_MOST_TOLD = 10
_FORM = "write start and end as ISO 8601 with a zone, such as 2026-11-27T08:00:00Z"


class ScheduledEvent(Value):
    """``start`` <= t < ``end``; ``series`` and ``regions`` are patterns, empty for all."""

    name: str
    start: Utc
    end: Utc
    series: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()

    def touches(self, series_id: str, region: str | None = None) -> bool:
        """A series without a known region is touched by events of all regions."""
        return _any(series_id, self.series) and (region is None or _any(region, self.regions))


def read_events(path: Path) -> tuple[ScheduledEvent, ...]:
    """In the order of their start. Raises BadUsageData that names the bad rows, counted from 1 below the header.

    Refused are: a missing column, a time that cannot be read or has no zone, an end that is not after the start, an
    event of more than a year, an empty name, and the same event twice.
    """
    rows = _rows(path)
    events: set[ScheduledEvent] = set()
    problems: list[str] = []
    for number, row in enumerate(rows, start=1):
        try:
            event = _event(row)
            if event in events:
                raise ValueError(f"{event.name!r} is there twice")
            events.add(event)
        except ValueError as problem:
            problems.append(f"row {number}: {problem}")
    if problems:
        more = f"; and {len(problems) - _MOST_TOLD} more" if len(problems) > _MOST_TOLD else ""
        raise BadUsageData(
            f"{len(problems)} of {len(rows)} events in {path} cannot be used",
            why="; ".join(problems[:_MOST_TOLD]) + more,
            next_step=_FORM,
        )
    return tuple(sorted(events, key=lambda event: (event.start, event.name)))


def event_shares(
    events: Sequence[ScheduledEvent], series_id: str, region: str | None, start: datetime, freq: timedelta, steps: int
) -> Mapping[str, Array]:
    """By event name, shape (steps,): the share of each step that events of that name cover, 0 to 1.

    Known for the past and the future alike. Names that do not touch the series or the span are left out.
    """
    found: dict[str, Array] = {}
    for event in events:
        if not event.touches(series_id, region):
            continue
        first, last = (event.start - start) / freq, (event.end - start) / freq
        edges = np.arange(steps, dtype=np.float64)
        share = np.clip(np.minimum(last, edges + 1) - np.maximum(first, edges), 0.0, 1.0)
        if share.any():
            found[event.name] = np.minimum(found.get(event.name, np.zeros(steps)) + share, 1.0)
    return found


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restval="", skipinitialspace=True, strict=True)
            names = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = names
            missing = [name for name in REQUIRED if name not in names]
            unknown = [name for name in names if name not in (*REQUIRED, *OPTIONAL)]
            if missing or unknown:
                raise BadUsageData(
                    f"{path} is not a file of events",
                    why=f"it lacks {', '.join(missing)}" if missing else f"it has the unknown column {unknown[0]!r}",
                    next_step=f"name the columns {', '.join((*REQUIRED, *OPTIONAL))}",
                )
            return list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        reason = problem.strerror if isinstance(problem, OSError) and problem.strerror else str(problem)
        raise BadUsageData(f"the events in {path} cannot be read", why=reason, next_step="give a CSV file") from problem


def _event(row: Mapping[str, str]) -> ScheduledEvent:
    """Raises ValueError saying what is wrong with the row."""
    if None in row:
        raise ValueError("it has more cells than there are columns")
    name = row["name"].strip()
    if not name:
        raise ValueError("it has no name")
    start, end = _moment(row["start"], "start"), _moment(row["end"], "end")
    if end <= start:
        raise ValueError(f"it ends at {end:%Y-%m-%dT%H:%MZ}, not after its start")
    if end - start > LONGEST:
        raise ValueError(f"it lasts {(end - start).days} days; more than a year is no event")
    return ScheduledEvent(
        name=name,
        start=start,
        end=end,
        series=tuple(_patterns(row.get("series", ""))),
        regions=tuple(_patterns(row.get("region", ""))),
    )


def _moment(text: str, column: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError(f"its {column} {text.strip()[:40]!r} is not a time") from None
    if moment.tzinfo is None:
        raise ValueError(f"its {column} {text.strip()!r} has no zone")
    return moment.astimezone(UTC)


def _patterns(text: str) -> Iterator[str]:
    yield from (part.strip() for part in text.split(";") if part.strip())


def _any(name: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)
