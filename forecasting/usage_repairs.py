"""What can be mended in a usage history, and the name of each mending."""

from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from engine.errors import BadUsageData
from engine.model.value import Value
from forecasting.base import History

MOST_STEPS = 20_000_000
"""A longer grid for one series is a wrong timestamp, not a history."""

Defect = Literal[
    "no_timestamp",
    "naive_timestamp",
    "other_time_zone",
    "unsorted",
    "duplicate",
    "infinite",
    "negative",
    "missing_value",
    "off_grid",
    "resampled",
    "gap",
]


class Repair(Value):
    """``count`` samples (gap: steps) of a series had the defect; ``action`` says what was done about it."""

    series_id: str
    defect: Defect
    count: int
    action: str


def repaired_rows(rows: pd.DataFrame, path: Path) -> tuple[pd.DataFrame, list[Repair]]:
    """``series_id, timestamp, value, row`` -> sorted, unique, UTC, finite or NaN; with what was mended.

    Raises BadUsageData for a timestamp that cannot be read, naming its row.
    """
    repairs: list[Repair] = []

    def note(which: NDArray[np.bool_], defect: Defect, action: str) -> None:
        counts = rows.loc[which, "series_id"].value_counts(sort=False)
        repairs.extend(
            Repair(series_id=str(name), defect=defect, count=int(count), action=action)
            for name, count in counts.items()
        )

    moments, absent, naive, moved = _moments(rows, path)
    note(absent, "no_timestamp", "left out: a sample without a time has no place")
    note(naive, "naive_timestamp", "taken as UTC")
    note(moved, "other_time_zone", "converted to UTC")
    values = rows["value"].to_numpy()
    note(np.isinf(values), "infinite", "counted as not measured")
    note(np.isfinite(values) & (values < 0), "negative", "counted as not measured: usage is never below zero")
    note(np.isnan(values) & ~absent, "missing_value", "kept as not measured")
    rows = rows.assign(timestamp=moments, value=np.where(np.isfinite(values) & (values >= 0), values, np.nan))[~absent]
    if rows.empty:
        raise BadUsageData(f"{path} holds no usable rows", why="no row has a timestamp", next_step="give timestamps")
    back = (rows.groupby("series_id", sort=False)["timestamp"].diff() < pd.Timedelta(0)).to_numpy()
    note(back, "unsorted", "sorted by time")
    rows = rows.sort_values(["series_id", "timestamp", "row"], kind="stable")
    doubled = rows.duplicated(["series_id", "timestamp"], keep="last").to_numpy()
    note(doubled, "duplicate", "the last one of each moment was kept")
    return rows[~doubled], repairs


