"""Whether "70 % probability of needing k more" comes true seven times in ten."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from math import ceil

import numpy as np

from engine.model.value import Value
from forecasting.base import Array, Forecast, History
from forecasting.target import shards_for

ADDITIONAL = (1, 2, 3, 4)
BINS = 10
FEWEST = 30
"""A bin with fewer questions than this says nothing."""
PEAK_SHARDS = 6
"""The usage of one shard: so many serve a series' peak."""


class ReliabilityBin(Value):
    """``questions`` whose predicted probability lay in the bin: their mean, and how often it came true."""

    additional: int
    predicted: float
    observed: float
    questions: int


@dataclass
class Questions:
    """P(need >= k more within the window) against what happened, k = 1 … 4."""

    predicted: dict[int, list[float]] = field(default_factory=lambda: {k: [] for k in ADDITIONAL})
    happened: dict[int, list[bool]] = field(default_factory=lambda: {k: [] for k in ADDITIONAL})

    def ask(self, past: History, truth: Array, forecast: Forecast, within: timedelta) -> None:
        """Left out where the window is not wholly measured or nothing was measured before."""
        steps = max(ceil(within / forecast.freq), 1)
        measured = past.values[np.isfinite(past.values)]
        peak = float(np.quantile(measured, 0.99)) if len(measured) else 0.0
        if peak <= 0 or not np.isfinite(truth[:steps]).all():
            return
        per_shard = peak / PEAK_SHARDS
        now = int(shards_for(measured[-1:], per_shard)[0])
        needed = int(shards_for(truth[:steps], per_shard).max()) - now
        extra = shards_for(forecast.sample_paths(400)[:, :steps], per_shard).max(axis=1) - now
        for k in ADDITIONAL:
            self.predicted[k].append(float(np.mean(extra >= k)))
            self.happened[k].append(needed >= k)

    def include(self, other: "Questions") -> None:
        """Ask all that another asked, after one's own."""
        for k in ADDITIONAL:
            self.predicted[k] += other.predicted[k]
            self.happened[k] += other.happened[k]


def reliability(questions: Questions) -> tuple[ReliabilityBin, ...]:
    """Bins of equal width per k; those with too few questions are left out."""
    made = []
    for k in ADDITIONAL:
        predicted, happened = np.array(questions.predicted[k]), np.array(questions.happened[k])
        place = np.minimum((predicted * BINS).astype(int), BINS - 1)
        for index in range(BINS):
            chosen = place == index
            if chosen.sum() >= FEWEST:
                made.append(
                    ReliabilityBin(
                        additional=k,
                        predicted=float(predicted[chosen].mean()),
                        observed=float(happened[chosen].mean()),
                        questions=int(chosen.sum()),
                    )
                )
    return tuple(made)


def calibration_error(bins: Sequence[ReliabilityBin], additional: int | None = None) -> float:
    """Mean |predicted - observed| over the questions (of one k, or of all); NaN without bins."""
    some = [b for b in bins if additional in (None, b.additional)]
    total = sum(b.questions for b in some)
    return sum(b.questions * abs(b.predicted - b.observed) for b in some) / total if total else float("nan")
