"""A forecast is a distribution; a forecaster makes one from a history. Imports no torch."""

from datetime import datetime, timedelta
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class History:
    """One regular series: ``values[i]`` belongs to [start + i*freq, start + (i+1)*freq). NaN: not measured.

    Units are the metric's own (cores, GiB, requests per step …); ``start`` is aware UTC.
    """

    def __init__(
        self, series_id: str, start: datetime, freq: timedelta, values: Array, *, synthetic: bool = False
    ) -> None:
        if start.tzinfo is None:
            raise ValueError("History.start needs a time zone")
        self.series_id, self.start, self.freq, self.values, self.synthetic = series_id, start, freq, values, synthetic

    @property
    def measured_end(self) -> datetime:
        """The end of the last step that holds a value; ``start`` where none does."""
        measured = np.flatnonzero(np.isfinite(self.values))
        return self.start + (int(measured[-1]) + 1 if len(measured) else 0) * self.freq

    @property
    def end(self) -> datetime:
        """The first moment that is not part of the history: where a forecast starts."""
        return self.start + len(self.values) * self.freq


def until(history: History, origin: int) -> History:
    """The first ``origin`` steps of a history."""
    return History(history.series_id, history.start, history.freq, history.values[:origin], synthetic=history.synthetic)


class Forecast(Protocol):
    """Demand over ``horizon`` steps of ``freq`` from ``start``, in the history's units."""

    series_id: str
    start: datetime
    freq: timedelta
    horizon: int
    forecaster: str

    def quantile(self, q: float) -> Array:
        """Shape (horizon,). Monotone in q."""
        ...

    def sample_paths(self, n: int) -> Array:
        """Shape (n, horizon), joint over time; same n, same paths."""
        ...

    def probability_of_needing(self, additional: float, within: timedelta, *, current: float) -> float:
        """P(the maximum of demand within the window >= current + additional), read from path maxima."""
        ...


class Forecaster(Protocol):
    name: str

    def fit(self, history: History) -> "Forecaster":
        """Learn; returns self. Raises BadUsageData when the history is too short for this forecaster."""
        ...

    def predict(self, horizon: int) -> Forecast: ...