def _moments(
    rows: pd.DataFrame, path: Path
) -> tuple["pd.Series[Any]", NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """UTC times, and which were absent, naive, or in another zone."""
    raw = rows["timestamp"]
    if pd.api.types.is_datetime64_any_dtype(raw):
        return _typed_moments(raw)
    text = raw.astype(str).str.strip()
    absent = (raw.isna() | text.str.lower().isin(["", "nat", "nan", "none", "null"])).to_numpy()
    number = pd.to_numeric(text.where(~absent), errors="coerce").notna().to_numpy()
    if number.any():
        row = int(rows["row"].to_numpy()[np.argmax(number)])
        raise BadUsageData(
            f"row {row} of {path} holds a number as its timestamp",
            why=f"{text.iloc[int(np.argmax(number))]!r} may be seconds or milliseconds",
            next_step="write timestamps as ISO 8601 in UTC, such as 2026-01-31T13:00:00Z",
        )
    moments = pd.to_datetime(text.where(~absent), utc=True, errors="coerce", format="ISO8601")
    wrong = moments.isna().to_numpy() & ~absent
    if wrong.any():
        row = int(rows["row"].to_numpy()[np.argmax(wrong)])
        raise BadUsageData(
            f"row {row} of {path} holds no timestamp",
            why=f"{text.iloc[int(np.argmax(wrong))][:40]!r} cannot be read",
            next_step="write timestamps as ISO 8601 in UTC, such as 2026-01-31T13:00:00Z",
        )
    zone = text.str.extract(r"(Z|[+-]\d{2}:?\d{2})$", expand=False)
    naive = zone.isna().to_numpy() & ~absent
    utc = zone.isin(["Z", "+00:00", "+0000", "-00:00"]).to_numpy()
    return moments, absent, naive, ~utc & ~naive & ~absent


def _typed_moments(
    raw: "pd.Series[Any]",
) -> tuple["pd.Series[Any]", NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """A column of times has one zone, or none."""
    absent, everywhere = raw.isna().to_numpy(), np.ones(len(raw), dtype=np.bool_)
    zone = getattr(raw.dt, "tz", None)
    naive = ~absent & everywhere if zone is None else ~everywhere
    moved = ~absent & everywhere if zone is not None and str(zone) != "UTC" else ~everywhere
    return pd.to_datetime(raw, utc=True), absent, naive, moved


def on_grid(
    series_id: str, rows: pd.DataFrame, step: timedelta, path: Path, *, add_up: bool
) -> tuple[History, list[Repair]]:
    """One series, sorted and unique, on the grid of ``step`` (aligned to midnight UTC); gaps are NaN.

    Several samples in a step are averaged; with ``add_up`` (counts) the average times the samples a step should hold.
    """
    size = step.total_seconds()
    seconds = rows["timestamp"].astype("datetime64[us, UTC]").astype("int64").to_numpy() / 1e6
    values = rows["value"].to_numpy(dtype=np.float64)
    place = np.floor(seconds / size + 1e-9).astype(np.int64)
    steps = int(place[-1] - place[0]) + 1
    if steps > MOST_STEPS:
        raise BadUsageData(
            f"series {series_id!r} of {path} spans {steps} steps of {step}",
            why=f"from {rows['timestamp'].iloc[0]} to {rows['timestamp'].iloc[-1]}",
            next_step="mend the outlying timestamp, or give a longer --freq",
        )
    native = _native_step(seconds, size)
    _refuse_finer(series_id, native, size, path)
    at, measured = place - place[0], np.isfinite(values)
    counts = np.bincount(at[measured], minlength=steps)
    sums = np.bincount(at[measured], weights=values[measured], minlength=steps)
    expected = max(round(size / native), 1) if add_up else 1
    grid = np.where(counts > 0, sums / np.maximum(counts, 1) * expected, np.nan)
    start = pd.Timestamp(float(place[0]) * size, unit="s", tz="UTC").to_pydatetime()
    repairs = _grid_repairs(series_id, seconds, place, size, native, steps, add_up)
    return History(series_id, start, step, grid), repairs


def _native_step(seconds: NDArray[np.float64], size: float) -> float:
    """The most frequent distance between samples in seconds; the grid's own for a single sample."""
    if len(seconds) < 2:
        return size
    distances, counts = np.unique(np.round(np.diff(seconds), 3), return_counts=True)
    return float(distances[np.argmax(counts)])


def _refuse_finer(series_id: str, native: float, size: float, path: Path) -> None:
    if native > size * 1.5:
        raise BadUsageData(
            f"series {series_id!r} of {path} is measured every {timedelta(seconds=native)}",
            why=f"that is coarser than the step of {timedelta(seconds=size)}",
            next_step=f"give --freq {native / 60:g}min or longer",
        )


def _grid_repairs(
    series_id: str,
    seconds: NDArray[np.float64],
    place: NDArray[np.int64],
    size: float,
    native: float,
    steps: int,
    add_up: bool,
) -> list[Repair]:
    repairs: list[Repair] = []
    if native < size * 0.75:
        how = "added up" if add_up else "averaged"
        action = f"samples every {timedelta(seconds=native)} were {how} to steps of {timedelta(seconds=size)}"
        repairs.append(Repair(series_id=series_id, defect="resampled", count=len(seconds), action=action))
    else:
        off = int(np.sum(np.abs(seconds - place * size) > 1e-3))
        if off:
            action = "moved back to the start of their step; several in one step were averaged"
            repairs.append(Repair(series_id=series_id, defect="off_grid", count=off, action=action))
    gaps = steps - len(np.unique(place))
    if gaps:
        repairs.append(Repair(series_id=series_id, defect="gap", count=gaps, action="kept as not measured"))
    return repairs
