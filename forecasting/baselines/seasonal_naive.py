"""Tomorrow is like yesterday (or the same day last week), with the errors that this would have made before."""

from datetime import timedelta
from typing import Literal

import numpy as np

from engine.errors import BadUsageData
from forecasting.base import Array, History
from forecasting.baselines.last_value import FEWEST_PATHS, fill_forward, keep_sign, residual_paths
from forecasting.sample_forecast import SampleForecast

Season = Literal["day", "week", "auto"]
SPANS = {"day": timedelta(days=1), "week": timedelta(days=7)}


class SeasonalNaive:
    """The value one season before each step plus joint empirical residual paths.

    ``auto`` takes the season with the smaller mean absolute error on the history. Raises BadUsageData when the
    step does not divide a day, or when the history does not hold two seasons and a few complete residual paths.
    """

    def __init__(self, season: Season = "auto", *, seed: int = 0) -> None:
        self.season, self.seed = season, seed
        self.name = "seasonal_naive" if season == "auto" else f"seasonal_naive_{season}"
        self._history: History | None = None
        self._period = 0

    def fit(self, history: History) -> "SeasonalNaive":
        names = ("day", "week") if self.season == "auto" else (self.season,)
        periods = [p for p in (steps_of(history, SPANS[name]) for name in names) if p and _errors(history, p).size]
        if not periods:
            raise BadUsageData(
                f"series {history.series_id!r} is too short for a seasonal forecast",
                why=f"{len(history.values)} steps of {history.freq}; two whole {' or '.join(names)}s are needed",
                next_step="give a longer history, or use the last_value forecaster",
            )
        self._history = history
        self._period = min(periods, key=lambda period: float(np.mean(np.abs(_errors(history, period)))))
        return self

    def predict(self, horizon: int) -> SampleForecast:
        history = self._history
        if history is None:
            raise RuntimeError(f"{self.name}: fit() comes before predict()")
        values, period = history.values, self._period
        filled = _fill_by_season(values, period)
        lags = (np.arange(horizon, dtype=np.int64) // period + 1) * period
        residuals = residual_paths(values, horizon, lag_of_step=lags, filled=filled)
        if len(residuals) < FEWEST_PATHS:
            residuals = self._drawn(horizon)
        point = filled[len(filled) + np.arange(horizon) - lags]
        paths = keep_sign(point + residuals, values)
        return SampleForecast(history.series_id, history.end, history.freq, paths, self.name, seed=self.seed)

    def _drawn(self, horizon: int) -> Array:
        """Too few complete residual paths (gaps, or a short history): independent draws of single errors."""
        assert self._history is not None
        rng = np.random.default_rng(self.seed)
        return np.asarray(rng.choice(_errors(self._history, self._period), size=(200, horizon)), dtype=np.float64)


def steps_of(history: History, span: timedelta) -> int:
    """How many steps make the span; 0 when it is not a whole number of them."""
    steps, rest = divmod(span, history.freq)
    return 0 if rest else int(steps)


def _errors(history: History, period: int) -> Array:
    """One-season errors where both values were measured; empty for a history shorter than two seasons."""
    values = history.values
    if len(values) < 2 * period:
        return np.empty(0)
    errors = values[period:] - values[:-period]
    kept: Array = errors[np.isfinite(errors)]
    return kept


def _fill_by_season(values: Array, period: int) -> Array:
    """A gap takes the value of the season before, else whatever was measured last."""
    filled = np.array(values, dtype=np.float64)
    for start in range(period, len(filled), period):
        block = filled[start : start + period]
        earlier = filled[start - period : start - period + len(block)]
        block[:] = np.where(np.isfinite(block), block, earlier)
    return fill_forward(filled)
