"""Reads a usage history: Parquet or CSV, long, ``series_id, timestamp (UTC), value`` or a named metric column.

Nothing is dropped silently: whatever was mended is in ``repairs``; what cannot be mended is refused with its row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow

from engine.errors import BadUsageData
from forecasting.base import Array, History
from forecasting.usage_repairs import Repair, on_grid, repaired_rows

KEYS = ("series_id", "timestamp")
VALUE = "value"
SHAPE = "series_id, timestamp (UTC), value"
COUNTED = frozenset({"requests", "sessions", "tokens", "tokens_in", "tokens_out", "exec_seconds"})
"""Metrics that add up over a longer step; all others are levels, which are averaged."""


@dataclass(frozen=True)
class UsageFile:
    """``histories`` in the order of their ids, all with the step ``freq``; ``metric`` is the column that was read."""

    histories: tuple[History, ...]
    repairs: tuple[Repair, ...]
    metric: str
    freq: timedelta


def read_usage(path: Path, *, metric: str | None = None, freq: timedelta | None = None) -> UsageFile:
    """Every series of the file on a regular grid of ``freq`` (default: the step of most samples), gaps as NaN.

    A ``freq`` longer than the file's step adds counts up (requests, tokens …) and averages levels. Raises
    BadUsageData for a file that is missing, empty, neither Parquet nor CSV, lacks columns, or holds values or
    timestamps of the wrong type (with the row).
    """
    table = _read(path)
    _require_columns(table, path)
    name = _metric(table, metric)
    rows, repairs = repaired_rows(_typed(table, name, path), path)
    step = freq or _usual_step(rows, path)
    return _gridded(rows, repairs, name, step, path)


def _gridded(rows: pd.DataFrame, repairs: Sequence[Repair], name: str, step: timedelta, path: Path) -> UsageFile:
    histories: list[History] = []
    mended = list(repairs)
    for series_id, part in rows.groupby("series_id", sort=True):
        history, more = on_grid(str(series_id), part, step, path, add_up=name in COUNTED)
        histories.append(history)
        mended += more
    return UsageFile(tuple(histories), tuple(mended), name, step)


def _read(path: Path) -> pd.DataFrame:
    """Everything in a CSV is read as text, so that a bad cell can be named."""
    if not path.is_file():
        raise BadUsageData(
            f"there is no usage file {path}", why="not a file", next_step="check the path given with --usage"
        )
    if not path.stat().st_size:
        raise BadUsageData(f"{path} is empty", why="0 bytes", next_step=f"give a file with {SHAPE}")
    with path.open("rb") as file:
        is_parquet = file.read(4) == b"PAR1"
    try:
        return pd.read_parquet(path) if is_parquet else _read_csv(path)
    except (pyarrow.ArrowException, ValueError, OSError) as problem:
        raise BadUsageData(
            f"{path} cannot be read as {'Parquet' if is_parquet else 'CSV'}",
            why=str(problem).splitlines()[0],
            next_step=f"give a Parquet or CSV file with {SHAPE}",
        ) from problem


def _read_csv(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True, encoding="utf-8-sig")


def _require_columns(table: pd.DataFrame, path: Path) -> None:
    missing = [key for key in KEYS if key not in table.columns]
    if missing:
        raise BadUsageData(
            f"{path} lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}",
            why=f"it has {', '.join(map(str, table.columns)) or 'none'}",
            next_step=f"name the columns {SHAPE}",
        )
    if table.empty:
        raise BadUsageData(f"{path} holds no rows", why="only a header", next_step="give at least one sample")


def _metric(table: pd.DataFrame, asked: str | None) -> str:
    """The asked column, else ``value``, else the only column that holds numbers."""
    numeric = [str(c) for c in table.columns if c not in KEYS and _looks_numeric(table[c])]
    if asked is not None:
        if asked in table.columns and asked not in KEYS:
            return asked
        close = get_close_matches(asked, numeric, 1, 0.5)
        raise BadUsageData(
            f"there is no metric {asked!r} in the usage file" + (f"; did you mean {close[0]!r}?" if close else ""),
            why=f"its metrics are {', '.join(numeric) or 'none'}",
            next_step=f"give --metric {close[0] if close else numeric[0]}" if numeric else f"name the columns {SHAPE}",
        )
    if VALUE in table.columns:
        return VALUE
    if len(numeric) == 1:
        return numeric[0]
    raise BadUsageData(
        "the usage file holds several metrics" if numeric else "the usage file lacks a column of numbers",
        why=", ".join(numeric) or f"its columns are {', '.join(map(str, table.columns))}",
        next_step=f"choose one with --metric, such as --metric {numeric[0]}"
        if numeric
        else f"name the columns {SHAPE}",
    )


def _looks_numeric(column: "pd.Series[Any]") -> bool:
    if pd.api.types.is_bool_dtype(column) or pd.api.types.is_datetime64_any_dtype(column):
        return False
    if pd.api.types.is_numeric_dtype(column):
        return True
    sample = column[column.notna() & (column.astype(str).str.strip() != "")].head(100)
    return not sample.empty and bool(pd.to_numeric(sample, errors="coerce").notna().all())


def _typed(table: pd.DataFrame, metric: str, path: Path) -> pd.DataFrame:
    """series_id as text, timestamp as it came, value as float; ``row`` counts from 1 below the header."""
    ids = table["series_id"]
    unnamed = ids.isna() | (ids.astype(str).str.strip() == "")
    if unnamed.any():
        row = int(np.argmax(unnamed.to_numpy())) + 1
        raise BadUsageData(
            f"row {row} of {path} has no series_id", why="a sample must belong to a series", next_step="name its series"
        )
    return pd.DataFrame(
        {
            "series_id": ids.astype(str).to_numpy(),
            "timestamp": table["timestamp"].array,
            "value": _numbers(table[metric], metric, path),
            "row": np.arange(1, len(table) + 1),
        }
    )


def _numbers(column: "pd.Series[Any]", metric: str, path: Path) -> Array:
    if pd.api.types.is_bool_dtype(column) or pd.api.types.is_datetime64_any_dtype(column):
        raise BadUsageData(
            f"the column {metric!r} of {path} does not hold numbers",
            why=f"its type is {column.dtype}",
            next_step="give a numeric column with --metric",
        )
    text = column.astype(str).str.strip().str.lower()
    empty = column.isna() | text.isin(["", "nan", "null", "none", "na", "n/a", "<na>"])
    numbers = pd.to_numeric(column.where(~empty), errors="coerce").astype(float)
    wrong = (numbers.isna() & ~empty).to_numpy()
    if wrong.any():
        at = int(np.argmax(wrong))
        raise BadUsageData(
            f"row {at + 1} of {path} does not hold a number in {metric!r}",
            why=f"it holds {str(column.iloc[at])[:40]!r}",
            next_step="mend the row, or leave the cell empty where nothing was measured",
        )
    return np.asarray(numbers, dtype=np.float64)


def _usual_step(rows: pd.DataFrame, path: Path) -> timedelta:
    """The most frequent distance between neighbouring samples of one series."""
    gaps = rows.groupby("series_id", sort=False)["timestamp"].diff().dropna()
    gaps = gaps[gaps > pd.Timedelta(0)]
    if gaps.empty:
        raise BadUsageData(
            f"the step of {path} cannot be told",
            why="no series holds two samples",
            next_step="give --freq, such as --freq 1h",
        )
    return pd.Timedelta(gaps.mode().iloc[0]).to_pytimedelta()
