"""Samples onto a regular grid, with what that changed."""

from datetime import UTC, datetime, timedelta
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from engine.errors import BadUsageData
from forecasting.base import Array, History
from forecasting.usage_repairs import Repair
from forecasting.usage_times import Micros

MOST_STEPS = 20_000_000
"""A longer grid for one series is a wrong timestamp, not a history."""
NEAR = 0.1
"""Distances that differ by less than this share are one distance with jitter."""
COARSER = 1.5
"""A series whose samples lie more than so many steps apart is not measured at every step."""
ENOUGH_DISTANCES, MOSTLY = 24, 0.9
"""So many distances, of which this share is coarser than the step, tell how a series is measured; fewer are gaps."""
EARLY = 0.05
"""Samples so much of a step before its start may belong to it."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICRO = timedelta(microseconds=1)
_DAY_SECONDS = 86_400
_STEPS_OF_A_DAY = np.array([seconds for seconds in range(1, _DAY_SECONDS + 1) if _DAY_SECONDS % seconds == 0])


def usual_distance(micros: Micros) -> timedelta | None:
    """The distance that most neighbours of sorted moments have; None for fewer than two moments.

    Distances that jitter count together: their median, as the whole part of a day that lies nearest.
    """
    distances = np.diff(micros)
    distances = distances[distances > 0]
    if not len(distances):
        return None
    kinds, counts = np.unique(distances, return_counts=True)
    before = np.concatenate([[0], np.cumsum(counts)])
    first, last = np.searchsorted(kinds, kinds * (1 - NEAR)), np.searchsorted(kinds, kinds * (1 + NEAR), "right")
    most = int(np.argmax(before[last] - before[first]))
    kinds, counts = kinds[first[most] : last[most]], counts[first[most] : last[most]]
    if 2 * counts.max() >= counts.sum():
        return int(kinds[np.argmax(counts)]) * _MICRO
    return _without_jitter(float(np.median(np.repeat(kinds, counts))) * _MICRO)


def _without_jitter(distance: timedelta) -> timedelta:
    """The nearest whole part of a day, or number of days; as it is where none is near."""
    seconds = distance.total_seconds()
    whole = round(seconds / _DAY_SECONDS) * _DAY_SECONDS
    nearest = whole or int(_STEPS_OF_A_DAY[np.argmin(np.abs(_STEPS_OF_A_DAY - seconds))])
    return timedelta(seconds=nearest) if abs(nearest - seconds) <= NEAR * seconds else distance


def is_coarser(micros: Micros, step: timedelta) -> bool:
    """Whether the samples lie further apart than steps do, as far as they tell."""
    native = usual_distance(micros)
    return native is not None and native > step * COARSER


def on_grid(
    series_id: str, micros: Micros, values: Array, step: timedelta, origin: str, *, add_up: bool
) -> tuple[History, list[Repair]]:
    """One series, sorted and unique, on the grid of ``step`` (aligned to midnight UTC); gaps are NaN.

    Several samples in a step are averaged; with ``add_up`` (counts) the average times the samples a step should hold.
    Of a series that is measured more seldom than that, levels stay where they are and counts have no place.
    """
    size = step // _MICRO
    native = usual_distance(micros) or step
    place = (micros + _early(micros, size, native // _MICRO)) // size
    steps = int(place[-1] - place[0]) + 1
    if steps > MOST_STEPS:
        raise BadUsageData(
            f"series {series_id!r} of {origin} spans {steps} steps of {step}",
            why=f"from {_moment(int(micros[0]))} to {_moment(int(micros[-1]))}",
            next_step="mend the outlying timestamp, or give a longer --freq",
        )
    at, measured = place - place[0], np.isfinite(values)
    if steps == len(values) and not (np.diff(place) != 1).any():
        grid = values.copy()
    else:
        counts = np.bincount(at[measured], minlength=steps)
        sums = np.bincount(at[measured], weights=values[measured], minlength=steps)
        grid = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    if add_up:
        grid *= max(round(step / native), 1)
    repairs = _grid_repairs(series_id, micros, place, step, native, steps, add_up)
    if _surely_coarser(micros, size):
        repairs.append(_coarser(series_id, len(micros), native, add_up))
        grid = np.full(steps, np.nan) if add_up else grid
    return History(series_id, _moment(int(place[0]) * size), step, grid), repairs


def _early(micros: Micros, size: int, native: int) -> int:
    """What to add so that a sample just before a step's start counts to it: where jitter lies on both sides of it."""
    if native < 0.75 * size:
        return 0
    phase, width = micros % size, int(size * EARLY)
    early, late = np.count_nonzero(phase >= size - width), np.count_nonzero(phase < width)
    around = early and 2 * late >= early and early + late >= MOSTLY * len(micros)
    return width if around else 0


def _surely_coarser(micros: Micros, size: int) -> bool:
    distances = np.diff(micros)
    return len(distances) >= ENOUGH_DISTANCES and bool(np.mean(distances > size * COARSER) >= MOSTLY)


def _coarser(series_id: str, samples: int, native: timedelta, add_up: bool) -> Repair:
    kept = "counted as not measured: a count of that span is none of a step" if add_up else "the steps between are gaps"
    return Repair(series_id=series_id, defect="coarser", count=samples, action=f"measured every {native}; {kept}")


def refuse_coarser(series_id: str, micros: Micros, step: timedelta, origin: str) -> NoReturn:
    """Where no series is measured as often as the step."""
    native = usual_distance(micros) or step
    raise BadUsageData(
        f"series {series_id!r} of {origin} is measured every {native}",
        why=f"that is coarser than the step of {step}",
        next_step=f"give --freq {native / timedelta(minutes=1):g}min or longer",
    )


def _moment(micros: int) -> datetime:
    return _EPOCH + micros * _MICRO


def _grid_repairs(
    series_id: str,
    micros: Micros,
    place: NDArray[np.int64],
    step: timedelta,
    native: timedelta,
    steps: int,
    add_up: bool,
) -> list[Repair]:
    repairs: list[Repair] = []
    if native < step * 0.75:
        how = "added up" if add_up else "averaged"
        action = f"samples every {native} were {how} to steps of {step}"
        repairs.append(Repair(series_id=series_id, defect="resampled", count=len(micros), action=action))
    else:
        off = int(np.count_nonzero(micros % (step // _MICRO) > 1000))
        if off:
            action = "moved to the start of their step; several in one step were averaged"
            repairs.append(Repair(series_id=series_id, defect="off_grid", count=off, action=action))
    gaps = steps - (1 + int(np.count_nonzero(np.diff(place))))
    if gaps:
        repairs.append(Repair(series_id=series_id, defect="gap", count=gaps, action="kept as not measured"))
    return repairs
