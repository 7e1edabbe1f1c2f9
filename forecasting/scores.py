"""What forecasts lost, series by series, and how one forecaster stands beside the reference."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.model.value import Value
from forecasting.base import Array, Forecast
from forecasting.losses import DECILES, geometric_mean, pinball

LEVELS = (0.01, 0.05, *DECILES, 0.95, 0.99)
DECILE_COLUMNS = slice(LEVELS.index(0.1), LEVELS.index(0.9) + 1)
LEAST_RATIO, MOST_RATIO = 1e-3, 1e3
"""Ratios are kept within, so that one series without any loss cannot decide a geometric mean."""


class Coverage(Value):
    """Share of the measured steps at or below the quantile ``level``: as many as the level says, if calibrated."""

    level: float
    below: float


class Standing(Value):
    """One forecaster over all series. Ratios are geometric means over series of loss / seasonal-naive loss;
    coverages are shares of the measured steps, over all series and origins."""

    forecaster: str
    wql: float
    wql_ratio: float
    worst_ratio: float
    pinball_95_ratio: float
    pinball_99_ratio: float
    mase_ratio: float
    coverage_80: float
    coverage_90: float
    below_99: float
    coverage: tuple[Coverage, ...]


class Tally:
    """Losses of one forecaster on one series."""

    def __init__(self) -> None:
        self.pinball: Array = np.zeros(len(LEVELS))
        self.below: NDArray[np.int64] = np.zeros(len(LEVELS), dtype=np.int64)
        self.error = self.truth = 0.0
        self.inside_80 = self.inside_90 = self.steps = 0

    def add(self, truth: Array, forecast: Forecast) -> None:
        """``truth`` (horizon,), NaN for gaps."""
        rows = np.stack([forecast.quantile(level) for level in LEVELS])
        for i, level in enumerate(LEVELS):
            self.pinball[i] += float(np.nansum(pinball(truth, rows[i], level)))
        self.below += (truth <= rows).sum(axis=1)
        self.error += float(np.nansum(np.abs(truth - rows[LEVELS.index(0.5)])))
        self.truth += float(np.nansum(np.abs(truth)))
        self.steps += int(np.isfinite(truth).sum())
        self.inside_80 += _inside(truth, rows, 0.1, 0.9)
        self.inside_90 += _inside(truth, rows, 0.05, 0.95)

    def include(self, other: "Tally") -> None:
        """What another tally of the same series holds."""
        self.pinball += other.pinball
        self.below += other.below
        self.error += other.error
        self.truth += other.truth
        self.steps += other.steps
        self.inside_80 += other.inside_80
        self.inside_90 += other.inside_90

    @property
    def loss(self) -> float:
        """Twice the pinball loss, averaged over the deciles, summed over the steps."""
        return 2 * float(self.pinball[DECILE_COLUMNS].mean())

    def at(self, level: float) -> float:
        return float(self.pinball[LEVELS.index(level)])


def standing(name: str, own: Sequence[Tally], reference: Sequence[Tally]) -> Standing:
    """One tally per series each, in the same order; at least one series."""
    pairs = list(zip(own, reference, strict=True))
    ratios = [ratio(a.loss, b.loss) for a, b in pairs]
    steps = max(sum(tally.steps for tally in own), 1)
    below = np.sum([tally.below for tally in own], axis=0) / steps
    return Standing(
        forecaster=name,
        wql=sum(tally.loss for tally in own) / (sum(tally.truth for tally in own) or 1.0),
        wql_ratio=geometric_mean(ratios),
        worst_ratio=max(ratios),
        pinball_95_ratio=geometric_mean([ratio(a.at(0.95), b.at(0.95)) for a, b in pairs]),
        pinball_99_ratio=geometric_mean([ratio(a.at(0.99), b.at(0.99)) for a, b in pairs]),
        mase_ratio=geometric_mean([ratio(a.error, b.error) for a, b in pairs]),
        coverage_80=sum(tally.inside_80 for tally in own) / steps,
        coverage_90=sum(tally.inside_90 for tally in own) / steps,
        below_99=float(below[LEVELS.index(0.99)]),
        coverage=tuple(Coverage(level=level, below=float(share)) for level, share in zip(LEVELS, below, strict=True)),
    )


def ratio(own: float, reference: float) -> float:
    if reference <= 0:
        return 1.0 if own <= 0 else MOST_RATIO
    return float(np.clip(own / reference, LEAST_RATIO, MOST_RATIO))


def _inside(truth: Array, rows: Array, low: float, high: float) -> int:
    return int(np.sum((truth >= rows[LEVELS.index(low)]) & (truth <= rows[LEVELS.index(high)])))
