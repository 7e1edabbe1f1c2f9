"""A connector brings samples in batches; whoever keeps a batch keeps its cursor with it, and goes on from there."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from engine.errors import AnswerTooLarge, BadUsageData

OVERLAP_STEPS = 3
"""So many steps before the cursor are asked for again: monitoring systems deliver late. The newest answer counts."""
MOST_HALVINGS = 8
"""Of a span whose answer is too large: what pages for ever is not asked for every step by itself."""


@dataclass(frozen=True)
class Batch:
    """``rows``: series_id, timestamp, value. ``replaces``: what was kept before is no longer part of the source."""

    rows: pd.DataFrame
    cursor: str
    replaces: bool = False


class Connector(Protocol):
    def batches(self, cursor: str | None, until: datetime) -> Iterator[Batch]:
        """What came after ``cursor`` (None: everything there is to get), oldest first, up to ``until``.

        Each batch may be kept before the next is asked for, and stopping after any of them loses nothing. The same
        cursor may be given again. Raises BadUsageData, AuthenticationFailed or ProviderError; calls are bounded in
        time.
        """
        ...


class Wire(BaseModel):
    """A part of an answer: what is read is checked, what is not read is left aside."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, populate_by_name=True)


W = TypeVar("W", bound=BaseModel)


class Get(Protocol):
    """One GET of a JSON answer, with time-outs, bounded retries and credentials; ``path`` begins with a slash."""

    def __call__(self, answer: type[W], path: str, params: Mapping[str, str | int], /) -> W: ...


class AskAws(Protocol):
    """One call of an AWS operation, with time-outs, bounded retries and credentials; its answer is checked."""

    def __call__(self, answer: type[W], service: str, region: str, operation: str, **arguments: Any) -> W: ...


@dataclass(frozen=True)
class Span:
    """``start`` <= t < ``end``, both on the grid of the step."""

    start: datetime
    end: datetime


def spans(cursor: str | None, until: datetime, *, step: timedelta, back: timedelta, most_steps: int) -> Iterator[Span]:
    """Whole steps from the cursor (or ``back`` before ``until``) to ``until``, at most so many steps at once.

    Raises BadUsageData for a cursor that is not a time.
    """
    end = _floor(until, step)
    start = _floor(until - back, step) if cursor is None else _floor(_read(cursor), step) - OVERLAP_STEPS * step
    if cursor is not None and end <= _read(cursor):
        return
    while start < end:
        stop = min(start + most_steps * step, end)
        yield Span(start, stop)
        start = stop


T = TypeVar("T")


def in_halves(span: Span, step: timedelta, ask: Callable[[Span], T]) -> Iterator[tuple[Span, T]]:
    """The span's answer, or those of its halves (of their halves …) where it has too many series for one answer.

    Raises AnswerTooLarge where that does not help.
    """
    pending = [(span, MOST_HALVINGS)]
    while pending:
        part, halvings = pending.pop()
        try:
            found = ask(part)
        except AnswerTooLarge:
            first = (part.end - part.start) // step // 2
            if not (first and halvings):
                raise
            middle = part.start + first * step
            pending += [(Span(middle, part.end), halvings - 1), (Span(part.start, middle), halvings - 1)]
        else:
            yield part, found


def series_id_of(chosen: Sequence[str], labels: Mapping[str, str], *, hidden: str, otherwise: str) -> str:
    """The values of the chosen labels, joined by ``/``. Where none is chosen, or the series has none of them, all its
    labels but the hidden one as ``name=value``; ``otherwise`` where it has no label at all."""
    joined = "/".join(labels.get(name, "") for name in chosen)
    if joined.strip():
        return joined
    spelt = ",".join(f"{name}={value}" for name, value in sorted(labels.items()) if name != hidden)
    return spelt if spelt.strip() else otherwise


def written(moment: datetime) -> str:
    """RFC 3339 in UTC; also the form of cursors."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def frame(series: Iterable[tuple[str, Sequence[datetime] | Sequence[float], Sequence[float]]]) -> pd.DataFrame:
    """(id, times or seconds since 1970, values) of each series -> rows."""
    ids: list[str] = []
    seconds: list[float] = []
    values: list[float] = []
    for series_id, times, measured in series:
        ids += [series_id] * len(measured)
        seconds += [time.timestamp() if isinstance(time, datetime) else time for time in times]
        values += measured
    micros = np.round(np.array(seconds, dtype=np.float64) * 1e6).astype("datetime64[us]")
    return pd.DataFrame(
        {
            "series_id": pd.Series(ids, dtype="str"),
            "timestamp": pd.Series(micros).dt.tz_localize("UTC"),
            "value": np.array(values, dtype=np.float64),
        }
    )


def require_unique(ids: Iterable[str], *, source: str, remedy: str) -> None:
    """Two series under one id would be mixed up. Raises BadUsageData."""
    seen: set[str] = set()
    for series_id in ids:
        if series_id in seen:
            raise BadUsageData(
                f"{source}: several series have the id {series_id!r}", why="ids must differ", next_step=remedy
            )
        seen.add(series_id)


def stop_paging(source: str) -> AnswerTooLarge:
    return AnswerTooLarge(f"{source}: the answer does not stop paging")


def _floor(moment: datetime, step: timedelta) -> datetime:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return epoch + (moment - epoch) // step * step


def _read(cursor: str) -> datetime:
    try:
        moment = datetime.fromisoformat(cursor)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise BadUsageData(f"the cursor {cursor!r} is not a time", why="the kept history is damaged")
    return moment
