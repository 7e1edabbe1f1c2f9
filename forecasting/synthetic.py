"""A seeded usage generator, for a first run without data and for tests. Everything it makes says ``synthetic``."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np

from forecasting.base import Array, History

DAY = timedelta(days=1)
NIGHT_TO_DAY = 0.45
"""Half the swing between night and day, relative to the level."""
WEEKEND = 0.65
"""Weekend usage relative to a working day."""


def synthetic_history(
    *,
    seed: int,
    series_id: str = "synthetic-1",
    start: datetime | None = None,
    days: float = 56,
    freq: timedelta = timedelta(hours=1),
    level: float = 20.0,
    noise: float = 0.06,
    growth: float = 0.0,
) -> History:
    """Daily and weekly cycles with autocorrelated noise, in the units of ``level``; never negative.

    ``noise`` is the standard deviation relative to the mean; ``growth`` the relative growth over the span.
    """
    start = start or datetime(2026, 1, 5, tzinfo=UTC)
    mean = true_mean(start, freq, round(days * DAY / freq), level=level, growth=growth)
    values = np.maximum(mean * (1 + noise * red_noise(len(mean), seed)), 0.0)
    return History(series_id, start, freq, values, synthetic=True)


def synthetic_fleet(count: int, *, seed: int, **options: object) -> Sequence[History]:
    """``count`` series of different level and noise."""
    rng = np.random.default_rng(seed)
    levels, noises = rng.lognormal(2.5, 0.8, count), rng.uniform(0.03, 0.15, count)
    return [
        synthetic_history(
            seed=seed * 1000 + i,
            series_id=f"synthetic-{i + 1}",
            level=float(levels[i]),
            noise=float(noises[i]),
            **options,  # type: ignore[arg-type]  # the keywords of synthetic_history
        )
        for i in range(count)
    ]


def true_mean(start: datetime, freq: timedelta, steps: int, *, level: float, growth: float = 0.0) -> Array:
    """The noise-free demand of each step, shape (steps,): what a perfect forecast would centre on."""
    seconds = start.timestamp() + np.arange(steps) * freq.total_seconds()
    hour = seconds / 3600 % 24
    weekday = (seconds // 86400 + 3) % 7
    daily = 1 - NIGHT_TO_DAY * np.cos((hour - 3) / 24 * 2 * np.pi)
    weekly = np.where(weekday >= 5, WEEKEND, 1.0)
    trend = 1 + growth * np.arange(steps) / max(steps - 1, 1)
    return np.asarray(level * daily * weekly * trend, dtype=np.float64)


def red_noise(steps: int, seed: int, memory: float = 0.7) -> Array:
    """Standard normal at every step, correlation ``memory`` from one step to the next."""
    shocks = np.random.default_rng(seed).standard_normal(steps)
    out = np.empty(steps)
    out[0] = shocks[0]
    for i in range(1, steps):
        out[i] = memory * out[i - 1] + np.sqrt(1 - memory**2) * shocks[i]
    return out
