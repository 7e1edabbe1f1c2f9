"""Tomorrow is like now: the last measured value, with the errors that this would have made before."""

import numpy as np
from numpy.typing import NDArray

from engine.errors import BadUsageData
from forecasting.base import Array, History
from forecasting.sample_forecast import SampleForecast

MOST_PATHS = 500
FEWEST_PATHS = 8


class LastValue:
    """Works from one measured value on. With few values the spread is a random walk of the increments seen."""

    name = "last_value"

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed
        self._history: History | None = None

    def fit(self, history: History) -> "LastValue":
        if not np.isfinite(history.values).any():
            raise BadUsageData(
                f"series {history.series_id!r} holds no measured value",
                why="every value is missing",
                next_step="give a usage history with at least one value",
            )
        self._history = history
        return self

    def predict(self, horizon: int) -> SampleForecast:
        """Residual paths y[o+h] - y[o] of up to 500 recent origins o, added to the last measured value."""
        history = _fitted(self._history, self.name)
        filled = fill_forward(history.values)
        residuals = residual_paths(
            history.values, horizon, lag_of_step=np.arange(1, horizon + 1, dtype=np.int64), filled=filled
        )
        if len(residuals) < FEWEST_PATHS:
            residuals = _random_walk(history.values, horizon, self.seed)
        paths = keep_sign(filled[-1] + residuals, history.values)
        return SampleForecast(history.series_id, history.end, history.freq, paths, self.name, seed=self.seed)


def _fitted(history: History | None, name: str) -> History:
    if history is None:
        raise RuntimeError(f"{name}: fit() comes before predict()")
    return history


def fill_forward(values: Array) -> Array:
    """Each NaN becomes the value measured before it; leading ones the first measured value."""
    seen = np.isfinite(values)
    index = np.maximum.accumulate(np.where(seen, np.arange(len(values)), -1))
    first = int(np.argmax(seen))
    return np.asarray(values[np.maximum(index, first)], dtype=np.float64)


def residual_paths(values: Array, horizon: int, *, lag_of_step: NDArray[np.int64], filled: Array) -> Array:
    """Shape (up to 500, horizon): y[o+h] - filled[o+h-lag] at the latest origins o whose steps are all measured."""
    first = int((lag_of_step - np.arange(horizon)).max())
    origins = np.arange(max(first, 0), len(values) - horizon + 1)[-4 * MOST_PATHS :]
    if not len(origins):
        return np.empty((0, horizon))
    at = origins[:, None] + np.arange(horizon)
    paths = values[at] - filled[at - lag_of_step]
    kept: Array = paths[np.isfinite(paths).all(axis=1)][-MOST_PATHS:]
    return kept


def keep_sign(paths: Array, values: Array) -> Array:
    """Usage that was never negative is not forecast to be."""
    return np.maximum(paths, 0.0) if np.nanmin(values) >= 0 else paths


def _random_walk(values: Array, horizon: int, seed: int) -> Array:
    measured = values[np.isfinite(values)]
    steps = np.diff(measured)
    if not len(steps):
        return np.zeros((FEWEST_PATHS, horizon))
    symmetric = np.concatenate([steps, np.zeros(len(steps)), -steps])
    drawn = np.random.default_rng(seed).choice(symmetric, size=(MOST_PATHS, horizon))
    return np.asarray(np.cumsum(drawn, axis=1), dtype=np.float64)
