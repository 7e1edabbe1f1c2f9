"""Intermittent demand: whether there is any, by hour of week and by whether there was just before; and how much."""

from datetime import timedelta
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from engine.errors import BadUsageData
from forecasting.base import Array, History
from forecasting.sample_forecast import SampleForecast

PATHS = 500
HOURS = 168
SHORTEST = 48
"""Measured steps, below which zeros say nothing about when there is demand."""
HALF_LIFE = timedelta(days=14)
"""So old an hour counts half in the probability of demand."""
LOOKED_AT = timedelta(days=56)
WEAKEST, STRONGEST = 1.0, 50.0
"""An hour of week leans on its hour of day, and that on all hours, as though these had been seen so often."""
FEWEST_SIZES = 60
"""Fewer sizes than this around an hour of day: those of all hours are taken."""
STICKIEST = 0.995


class Hurdle:
    """Zero or not is a chain whose marginals are the probabilities of demand by hour of week (recent weeks count more),
    as persistent as it was; sizes are drawn from those of the last eight weeks around the hour of day, and follow each
    other as they did. After Croston, and Teunter, Syntetos and Babai (2011), with paths in place of a rate.

    Raises BadUsageData for fewer than 48 measured steps.
    """

    name = "hurdle"

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed
        self._history: History | None = None

    def fit(self, history: History) -> "Hurdle":
        measured = int(np.isfinite(history.values).sum())
        if measured < SHORTEST:
            raise BadUsageData(
                f"series {history.series_id!r} is too short to tell when there is demand",
                why=f"{measured} measured steps; {SHORTEST} are needed",
                next_step="give a longer history, or use the last_value forecaster",
            )
        self._history = history
        return self

    def predict(self, horizon: int) -> SampleForecast:
        if self._history is None:
            raise RuntimeError(f"{self.name}: fit() comes before predict()")
        history = self._history
        length = len(history.values)
        recent = slice(max(length - LOOKED_AT // history.freq, 0), length)
        values, hours = history.values[recent], hours_of_week(history, np.arange(length)[recent])
        ahead = hours_of_week(history, length + np.arange(horizon))
        rng = np.random.default_rng([self.seed, crc32(history.series_id.encode())])
        paths = np.where(_occurrences(values, hours, ahead, history.freq, rng), _sizes(values, hours, ahead, rng), 0.0)
        return SampleForecast(history.series_id, history.end, history.freq, paths, self.name, seed=self.seed)


def intermittent(history: History, share: float = 0.3) -> bool:
    """Whether so many of the measured steps of the last eight weeks are zero, and not all of them."""
    values = history.values[-(LOOKED_AT // history.freq) :]
    measured = values[np.isfinite(values)]
    return bool(len(measured) and measured.any() and np.mean(measured == 0) >= share)


def hours_of_week(history: History, steps: NDArray[np.int64]) -> NDArray[np.int64]:
    """0 … 167 of each step's begin."""
    seconds = history.start.timestamp() + steps * history.freq.total_seconds()
    return np.asarray(seconds // 3600 % HOURS, dtype=np.int64)


def _occurrences(
    values: Array, hours: NDArray[np.int64], ahead: NDArray[np.int64], freq: timedelta, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """(PATHS, horizon)"""
    chances = _chances(values, hours, freq)
    seen = np.isfinite(values)
    there = np.where(seen, values != 0, np.nan)
    surprise = there - chances[hours]
    pairs = seen[1:] & seen[:-1]
    spread = float(np.sum(surprise[:-1][pairs] ** 2))
    stick = float(np.sum(surprise[1:][pairs] * surprise[:-1][pairs])) / spread if spread > 0 else 0.0
    stick = float(np.clip(stick, 0.0, STICKIEST))
    newest = int(np.flatnonzero(seen)[-1])
    before = np.full(PATHS, surprise[newest] * stick ** (len(values) - 1 - newest))
    made = np.empty((PATHS, len(ahead)), dtype=np.bool_)
    for step, chance in enumerate(chances[ahead]):
        made[:, step] = _even(rng) < np.clip(chance + stick * before, 0.0, 1.0)
        before = made[:, step] - chance
    return made


def _chances(values: Array, hours: NDArray[np.int64], freq: timedelta) -> Array:
    """(168,): probability of demand in a step of each hour of week."""
    seen = np.isfinite(values)
    age = np.arange(len(values))[::-1] * (freq / HALF_LIFE)
    weight = np.where(seen, 0.5**age, 0.0)
    there = weight * (np.nan_to_num(values) != 0)
    some, count, squares = (
        np.bincount(hours, part, HOURS).astype(np.float64).reshape(7, 24) for part in (there, weight, weight**2)
    )
    overall = some.sum() / count.sum()
    if overall in (0.0, 1.0):
        return np.full(HOURS, overall)
    by_day = _shrunk(some.sum(axis=0), count.sum(axis=0), squares.sum(axis=0), np.full(24, overall))
    return _shrunk(some, count, squares, np.tile(by_day, (7, 1))).ravel()


def _shrunk(some: Array, count: Array, squares: Array, towards: Array) -> Array:
    """Shares ``some / count``, drawn towards others the more, the less they differ from those than by chance: a beta
    prior whose strength is that of the method of moments. ``squares``: sums of the squared weights that ``count`` sums.
    """
    noise = towards * (1 - towards)
    seen = count > 0
    spread = np.average((some[seen] / count[seen] - towards[seen]) ** 2, weights=count[seen])
    alone = float(np.average(squares[seen] / count[seen] ** 2, weights=count[seen]))
    between = (spread - alone * noise[seen].mean()) / max(1 - alone, 1e-9)
    strength = np.clip(noise[seen].mean() / max(between, 1e-9) - 1, WEAKEST, STRONGEST)
    return np.asarray((some + strength * towards) / (count + strength), dtype=np.float64)


def _sizes(values: Array, hours: NDArray[np.int64], ahead: NDArray[np.int64], rng: np.random.Generator) -> Array:
    """(PATHS, horizon): how much, if there is any."""
    there = np.isfinite(values) & (values != 0)
    if not there.any():
        return np.zeros((PATHS, len(ahead)))
    sizes = np.sort(values[there])
    follow, newest = _following(values[there], sizes)
    made = np.empty((PATHS, len(ahead)))
    score = np.full(PATHS, newest)
    for step, hour in enumerate(ahead):
        score = follow * score + np.sqrt(1 - follow**2) * ndtri(_even(rng))
        distance = np.abs((hours - hour + 12) % 24 - 12)
        near = np.sort(values[there & (distance <= 1)])
        pool = near if len(near) >= FEWEST_SIZES else sizes
        made[:, step] = pool[np.minimum((ndtr(score) * len(pool)).astype(np.int64), len(pool) - 1)]
    return made


def _following(sizes: Array, ordered: Array) -> tuple[float, float]:
    """How much a size's normal score follows the one before it, and the score of the newest size."""
    low, high = np.searchsorted(ordered, sizes, "left"), np.searchsorted(ordered, sizes, "right")
    scores = ndtri((low + high) / 2 / len(ordered) if len(ordered) > 1 else np.full(1, 0.5))
    spread = float(np.sum(scores[:-1] ** 2))
    follow = float(np.sum(scores[1:] * scores[:-1])) / spread if len(scores) > 2 and spread > 0 else 0.0
    return float(np.clip(follow, 0.0, STICKIEST)), float(scores[-1])


def _even(rng: np.random.Generator) -> Array:
    """(PATHS,): uniform, one in each of as many equal parts, in random order."""
    return np.asarray((rng.permutation(PATHS) + rng.uniform(size=PATHS)) / PATHS, dtype=np.float64)
