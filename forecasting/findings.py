"""What can be told of a series but not mended: it is kept as it is, and named.

Thresholds are set so that an ordinary daily and weekly cycle raises nothing (tests/unit/forecasting/test_findings.py).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import numpy as np

from engine.model.value import Utc, Value
from forecasting.base import Array, History
from forecasting.durations import roughly

Observation = Literal[
    "too_short",
    "constant",
    "all_zero",
    "nothing_measured",
    "outage",
    "long_gap",
    "level_shift",
    "unit_change",
    "unit_does_not_fit",
    "ended_early",
    "future",
    "similar_id",
]

SHORT = 48
"""Fewer measured steps than this carry no cycle to learn from."""
OUTAGE_STEPS = 3
RARE_ZEROS = 0.2
"""Where more of the measured steps are zero, zero is what the series does, not an outage."""
LONG_GAP = timedelta(hours=6)
SHIFT_NOISE, SHIFT_SHARE = 6.0, 0.3
"""A shift is named when it exceeds the day-to-day noise so many times and this share of the higher level."""
UNITS = (60.0, 100.0, 1000.0, 1024.0, 3600.0, 1e6, 1024.0**2, 1e9, 1024.0**3)
UNIT_TOLERANCE = 0.05
"""How near the ratio of two levels must be to a ratio of units."""
_PLAUSIBLE = (
    ("_util", 1.5, "a share from 0 to 1; this looks like percent"),
    ("cpu_cores", 1e6, "cores; this looks like millicores or nanoseconds"),
    ("_gib", 1e6, "GiB; this looks like bytes or KiB"),
)


class Finding(Value):
    """``text`` says what was seen; nothing about the series was changed because of it."""

    series_id: str
    observation: Observation
    text: str
    start: Utc | None = None
    end: Utc | None = None


@dataclass(frozen=True)
class _Run:
    start: int
    stop: int


def findings(history: History, metric: str, *, newest: datetime, now: datetime) -> tuple[Finding, ...]:
    """``newest``: where the latest series of the same file ends."""
    measured = history.values[np.isfinite(history.values)]
    seen = [*_values(history, measured), *_ends(history, newest, now), *_units(history, measured, metric)]
    if len(measured):
        seen += [*_outages(history, measured), *_level(history, measured)]
    return tuple(seen)


def similar_ids(ids: Sequence[str]) -> tuple[Finding, ...]:
    """Ids that differ in blanks or case alone."""
    first: dict[str, str] = {}
    found = []
    for name in ids:
        other = first.setdefault(" ".join(name.split()).casefold(), name)
        if other != name:
            text = f"{name!r} and {other!r} differ in blanks or case alone, and count as two series"
            found.append(Finding(series_id=name, observation="similar_id", text=text))
    return tuple(found)


def _values(history: History, measured: Array) -> Iterator[Finding]:
    name = history.series_id
    if not len(measured):
        yield Finding(series_id=name, observation="nothing_measured", text="no step holds a value")
        return
    if len(measured) < SHORT:
        text = f"{len(measured)} measured steps: too few for a cycle; forecasts fall back to simpler ones"
        yield Finding(series_id=name, observation="too_short", text=text)
    if len(measured) < 3:
        return
    if not measured.any():
        yield Finding(series_id=name, observation="all_zero", text="every measured value is 0")
    elif measured.max() == measured.min():
        yield Finding(series_id=name, observation="constant", text=f"every measured value is {measured[0]:g}")


def _ends(history: History, newest: datetime, now: datetime) -> Iterator[Finding]:
    if not np.isfinite(history.values).any():
        return
    end = history.measured_end
    if newest - end > max(2 * LONG_GAP, 2 * history.freq):
        text = f"the last value is {roughly(newest - end)} older than that of the newest series"
        yield Finding(series_id=history.series_id, observation="ended_early", text=text, start=end, end=newest)
    if end - history.freq > now:
        begun = max(history.start, now)
        text = "values that cannot have been measured yet: from a source they are left out; is the clock right?"
        yield Finding(series_id=history.series_id, observation="future", text=text, start=begun, end=end)


def _units(history: History, measured: Array, metric: str) -> Iterator[Finding]:
    if not len(measured):
        return
    high = float(np.quantile(measured, 0.99))
    for ending, limit, meaning in _PLAUSIBLE:
        if metric.endswith(ending) and high > limit:
            text = f"99 % of the values lie below {high:.4g}, but {metric} means {meaning}"
            yield Finding(series_id=history.series_id, observation="unit_does_not_fit", text=text)


def _outages(history: History, measured: Array) -> Iterator[Finding]:
    """Zeros where the series is hardly ever zero; spans without any value."""
    at_zero = history.values == 0
    if 0 < np.count_nonzero(at_zero) <= RARE_ZEROS * len(measured):
        for run in _runs(at_zero):
            if run.stop - run.start >= OUTAGE_STEPS:
                length = roughly((run.stop - run.start) * history.freq)
                yield _over(history, run, "outage", f"0 for {length}, which it hardly ever is: perhaps an outage")
    for run in _runs(np.isnan(history.values)):
        span = (run.stop - run.start) * history.freq
        if run.stop - run.start >= OUTAGE_STEPS and span >= LONG_GAP:
            yield _over(history, run, "long_gap", f"nothing was measured for {roughly(span)}")


def _level(history: History, measured: Array) -> Iterator[Finding]:
    """A lasting step between two weeks' daily medians; by the ratio of two units, it is called that."""
    per_day = max(round(timedelta(days=1) / history.freq), 1)
    days = len(history.values) // per_day
    width = min(7, days // 2)
    if width < 3 or measured.max() == measured.min():
        return
    medians = _daily_medians(history.values[-days * per_day :].reshape(days, per_day))
    place, before, after, noise = _largest_step(medians, width)
    higher, lower = max(before, after), min(before, after)
    if higher - lower <= max(SHIFT_NOISE * noise, SHIFT_SHARE * higher):
        return
    first = len(history.values) - days * per_day + place * per_day
    unit = _unit(higher, lower)
    text = f"its level goes from {before:.4g} to {after:.4g} and stays there"
    if unit is not None:
        text = f"its level goes from {before:.4g} to {after:.4g}, about {unit:g} times: perhaps another unit"
    start = history.start + first * history.freq
    observation: Observation = "level_shift" if unit is None else "unit_change"
    yield Finding(series_id=history.series_id, observation=observation, text=text, start=start)


def _daily_medians(days: Array) -> Array:
    """Days without a value count as the day before."""
    filled = np.isfinite(days).any(axis=1)
    medians = np.full(len(days), np.nan)
    medians[filled] = np.nanmedian(days[filled], axis=1)
    last = np.maximum.accumulate(np.where(filled, np.arange(len(days)), 0))
    carried: Array = medians[last]
    return np.where(np.isfinite(carried), carried, medians[filled][0])


def _largest_step(medians: Array, width: int) -> tuple[int, float, float, float]:
    """(day it begins, level before, level after, noise of the days around both)."""
    windows = np.lib.stride_tricks.sliding_window_view(medians, width)
    levels = np.median(windows, axis=1)
    spread = np.median(np.abs(windows - levels[:, None]), axis=1) * 1.4826
    before, after = levels[:-width], levels[width:]
    step = np.abs(after - before)
    at = int(np.argmax(step))
    same = np.flatnonzero(np.isclose(step, step[at], rtol=0.02))
    at = int(same[len(same) // 2])
    noise = float(max(spread[at], spread[at + width]))
    return at + width, float(before[at]), float(after[at]), noise


def _unit(higher: float, lower: float) -> float | None:
    if lower <= 0:
        return None
    near = [unit for unit in UNITS if abs(higher / lower / unit - 1) < UNIT_TOLERANCE]
    return min(near, key=lambda unit: abs(higher / lower / unit - 1)) if near else None


def _runs(flags: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> Iterator[_Run]:
    edges = np.flatnonzero(np.diff(flags.astype(np.int8), prepend=0, append=0))
    for start, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        yield _Run(start, stop)


def _over(history: History, run: _Run, observation: Observation, text: str) -> Finding:
    return Finding(
        series_id=history.series_id,
        observation=observation,
        text=text,
        start=history.start + run.start * history.freq,
        end=history.start + run.stop * history.freq,
    )
