import numpy as np
import pytest

from forecasting.path_habits import SHORTEST_RUN, SURPRISES, flat_share, with_habits
from tests.contract.forecaster_contract import hourly


def test_only_a_run_of_equal_values_makes_a_series_flat() -> None:
    moving = np.arange(500.0)
    assert flat_share(moving, 24) == 0.0
    assert flat_share(np.concatenate([moving, np.full(SHORTEST_RUN - 2, 499.0)]), 24) == 0.0
    assert flat_share(np.concatenate([moving, np.full(400, 7.0)]), 24) == pytest.approx(400 / 424)


def test_a_series_that_never_rests_long_is_not_expected_to() -> None:
    eight_on_eight_off = np.tile(np.repeat([0.0, 5.0], 8), 40)
    often_off_for_days = np.tile(np.repeat([0.0, 5.0], [96, 8]), 8)
    assert flat_share(eight_on_eight_off, 24) < 0.05
    assert flat_share(np.concatenate([often_off_for_days, np.zeros(40)]), 24) > 0.4


def test_of_a_flat_series_the_calmest_paths_stay_exactly_flat() -> None:
    values = np.concatenate([np.tile(np.repeat([0.0, 5.0], [96, 8]), 8), np.zeros(40)])
    paths = np.abs(np.random.default_rng(1).standard_normal((400, 24))) * np.linspace(0.01, 5, 400)[:, None]
    made = with_habits(paths, hourly(values))
    flat = (made == 0).all(axis=1)
    assert flat.sum() >= round(flat_share(values, 24) * 400)
    assert not flat.all()


def test_a_few_paths_repeat_a_change_of_the_past() -> None:
    values = np.where(np.arange(60 * 24) % (20 * 24) < 24, 1.0, 10.0) + 0.01 * np.arange(60 * 24) % 0.07
    quiet = np.full((400, 24), values[-1])
    made = with_habits(quiet, hourly(values))
    changed = np.abs(made - values[-1]).max(axis=1) > 5
    assert 1 <= changed.sum() <= SURPRISES * 400
    assert np.array_equal(with_habits(quiet, hourly(values[:48])), quiet)  # too short a past for surprises
