"""What can be mended in a usage history, and the name of each mending."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from engine.errors import BadUsageData
from engine.model.value import Value
from forecasting.base import Array
from forecasting.usage_times import Flags, Micros, moments

MOST_DOUBLED = 0.5
"""When more moments than this share have two different values, one id names two series."""

Defect = Literal[
    "no_timestamp",
    "naive_timestamp",
    "other_time_zone",
    "time_zone_change",
    "future",
    "unsorted",
    "duplicate",
    "infinite",
    "negative",
    "missing_value",
    "off_grid",
    "resampled",
    "coarser",
    "gap",
]


class Repair(Value):
    """``count`` samples (gap: steps) of a series had the defect; ``action`` says what was done about it."""

    series_id: str
    defect: Defect
    count: int
    action: str
    first_row: int | None = None
    """Where it is first met, counted from 1 below the header; None for defects between rows."""


@dataclass(frozen=True)
class Samples:
    """Arrays of one length. ``series``: index into ``names``; ``row`` counts from 1 below the header."""

    names: tuple[str, ...]
    series: NDArray[np.int64]
    micros: Micros
    values: Array
    row: NDArray[np.int64]

    def of(self, which: "Flags | NDArray[np.int64] | slice") -> "Samples":
        return Samples(self.names, self.series[which], self.micros[which], self.values[which], self.row[which])


def mended(table: pd.DataFrame, origin: str, *, now: datetime | None) -> tuple[Samples, list[Repair]]:
    """``series_id, timestamp, value`` -> samples by series and time, unique, finite or NaN; with what was mended.

    With ``now``, samples from the future are left out. Raises BadUsageData for a timestamp that cannot be read and for
    an id that names two series, with the row.
    """
    codes, names = pd.factorize(table["series_id"])
    when = moments(table["timestamp"], origin)
    values = table["value"].to_numpy(dtype=np.float64)
    samples = Samples(
        tuple(str(n) for n in names), codes.astype(np.int64), when.micros, values, np.arange(1, len(table) + 1)
    )
    notes = _Notes(samples.names)
    notes.add(samples, when.absent, "no_timestamp", "left out: a sample without a time has no place")
    notes.add(samples, when.naive, "naive_timestamp", "taken as UTC")
    moved = ~when.absent & ~when.naive & (when.offset != 0)
    notes.add(samples, moved, "other_time_zone", "converted to UTC")
    changed = _changes(samples, when.offset, ~when.absent & ~when.naive)
    notes.add(samples, changed, "time_zone_change", "each sample was converted by its own offset")
    future = np.zeros(len(values), dtype=np.bool_)
    if now is not None:
        future = ~when.absent & (when.micros > int(now.timestamp() * 1_000_000))
        notes.add(samples, future, "future", "left out: it cannot have been measured yet")
    below = np.isfinite(values) & (values < 0)
    notes.add(samples, np.isinf(values), "infinite", "counted as not measured")
    notes.add(samples, below, "negative", "counted as not measured: usage is never below zero")
    notes.add(samples, np.isnan(values) & ~when.absent, "missing_value", "kept as not measured")
    samples = Samples(samples.names, samples.series, samples.micros,
                      np.where(np.isfinite(values) & ~below, values, np.nan), samples.row)  # fmt: skip
    kept = samples if not (when.absent | future).any() else samples.of(~(when.absent | future))
    if not len(kept.row):
        why = "every sample lies in the future" if future.any() else "no row has a timestamp"
        raise BadUsageData(f"{origin} holds no usable rows", why=why, next_step="give timestamps of past usage")
    return _unique(_sorted(kept, notes), notes, origin), notes.repairs


class _Notes:
    def __init__(self, names: Sequence[str]) -> None:
        self._names, self.repairs = names, list[Repair]()

    def add(self, samples: Samples, which: Flags, defect: Defect, action: str) -> None:
        if not which.any():
            return
        series, row = samples.series[which], samples.row[which]
        counts = np.bincount(series, minlength=len(self._names))
        first = np.full(len(self._names), np.iinfo(np.int64).max)
        np.minimum.at(first, series, row)
        self.repairs += [
            Repair(
                series_id=self._names[code],
                defect=defect,
                count=int(counts[code]),
                action=action,
                first_row=int(first[code]),
            )
            for code in np.flatnonzero(counts).tolist()
        ]


def _changes(samples: Samples, offset: NDArray[np.int32], zoned: Flags) -> Flags:
    """Samples whose offset differs from that of the sample of their series before them in the file."""
    changed = np.zeros(len(offset), dtype=np.bool_)
    if not (offset[zoned] != 0).any():
        return changed
    at = np.flatnonzero(zoned)
    at = at[np.argsort(samples.series[at], kind="stable")]
    same = samples.series[at][1:] == samples.series[at][:-1]
    changed[at[1:]] = same & (offset[at][1:] != offset[at][:-1])
    return changed


def _sorted(samples: Samples, notes: _Notes) -> Samples:
    """By series and time; among equals in the order of the file."""
    if (np.diff(samples.series) < 0).any():
        samples = samples.of(np.argsort(samples.series, kind="stable"))
    within = np.diff(samples.series, prepend=-1) == 0
    back = within & (np.diff(samples.micros, prepend=0) < 0)
    if not back.any():
        return samples
    notes.add(samples, back, "unsorted", "sorted by time")
    return samples.of(np.lexsort((samples.row, samples.micros, samples.series)))


def _unique(samples: Samples, notes: _Notes, origin: str) -> Samples:
    """The last of each moment."""
    same = (np.diff(samples.series) == 0) & (np.diff(samples.micros) == 0)
    if not same.any():
        return samples
    doubled = np.append(same, False)
    _refuse_two_in_one(samples, same, origin)
    notes.add(samples, doubled, "duplicate", "the last one of each moment was kept")
    return samples.of(~doubled)


def _refuse_two_in_one(samples: Samples, same: Flags, origin: str) -> None:
    """Keeping the last would forecast only one of the two, and whichever comes last in the file."""
    values = samples.values
    differing = same & (np.abs(values[1:] - values[:-1]) > 1e-9 * np.maximum(np.abs(values[1:]), np.abs(values[:-1])))
    if not differing.any():
        return
    conflicts = np.bincount(samples.series[1:][differing], minlength=len(samples.names))
    moments_of = np.bincount(samples.series[np.append(~same, True)], minlength=len(samples.names))
    both = (conflicts > MOST_DOUBLED * moments_of) & (conflicts >= 3)
    if not both.any():
        return
    code = int(np.flatnonzero(both)[0])
    at = int(np.flatnonzero(differing & (samples.series[1:] == code))[0])
    raise BadUsageData(
        f"the id {samples.names[code]!r} of {origin} names two series",
        why=f"{conflicts[code]} of {moments_of[code]} moments have two different values, first in rows "
        f"{samples.row[at]} and {samples.row[at + 1]}",
        next_step="give each series an id of its own, or add them up before",
    )
