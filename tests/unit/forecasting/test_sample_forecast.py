from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from forecasting.sample_forecast import SampleForecast

START, HOUR = datetime(2026, 3, 2, tzinfo=UTC), timedelta(hours=1)


def of(paths: object) -> SampleForecast:
    return SampleForecast("s", START, HOUR, np.asarray(paths, dtype=np.float64), "by-hand")


def test_probability_is_read_from_path_maxima_not_from_marginals() -> None:
    made = of([[5, 1], [1, 5], [1, 1], [1, 1]])
    assert made.probability_of_needing(4, HOUR, current=1) == 0.25
    assert made.probability_of_needing(4, 2 * HOUR, current=1) == 0.5


def test_part_of_a_step_counts_as_the_step() -> None:
    made = of([[1, 9]])
    assert made.probability_of_needing(8, timedelta(minutes=61), current=1) == 1.0
    assert made.probability_of_needing(8, timedelta(minutes=10), current=1) == 0.0


def test_thresholds_survive_rounding() -> None:
    assert of([[0.1 + 0.2]]).probability_of_needing(0.2, HOUR, current=0.1) == 1.0
    assert of([[0.3]]).probability_of_needing(0.1 + 0.1, HOUR, current=0.1) == 1.0


def test_a_window_beyond_the_horizon_is_refused() -> None:
    with pytest.raises(ValueError, match="reaches"):
        of([[1, 2]]).probability_of_needing(1, 3 * HOUR, current=0)


def test_quantiles_of_the_ordered_samples() -> None:
    made = of(np.arange(100.0)[::-1, None])
    assert made.quantile(0.5)[0] == 49.5
    assert made.quantile(0.0)[0] == 0
    assert made.quantile(1.0)[0] == 99


def test_more_paths_than_held_use_each_equally_often() -> None:
    paths = of([[1], [2], [3]]).sample_paths(9)[:, 0]
    assert sorted(paths) == [1, 1, 1, 2, 2, 2, 3, 3, 3]


@pytest.mark.parametrize("paths", [np.empty((0, 3)), np.array([[np.nan]]), np.array([1.0])])
def test_paths_must_be_finite_and_two_dimensional(paths: object) -> None:
    with pytest.raises(ValueError, match="paths"):
        of(paths)


def test_in_whole_numbers_quantiles_are_whole_and_still_do_not_cross() -> None:
    made = of(np.random.default_rng(1).gamma(2, 2, (50, 6))).in_whole_numbers()
    rows = np.stack([made.quantile(q) for q in np.linspace(0, 1, 41)])
    assert (rows % 1 == 0).all()
    assert (np.diff(rows, axis=0) >= 0).all()
    assert (made.sample_paths(50) % 1 == 0).all()
    assert made.in_whole_numbers().quantile(0.3).tolist() == made.quantile(0.3).tolist()
