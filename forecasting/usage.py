"""Reads a usage history: Parquet or CSV, long, ``series_id, timestamp (UTC), value`` or a named metric column.

Nothing is dropped silently: whatever was mended is in ``repairs``; what cannot be mended is refused with its row.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow

from engine.errors import BadUsageData
from forecasting.base import Array, History
from forecasting.usage_grid import is_coarser, on_grid, refuse_coarser, usual_distance
from forecasting.usage_repairs import Repair, Samples, mended

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

    def measured(self) -> tuple["UsageFile", tuple[str, ...]]:
        """Without the series that hold no value at all, and the names of those. Raises BadUsageData: none holds one."""
        kept, names = with_values(self.histories)
        if not kept:
            raise BadUsageData(
                f"no series holds a value in {self.metric!r}",
                why=f"every value of {', '.join(names[:5])}{' …' if len(names) > 5 else ''} is missing",
                next_step="shardwright forecast check --usage FILE, or choose another column with --metric",
            )
        return replace(self, histories=kept), names


def with_values(histories: Sequence[History]) -> tuple[tuple[History, ...], tuple[str, ...]]:
    """Those that hold a value, and the names of the others."""
    measured = [bool(np.isfinite(history.values).any()) for history in histories]
    kept = tuple(history for history, some in zip(histories, measured, strict=True) if some)
    return kept, tuple(history.series_id for history, some in zip(histories, measured, strict=True) if not some)


def read_usage(
    path: Path, *, metric: str | None = None, freq: timedelta | None = None, now: datetime | None = None
) -> UsageFile:
    """Every series of the file on a regular grid of ``freq`` (default: the step of most samples), gaps as NaN.

    A ``freq`` longer than the file's step adds counts up (requests, tokens …) and averages levels. With ``now``,
    samples from the future are left out by name. Raises BadUsageData for a file that is missing, empty, neither Parquet
    nor CSV, lacks columns, or holds values or timestamps of the wrong type (with the row).
    """
    return usage_of(_read(path), str(path), metric=metric, freq=freq, now=now)


def usage_rows(path: Path, *, metric: str | None = None) -> tuple[pd.DataFrame, str]:
    """The file's rows as ``series_id, timestamp, value`` and the metric that was read. Raises as ``read_usage``."""
    table = _read(path)
    _require_columns(table, str(path))
    name = _metric(table, metric)
    return _typed(table, name, str(path)), name


def usage_of(
    table: pd.DataFrame,
    origin: str,
    *,
    metric: str | None = None,
    freq: timedelta | None = None,
    least: timedelta | None = None,
    now: datetime | None = None,
) -> UsageFile:
    """The same of a table in memory; ``origin`` is what errors call it. No step is shorter than ``least``."""
    _require_columns(table, origin)
    name = _metric(table, metric)
    samples, repairs = mended(_typed(table, name, origin), origin, now=now)
    del table
    bounds = np.flatnonzero(np.diff(samples.series)) + 1
    parts = [samples.of(slice(*edges)) for edges in pairwise([0, *bounds.tolist(), len(samples.row)])]
    parts.sort(key=lambda part: part.names[part.series[0]])
    step = freq or _usual_step(parts, origin, least)
    if all(is_coarser(part.micros, step) for part in parts):
        refuse_coarser(parts[0].names[parts[0].series[0]], parts[0].micros, step, origin)
    histories = []
    for part in parts:
        series_id = part.names[part.series[0]]
        history, more = on_grid(series_id, part.micros, part.values, step, origin, add_up=name in COUNTED)
        histories.append(history)
        repairs += more
    return UsageFile(tuple(histories), tuple(repairs), name, step)


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


def _require_columns(table: pd.DataFrame, origin: str) -> None:
    missing = [key for key in KEYS if key not in table.columns]
    if missing:
        raise BadUsageData(
            f"{origin} lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}",
            why=f"it has {', '.join(map(str, table.columns)) or 'none'}",
            next_step=f"name the columns {SHAPE}",
        )
    twice = table.columns[table.columns.duplicated()]
    if len(twice):
        raise BadUsageData(
            f"{origin} has the column {twice[0]!r} twice",
            why="it is not clear which of them counts",
            next_step="rename or remove one of them",
        )
    if table.empty:
        raise BadUsageData(f"{origin} holds no rows", why="only a header", next_step="give at least one sample")


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
    if _means_no_number(column):
        return False
    if pd.api.types.is_numeric_dtype(column):
        return True
    sample = column[column.notna() & (column.astype(str).str.strip() != "")].head(100)
    read = pd.to_numeric(sample, errors="coerce").notna()
    return not sample.empty and bool(read.mean() > 0.5)  # the odd bad cell is named by its row, later


def _means_no_number(column: "pd.Series[Any]") -> bool:
    """Types that would pass for numbers when asked."""
    types = pd.api.types
    return types.is_bool_dtype(column) or column.dtype.kind in "mM" or types.is_datetime64_any_dtype(column)


def _typed(table: pd.DataFrame, metric: str, origin: str) -> pd.DataFrame:
    """series_id as text, timestamp as it came, value as float."""
    ids = table["series_id"].astype(str).astype("category")  # a handful of names, a row each
    blank = [code for code, name in enumerate(ids.cat.categories) if not str(name).strip()]
    unnamed = table["series_id"].isna() | ids.cat.codes.isin(blank)
    if unnamed.any():
        row = int(np.argmax(unnamed.to_numpy())) + 1
        raise BadUsageData(
            f"row {row} of {origin} has no series_id",
            why="a sample must belong to a series",
            next_step="name its series",
        )
    return pd.DataFrame(
        {
            "series_id": ids,
            "timestamp": table["timestamp"],
            "value": _numbers(table[metric], metric, origin),
        }
    )


def _numbers(column: "pd.Series[Any]", metric: str, origin: str) -> Array:
    if _means_no_number(column):
        raise BadUsageData(
            f"the column {metric!r} of {origin} does not hold numbers",
            why=f"its type is {column.dtype}",
            next_step="give a numeric column with --metric",
        )
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_complex_dtype(column):
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    text = column.astype(str).str.strip().str.lower()
    empty = column.isna() | text.isin(["", "nan", "null", "none", "na", "n/a", "<na>"])
    numbers = pd.to_numeric(column.where(~empty), errors="coerce").astype(float)
    wrong = (numbers.isna() & ~empty).to_numpy()
    if wrong.any():
        at = int(np.argmax(wrong))
        raise BadUsageData(
            f"row {at + 1} of {origin} does not hold a number in {metric!r}",
            why=f"it holds {str(column.iloc[at])[:40]!r}",
            next_step="mend the row, or leave the cell empty where nothing was measured",
        )
    return np.asarray(numbers, dtype=np.float64)


def _usual_step(parts: Sequence[Samples], origin: str, least: timedelta | None) -> timedelta:
    """The most frequent distance between neighbouring samples of one series, and no less than ``least``."""
    found: Counter[timedelta] = Counter()
    for part in parts:
        distance = usual_distance(part.micros)
        if distance is not None:
            found[distance] += len(part.micros) - 1
    if not found and least is None:
        raise BadUsageData(
            f"the step of {origin} cannot be told",
            why="no series holds two samples",
            next_step="bring a second sample of a series, or give a step, such as --freq 1h",
        )
    usual = max(found, key=lambda step: (found[step], -step)) if found else timedelta(0)
    return max(usual, least or usual)
