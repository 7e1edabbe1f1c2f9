import numpy as np
import pytest

from forecasting.losses import geometric_mean, pinball, weighted_quantile_loss


def test_pinball_prices_falling_short_by_the_quantile() -> None:
    truth, predicted = np.array([10.0, 10.0]), np.array([8.0, 12.0])
    assert pinball(truth, predicted, 0.9) == pytest.approx([1.8, 0.2])


def test_weighted_quantile_loss_ignores_gaps_and_names_the_impossible() -> None:
    assert weighted_quantile_loss([3.0], [np.array([2.0, np.nan, 4.0])]) == 0.5
    assert weighted_quantile_loss([0.0], [np.zeros(2)]) == 0.0
    assert weighted_quantile_loss([1.0], [np.zeros(2)]) == float("inf")


def test_geometric_mean() -> None:
    assert geometric_mean([0.5, 2.0]) == pytest.approx(1.0)
    assert np.isnan(geometric_mean([]))
