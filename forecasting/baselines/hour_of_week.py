"""This hour of the week was so the last weeks: what happened then, as it happened."""

from datetime import timedelta

import numpy as np

from engine.errors import BadUsageData
from forecasting.base import Array, History
from forecasting.baselines.last_value import FEWEST_PATHS, fill_forward, keep_sign
from forecasting.baselines.seasonal_naive import steps_of
from forecasting.sample_forecast import SampleForecast

MOST_WEEKS = 8
BESIDE = timedelta(hours=1)


class HourOfWeek:
    """Each path is a past stretch that began at the same time of the week, up to an hour sooner or later.

    Up to eight weeks back. Raises BadUsageData when the step does not divide a week, or for less than three weeks.
    """

    name = "hour_of_week"

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed
        self._history: History | None = None

    def fit(self, history: History) -> "HourOfWeek":
        week = steps_of(history, timedelta(days=7))
        if not week or len(history.values) < 3 * week or not np.isfinite(history.values).any():
            raise BadUsageData(
                f"series {history.series_id!r} is too short for hour-of-week quantiles",
                why=f"{len(history.values)} steps of {history.freq}; three whole measured weeks are needed",
                next_step="give a longer history, or use the seasonal_naive forecaster",
            )
        self._history = history
        return self

    def predict(self, horizon: int) -> SampleForecast:
        if self._history is None:
            raise RuntimeError(f"{self.name}: fit() comes before predict()")
        history = self._history
        paths = keep_sign(_past_stretches(history, horizon), history.values)
        return SampleForecast(history.series_id, history.end, history.freq, paths, self.name, seed=self.seed)


def _past_stretches(history: History, horizon: int) -> Array:
    """(n, horizon); a horizon longer than a week takes whole multiples of weeks back."""
    week, beside = steps_of(history, timedelta(days=7)), max(1, round(BESIDE / history.freq))
    filled, length = fill_forward(history.values), len(history.values)
    nearest = -(-(horizon + beside) // week)
    starts = [
        length - week * back + shift
        for back in range(nearest, MOST_WEEKS + nearest)
        for shift in dict.fromkeys((-beside, 0, beside))
    ]
    usable = [start for start in starts if start >= 0 and start + horizon <= length]
    if not usable:
        usable = [max(length - horizon, 0)]
    paths = np.stack([np.resize(filled[start : start + horizon], horizon) for start in usable])
    return np.tile(paths, (-(-FEWEST_PATHS // len(paths)), 1)) if len(paths) < FEWEST_PATHS else paths
