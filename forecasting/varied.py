"""Generated series of many characters, mixed into training so that the network meets more than the traces hold."""

from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from forecasting.base import Array, History
from forecasting.synthetic import DAY, red_noise

START = datetime(2026, 1, 5, tzinfo=UTC)


def varied_series(number: int, *, seed: int, days: float, freq: timedelta) -> History:
    """Cycles, trends, level shifts, bursts, batch jobs, counts and random walks, mixed; another mixture for each
    ``number`` (from 0) and seed."""
    return _varied(f"varied-{number + 1}", np.random.default_rng([seed, number]), days, freq)


def _varied(name: str, rng: np.random.Generator, days: float, freq: timedelta) -> History:
    per_day, steps = round(DAY / freq), round(days * DAY / freq)
    start = START + int(rng.integers(0, 7 * per_day)) * freq
    phase = int((start - START) / freq) + np.arange(steps, dtype=np.int64)
    shape = 1 + _daily(rng, phase, per_day) * _weekly(rng, phase, per_day)
    level = np.exp(_trend(rng, steps) + _shifts(rng, steps) + _walk(rng, steps))
    memory = rng.uniform(0, 0.98) ** (24 / per_day)
    noise = (
        rng.choice([0.02, 0.08, 0.2, 0.5])
        * rng.uniform(0.5, 1.5)
        * red_noise(steps, int(rng.integers(1 << 30)), memory)
    )
    values = np.maximum(shape * level * np.exp(noise - noise.var() / 2), 0) + _bursts(rng, steps, per_day)
    if rng.random() < 0.3:
        values = rng.poisson(np.minimum(values * rng.choice([1, 5, 30, 200]), 1e6)).astype(np.float64)
    return History(name, start, freq, values * 10 ** rng.uniform(-2, 4), synthetic=True)


def _daily(rng: np.random.Generator, phase: NDArray[np.int64], per_day: int) -> Array:
    """Smooth waves, office hours, or a job at a fixed time; around -1 … 1."""
    kind, day = rng.random(), phase % per_day / per_day
    if kind < 0.15:
        return np.zeros(len(phase))
    if kind < 0.65:
        waves = sum(
            rng.normal() / k * np.cos(2 * np.pi * (k * day + rng.random())) for k in range(1, int(rng.integers(2, 6)))
        )
        return np.asarray(rng.uniform(0.2, 0.9) * waves / max(float(np.abs(waves).max()), 1e-9), dtype=np.float64)
    begin, width = rng.random(), rng.uniform(0.25, 0.5) if kind < 0.85 else rng.uniform(0.02, 0.1)
    inside = (day - begin) % 1 < width
    return np.where(inside, rng.uniform(0.5, 3.0), -rng.uniform(0, 0.5))


def _weekly(rng: np.random.Generator, phase: NDArray[np.int64], per_day: int) -> Array:
    weekday = phase // per_day % 7
    if rng.random() < 0.4:
        return np.ones(len(phase))
    by_day = np.ones(7) if rng.random() < 0.6 else rng.uniform(0.5, 1.5, 7)
    by_day[5:] *= rng.uniform(0, 0.9)
    return np.asarray(by_day[weekday], dtype=np.float64)


def _trend(rng: np.random.Generator, steps: int) -> Array:
    return np.linspace(0, rng.normal() * 0.6 if rng.random() < 0.4 else 0.0, steps)


def _shifts(rng: np.random.Generator, steps: int) -> Array:
    """The level moves for good, none to five times."""
    moved = np.zeros(steps)
    for _ in range(int(rng.choice([0, 0, 0, 1, 2, 5]))):
        moved[int(rng.integers(steps)) :] += rng.normal() * 0.7
    return moved


def _walk(rng: np.random.Generator, steps: int) -> Array:
    return np.cumsum(rng.standard_normal(steps)) * rng.uniform(0, 0.03) if rng.random() < 0.3 else np.zeros(steps)


def _bursts(rng: np.random.Generator, steps: int, per_day: int) -> Array:
    """Flash crowds that come at once and fade, now and then or often."""
    if rng.random() < 0.5:
        return np.zeros(steps)
    height = np.zeros(steps)
    hits = rng.random(steps) < rng.choice([0.1, 0.5, 2.0]) / per_day
    height[hits] = rng.pareto(2.5, hits.sum()) + 0.3
    fade = rng.uniform(0, 0.8)
    for i in range(1, steps):
        height[i] = max(height[i], fade * height[i - 1])
    return height
