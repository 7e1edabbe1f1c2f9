"""What a series' own past says about a step ahead: empirical quantiles of the values that resemble it.

Each expert is a quantile function, monotone in the level. The network picks per step how much each one counts.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from forecasting.base import Array

EXPERTS = 10
WEEKS = 6
"""The longest look back."""
MOST_VALUES = 168
"""Longer stretches are thinned to about so many values."""

Index = NDArray[np.int64]


def expert_quantiles(
    at: Callable[[Index], Array], base: Index, *, per_day: int, horizon: int, reach: int, levels: Sequence[float]
) -> Array:
    """(B, horizon, EXPERTS, levels), NaN where an expert knows nothing.

    ``at`` gives the values at absolute positions; nothing at or after ``base`` (B,) is looked at. ``reach`` is the
    longest horizon of the network. The experts: the last quarter of a day, day, week and four weeks; the same time of
    day over 5 and 14 days; the same time of week over six weeks; yesterday plus its usual error; the last value plus
    its usual change; last week plus its usual error.
    """
    made = [
        *(_recent(at, base, span, horizon, levels) for span in (max(per_day // 4, 4), per_day, 7 * per_day)),
        _recent(at, base, 28 * per_day, horizon, levels),
        _same_time(at, base, [per_day * d for d in range(1, 6)], per_day, horizon, levels),
        _same_time(at, base, [per_day * d for d in range(1, 15)], per_day, horizon, levels),
        _same_time(at, base, [7 * per_day * w for w in range(1, WEEKS + 1)], per_day, horizon, levels),
        _season_and_error(at, base, per_day, 7 * per_day, horizon, levels),
        _last_and_change(at, base, per_day, horizon, max(horizon, reach), levels),
        _season_and_error(at, base, 7 * per_day, 21 * per_day, horizon, levels),
    ]
    return np.stack(made, axis=2)


def row_quantiles(values: Array, levels: Sequence[float]) -> Array:
    """(..., n) with NaN for unknown -> (..., levels), Hazen's positions; NaN where a row knows nothing."""
    ordered = np.sort(values, axis=-1)
    count = np.isfinite(values).sum(axis=-1, keepdims=True)
    place = np.clip(count * np.array(levels) - 0.5, 0.0, np.maximum(count - 1, 0))
    low = place.astype(np.int64)
    high = np.minimum(low + 1, np.maximum(count - 1, 0))
    below = np.take_along_axis(ordered, low, axis=-1)
    above = np.take_along_axis(ordered, high, axis=-1)
    return np.asarray(below + (place - low) * (above - below), dtype=np.float64)


def _thinned(span: int) -> Index:
    return np.arange(1, span + 1, max(1, span // MOST_VALUES), dtype=np.int64)


def _recent(at: Callable[[Index], Array], base: Index, span: int, horizon: int, levels: Sequence[float]) -> Array:
    found = row_quantiles(at(base[:, None] - _thinned(span)), levels)
    return np.broadcast_to(found[:, None], (len(base), horizon, len(levels)))


def _same_time(
    at: Callable[[Index], Array], base: Index, lags: list[int], per_day: int, horizon: int, levels: Sequence[float]
) -> Array:
    """The values around the same time (half an hour, or a step) at the lags, where they lie before the origin."""
    beside = max(1, per_day // 48)
    shift = (np.arange(-1, 2) * beside - np.array(lags)[:, None]).ravel()
    ahead = np.arange(horizon)[:, None] + shift
    return row_quantiles(_known(at, base, ahead), levels)


def _season_and_error(
    at: Callable[[Index], Array], base: Index, season: int, span: int, horizon: int, levels: Sequence[float]
) -> Array:
    """The value of the season before each step plus the errors that this would have made over the last ``span``."""
    lag = (np.arange(horizon) // season + 1) * season
    point = at(base[:, None] + np.arange(horizon) - lag)
    then = base[:, None] - _thinned(span)
    errors = row_quantiles(at(then) - at(then - season), levels)
    return np.asarray(point[..., None] + errors[:, None, :], dtype=np.float64)


def _last_and_change(
    at: Callable[[Index], Array], base: Index, per_day: int, horizon: int, reach: int, levels: Sequence[float]
) -> Array:
    """The last value plus what changed over as many steps from 56 origins of the last 14 days."""
    origins = base[:, None] - reach - np.arange(56) * max(1, per_day // 4)
    before = at(origins - 1)
    changes = np.stack([at(origins + step) - before for step in range(horizon)], axis=1)
    recent = at(base[:, None] - np.arange(1, 7))
    newest = np.argmax(np.isfinite(recent), axis=1)
    last = recent[np.arange(len(base)), newest]
    return np.asarray(last[:, None, None] + row_quantiles(changes, levels), dtype=np.float64)


def _known(at: Callable[[Index], Array], base: Index, ahead: Index) -> Array:
    values = at(base[:, None, None] + np.minimum(ahead, -1))
    return np.where(ahead < 0, values, np.nan)
