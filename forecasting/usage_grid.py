"""Samples onto a regular grid, with what that changed."""

from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from engine.errors import BadUsageData
from forecasting.base import Array, History
from forecasting.usage_repairs import Repair
from forecasting.usage_times import Micros

MOST_STEPS = 20_000_000
"""A longer grid for one series is a wrong timestamp, not a history."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICRO = timedelta(microseconds=1)


def usual_distance(micros: Micros) -> timedelta | None:
    """The most frequent distance between neighbours of sorted moments; None for fewer than two."""
    distances = np.diff(micros)
    distances = distances[distances > 0]
    if not len(distances):
        return None
    kinds, counts = np.unique(distances, return_counts=True)
    return int(kinds[np.argmax(counts)]) * _MICRO


def on_grid(
    series_id: str, micros: Micros, values: Array, step: timedelta, origin: str, *, add_up: bool
) -> tuple[History, list[Repair]]:
    """One series, sorted and unique, on the grid of ``step`` (aligned to midnight UTC); gaps are NaN.

    Several samples in a step are averaged; with ``add_up`` (counts) the average times the samples a step should hold.
    """
    size = step // _MICRO
    place = micros // size
    steps = int(place[-1] - place[0]) + 1
    if steps > MOST_STEPS:
        raise BadUsageData(
            f"series {series_id!r} of {origin} spans {steps} steps of {step}",
            why=f"from {_moment(int(micros[0]))} to {_moment(int(micros[-1]))}",
            next_step="mend the outlying timestamp, or give a longer --freq",
        )
    native = usual_distance(micros) or step
    _refuse_finer(series_id, native, step, origin)
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
    return History(series_id, _moment(int(place[0]) * size), step, grid), repairs


def _moment(micros: int) -> datetime:
    return _EPOCH + micros * _MICRO


def _refuse_finer(series_id: str, native: timedelta, step: timedelta, origin: str) -> None:
    if native > step * 1.5:
        raise BadUsageData(
            f"series {series_id!r} of {origin} is measured every {native}",
            why=f"that is coarser than the step of {step}",
            next_step=f"give --freq {native / timedelta(minutes=1):g}min or longer",
        )


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
            action = "moved back to the start of their step; several in one step were averaged"
            repairs.append(Repair(series_id=series_id, defect="off_grid", count=off, action=action))
    gaps = steps - (1 + int(np.count_nonzero(np.diff(place))))
    if gaps:
        repairs.append(Repair(series_id=series_id, defect="gap", count=gaps, action="kept as not measured"))
    return repairs
