from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from engine.errors import BadUsageData
from forecasting.usage_grid import on_grid, usual_distance
from forecasting.usage_times import Micros

HOUR = timedelta(hours=1)
START = datetime(2026, 1, 5, tzinfo=UTC)


def at(*hours: float) -> Micros:
    return (int(START.timestamp()) * 1_000_000 + np.array(hours) * 3.6e9).astype(np.int64)


def test_as_many_samples_as_steps_is_not_yet_one_each() -> None:
    history, repairs = on_grid("a", at(0, 1, 1.5, 3, 4), np.array([1.0, 2, 4, 8, 16]), HOUR, "f", add_up=False)
    assert np.array_equal(history.values, [1, 3, np.nan, 8, 16], equal_nan=True)
    assert {r.defect: r.count for r in repairs} == {"off_grid": 1, "gap": 1}


def test_the_usual_distance_is_the_most_frequent() -> None:
    assert usual_distance(at(0, 1, 2, 5)) == HOUR
    assert usual_distance(at(0)) is None


def test_samples_before_1970_keep_their_place() -> None:
    moment = np.array([-3_600_000_000, 0, 3_600_000_000])
    history, _ = on_grid("a", moment, np.arange(3.0), HOUR, "f", add_up=False)
    assert history.start == datetime(1969, 12, 31, 23, tzinfo=UTC)


def test_a_grid_beyond_reason_is_refused_before_it_is_made() -> None:
    with pytest.raises(BadUsageData, match="spans"):
        on_grid("a", at(0, 1e10 / 3600), np.array([1.0, 2]), timedelta(microseconds=100), "f", add_up=False)
