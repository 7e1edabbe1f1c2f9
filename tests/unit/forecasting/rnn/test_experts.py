import numpy as np
import pytest

from forecasting.base import Array
from forecasting.rnn.experts import EXPERTS, expert_quantiles, row_quantiles

LEVELS = (0.1, 0.5, 0.9)
PAD = 60 * 24


def experts(values: Array, origin: int, horizon: int = 24) -> Array:
    padded = np.concatenate([np.full(PAD, np.nan), values, np.full(horizon, np.nan)])
    base = np.array([PAD + origin])
    return expert_quantiles(lambda i: padded[i], base, per_day=24, horizon=horizon, reach=24, levels=LEVELS)[0]


def test_quantiles_of_rows_skip_what_is_unknown() -> None:
    rows = np.array([[3.0, 1.0, 2.0, np.nan], [np.nan] * 4, [5.0, np.nan, np.nan, np.nan]])
    found = row_quantiles(rows, LEVELS)
    assert found[0, 1] == 2.0
    assert np.isnan(found[1]).all()
    assert (found[2] == 5.0).all()


def test_they_are_the_quantiles_of_numpy() -> None:
    rows = np.random.default_rng(1).standard_normal((5, 33))
    assert np.allclose(row_quantiles(rows, LEVELS), np.quantile(rows, LEVELS, axis=1, method="hazen").T)


def test_on_a_pure_weekly_cycle_the_seasonal_experts_are_exact() -> None:
    week = np.random.default_rng(2).uniform(1, 9, 168)
    found = experts(np.tile(week, 9), 8 * 168)
    assert found.shape == (24, EXPERTS, len(LEVELS))
    assert np.allclose(found[:, 9], week[:24, None])  # last week plus its error, which is none
    assert np.allclose(found[:, 2], np.quantile(week, LEVELS, method="hazen"))  # the last week
    assert (np.diff(found, axis=-1) >= 0).all()


@pytest.mark.parametrize("horizon", [6, 24, 30])
def test_nothing_of_the_future_is_looked_at(horizon: int) -> None:
    values = np.random.default_rng(3).uniform(1, 9, 60 * 24)
    changed = values.copy()
    changed[1000:] = 1e6
    assert np.array_equal(experts(values, 1000, horizon), experts(changed, 1000, horizon), equal_nan=True)


def test_a_short_history_leaves_experts_unknown_but_not_all() -> None:
    found = experts(np.array([4.0, 5.0, 6.0]), 3)
    known = np.isfinite(found[..., 0])
    assert known[:, 0].all()
    assert not known[:, 7].any()
