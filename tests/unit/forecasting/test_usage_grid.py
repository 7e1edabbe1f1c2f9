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


def jittered(step: float, spread: float, samples: int = 500) -> Micros:
    """Seconds apart, each off by up to the spread in either direction."""
    places = step * np.arange(samples) + np.random.default_rng(1).uniform(-spread, spread, samples)
    return (int(START.timestamp()) * 1_000_000 + 86_400_000_000 + places * 1e6).astype(np.int64)


@pytest.mark.parametrize(("step", "spread"), [(60, 0.4), (300, 8), (3600, 30), (86_400, 600), (7 * 86_400, 600)])
def test_the_usual_distance_of_moments_that_jitter_is_that_without_jitter(step: float, spread: float) -> None:
    assert usual_distance(jittered(step, spread)) == timedelta(seconds=step)


def test_a_scraper_that_drifts_has_the_step_that_it_means() -> None:
    places = np.cumsum(60.5 + np.random.default_rng(2).uniform(0, 0.2, 500))
    assert usual_distance(at(*(places / 3600))) == timedelta(minutes=1)


def test_a_step_that_divides_no_day_stays_where_nothing_jitters() -> None:
    assert usual_distance(at(*(np.arange(50) * 7 / 60))) == timedelta(minutes=7)


def test_samples_that_jitter_around_the_start_of_their_step_stay_one_each() -> None:
    moments = jittered(3600, 20)
    history, repairs = on_grid("a", moments, np.arange(500.0), HOUR, "f", add_up=False)
    assert np.array_equal(history.values, np.arange(500.0))
    assert (history.start, {r.defect for r in repairs}) == (START + 24 * HOUR, {"off_grid"})


def test_samples_that_all_come_just_before_the_end_of_a_step_belong_to_it() -> None:
    history, _ = on_grid("a", at(0.99, 1.99, 2.99), np.arange(3.0), HOUR, "f", add_up=False)
    assert history.start == START


@pytest.mark.parametrize(("add_up", "measured"), [(False, 60), (True, 0)])
def test_a_series_that_is_measured_more_seldom_keeps_its_levels_and_loses_its_counts(
    add_up: bool, measured: int
) -> None:
    moments = at(*range(0, 180, 3))
    history, repairs = on_grid("a", moments, np.ones(60), HOUR, "f", add_up=add_up)
    assert np.count_nonzero(np.isfinite(history.values)) == measured
    (told,) = [repair for repair in repairs if repair.defect == "coarser"]
    assert (told.count, "measured every 3:00:00" in told.action) == (60, True)


def test_a_few_samples_do_not_tell_that_a_series_is_measured_more_seldom() -> None:
    history, repairs = on_grid("a", at(0, 3, 6, 7), np.ones(4), HOUR, "f", add_up=True)
    assert np.array_equal(np.flatnonzero(np.isfinite(history.values)), [0, 3, 6, 7])
    assert {r.defect: r.count for r in repairs} == {"gap": 4}


def test_samples_before_1970_keep_their_place() -> None:
    moment = np.array([-3_600_000_000, 0, 3_600_000_000])
    history, _ = on_grid("a", moment, np.arange(3.0), HOUR, "f", add_up=False)
    assert history.start == datetime(1969, 12, 31, 23, tzinfo=UTC)


def test_a_grid_beyond_reason_is_refused_before_it_is_made() -> None:
    with pytest.raises(BadUsageData, match="spans"):
        on_grid("a", at(0, 1e10 / 3600), np.array([1.0, 2]), timedelta(microseconds=100), "f", add_up=False)
