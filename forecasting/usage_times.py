"""Timestamps of a usage file as they come, to moments in UTC."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from engine.errors import BadUsageData

ISO = "write timestamps as ISO 8601 in UTC, such as 2026-01-31T13:00:00Z"

_OFFSET = r"[T ]\d{2}(?::?\d{2}(?::?\d{2}(?:[.,]\d+)?)?)?\s*([+-])(\d{2}):?(\d{2})?$"
"""It follows a time of day: the end of a bare date looks like one."""

Flags = NDArray[np.bool_]
Micros = NDArray[np.int64]


@dataclass(frozen=True)
class Moments:
    """``micros``: microseconds since 1970 in UTC (0 where ``absent``); ``offset``: minutes east of UTC, as written."""

    micros: Micros
    absent: Flags
    naive: Flags
    """Without a zone: taken as UTC."""
    offset: NDArray[np.int32]


def moments(raw: "pd.Series[Any]", origin: str) -> Moments:
    """Raises BadUsageData for a timestamp that cannot be read, naming its row (from 1 below the header)."""
    if pd.api.types.is_datetime64_any_dtype(raw):
        return _typed(raw)
    text = raw.astype(str).str.strip()
    absent = (raw.isna() | text.isin(["", "NaT", "nat", "nan", "NaN", "None", "none", "null", "NULL"])).to_numpy()
    _refuse_numbers(text, absent, origin)
    read = pd.to_datetime(text.where(~absent), utc=True, errors="coerce", format="ISO8601")
    wrong = read.isna().to_numpy() & ~absent
    if wrong.any():
        at = int(np.argmax(wrong))
        raise BadUsageData(
            f"row {at + 1} of {origin} holds no timestamp",
            why=f"{text.iloc[at][:40]!r} cannot be read",
            next_step=ISO,
        )
    naive, offset = _zones(text, absent)
    return Moments(_micros(read, absent), absent, naive, offset)


def _refuse_numbers(text: "pd.Series[Any]", absent: Flags, origin: str) -> None:
    """Seconds or milliseconds? A guess would be wrong by a factor of a thousand."""
    number = text.str.fullmatch(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?").to_numpy(dtype=np.bool_) & ~absent
    if number.any():
        at = int(np.argmax(number))
        raise BadUsageData(
            f"row {at + 1} of {origin} holds a number as its timestamp",
            why=f"{text.iloc[at]!r} may be seconds or milliseconds",
            next_step=ISO,
        )


def _zones(text: "pd.Series[Any]", absent: Flags) -> tuple[Flags, NDArray[np.int32]]:
    naive, offset = np.zeros(len(text), dtype=np.bool_), np.zeros(len(text), dtype=np.int32)
    other = np.flatnonzero(~(text.str.endswith("Z").to_numpy(dtype=np.bool_) | absent))
    if not len(other):
        return naive, offset
    parts = text.iloc[other].str.extract(_OFFSET)
    zoned = parts[0].notna().to_numpy(dtype=np.bool_)
    minutes = 60 * pd.to_numeric(parts[1]).fillna(0).to_numpy() + pd.to_numeric(parts[2]).fillna(0).to_numpy()
    naive[other] = ~zoned
    offset[other] = np.where(parts[0].to_numpy() == "-", -minutes, minutes)
    return naive, offset


def _typed(raw: "pd.Series[Any]") -> Moments:
    """A column of times has one zone, or none."""
    absent = raw.isna().to_numpy()
    zone = getattr(raw.dt, "tz", None)
    utc = pd.to_datetime(raw, utc=True)
    offset = np.zeros(len(raw), dtype=np.int32)
    if zone is not None and str(zone) != "UTC":
        wall = raw.dt.tz_localize(None)
        offset = ((wall - utc.dt.tz_localize(None)).dt.total_seconds().fillna(0) // 60).to_numpy().astype(np.int32)
    naive = ~absent if zone is None else np.zeros(len(raw), dtype=np.bool_)
    return Moments(_micros(utc, absent), absent, naive, offset)


def _micros(moments_utc: "pd.Series[Any]", absent: Flags) -> Micros:
    micros = moments_utc.astype("datetime64[us, UTC]").astype("int64").to_numpy()
    return np.where(absent, 0, micros)
