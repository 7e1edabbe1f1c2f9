import numpy as np
from scipy.special import ndtri

from forecasting.rnn.calibration import calibrate, draw_paths, interpolate, normal_scores
from forecasting.rnn.model import LEVELS

HORIZON = 6
Z = ndtri(np.array(LEVELS))


def normal_world(windows: int, *, sigma: float, memory: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Heads that claim sigma 1 around 10, and truth with another sigma, correlated over the horizon."""
    distance = np.abs(np.subtract.outer(np.arange(HORIZON), np.arange(HORIZON)))
    root = np.linalg.cholesky(memory**distance)
    truth = 10 + sigma * np.random.default_rng(seed).standard_normal((windows, HORIZON)) @ root.T
    return np.broadcast_to(10 + Z, (windows, HORIZON, len(LEVELS))), truth


def calibrated(sigma: float, memory: float) -> tuple[np.ndarray, np.ndarray]:
    heads, truth = normal_world(3000, sigma=sigma, memory=memory, seed=1)
    found = calibrate(heads, truth, np.zeros(3000, dtype=np.int64), ("s",), seed=0)
    return found.apply(heads[:1], ("s",))[0], found.correlation


def test_heads_that_are_too_narrow_are_widened_to_the_truth() -> None:
    for sigma in (0.6, 1.0, 1.7):
        heads, _ = calibrated(sigma, 0.5)
        assert np.allclose(heads[0], 10 + sigma * Z, atol=0.12 * sigma)


def test_the_correlation_over_time_is_found() -> None:
    _, correlation = calibrated(1.0, 0.8)
    assert abs(correlation[0, 1] - 0.8) < 0.04
    assert abs(correlation[0, 5] - 0.8**5) < 0.06


def test_few_windows_change_little() -> None:
    heads, truth = normal_world(3, sigma=3.0, memory=0.0, seed=2)
    found = calibrate(heads, truth, np.zeros(3, dtype=np.int64), ("s",), seed=0)
    assert np.abs(found.levels - np.array(LEVELS)).max() < 0.02


def test_path_maxima_follow_the_copula() -> None:
    """Of two standard normal steps with correlation r, P(max >= 1) is known."""
    heads = np.broadcast_to(Z, (1, 2, len(LEVELS)))
    for r, expected in ((0.0, 1 - 0.8413**2), (0.999, 0.1687)):
        paths = draw_paths(heads, np.array([[1, r], [r, 1]]), 4000, [7])[0]
        assert abs((paths.max(axis=1) >= 1).mean() - expected) < 0.015


def test_each_step_of_the_paths_has_exactly_the_heads_as_quantiles() -> None:
    heads = np.broadcast_to(Z, (2, HORIZON, len(LEVELS)))
    paths = draw_paths(heads, np.eye(HORIZON), 1000, [1, 2])
    assert np.allclose(np.quantile(paths, 0.9, axis=1), ndtri(0.9), atol=0.01)
    assert not np.array_equal(paths[0], paths[1])


def test_truth_on_a_plateau_of_heads_is_split_at_random() -> None:
    heads = np.zeros((4000, 1, len(LEVELS)))
    heads[..., LEVELS.index(0.7) :] = 1.0
    scores = normal_scores(heads, np.zeros((4000, 1)), np.random.default_rng(0))
    assert (scores <= ndtri(0.6) + 1e-9).all()
    assert abs(np.median(scores) - ndtri(0.3)) < 0.05


def test_beyond_the_outer_heads_the_last_slope_goes_on() -> None:
    assert np.allclose(interpolate(Z[None], np.array([-3.0, 0.0, 3.0])), [[-3.0, 0.0, 3.0]])
