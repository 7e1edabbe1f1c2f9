"""Quantile gradient boosting on lags, calendar and the step ahead: what one would try before a network.

The only file that imports scikit-learn (extra ``boosting``), and only when it is asked for.
"""

from datetime import timedelta
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from engine.errors import BadUsageData, MissingPart
from forecasting.base import Array, History
from forecasting.baselines.last_value import fill_forward, keep_sign
from forecasting.rnn.levels import LEVELS, MEDIAN
from forecasting.sample_forecast import SampleForecast

Steps = NDArray[np.int64]
PATHS = 500
DAY, WEEK = timedelta(days=1), timedelta(days=7)
LOOKED_AT = timedelta(days=91)
FEWEST_LOOKED_AT = 2000
"""Of a history with long steps, more than 91 days are looked at: so many steps."""
SHORTEST = 100
"""Measured steps that are needed where two weeks hold fewer."""
MOST_ROWS = 20_000
"""Pairs of an origin and a step ahead that are drawn to learn from."""
MOST_ORIGINS = 200
"""At which the errors of the median are looked at together."""
LATEST = 4
"""The latest values that are features by themselves."""
DAYS_BACK = 8
"""Values at the same time of day, from the last one that is known on."""
WEEKS_BACK = 4
"""And at the same time of the week."""
ANCHORS = 5
"""What a value may be taken beside: the last one, the means of the last day and week, of the same time of day and of
the same time of the week; that which was nearest to the values of the series."""
FLATTEST = 1e-3
"""A window's scale is at least so much of the series' mean absolute value."""
TREES = {"max_iter": 40, "learning_rate": 0.1, "max_leaf_nodes": 8, "max_bins": 63}
FEWEST_IN_LEAF, LEAF_SHARE = 20, 40
"""A leaf holds at least a fortieth of the rows: those of one value are many, and say one thing."""


class GradientBoosting:
    """A model per quantile level, for all steps ahead at once: the step is a feature (direct multi-horizon). Values are
    taken beside an average of the past, the one that suits the series, in units of the last week's standard deviation.

    Levels that cross are put in order (Chernozhukov, Fernández-Val and Galichon, 2010). Paths get the order of past
    errors of the median, step by step (Schaake shuffle; Clark et al., 2004), so they hang together as those did.
    One thread; same history and seed, same forecast. Raises BadUsageData for less than two weeks (and 100 steps)
    measured in the last 91 days, MissingPart without scikit-learn.
    """

    name = "gradient_boosting"

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed
        self._history: History | None = None

    def fit(self, history: History) -> "GradientBoosting":
        require_boosting()
        measured = int(np.isfinite(_looked_at(history)).sum())
        shortest = max(2 * _steps_in(WEEK, history.freq), SHORTEST)
        if measured < shortest:
            raise BadUsageData(
                f"series {history.series_id!r} is too short for gradient boosting",
                why=f"{measured} steps of {history.freq} were measured lately; {shortest} are needed",
                next_step="give a longer history, or use the seasonal_naive forecaster",
            )
        self._history = history
        return self

    def predict(self, horizon: int) -> SampleForecast:
        """Trains here, since the models are those of a horizon."""
        history = self._history
        if history is None:
            raise RuntimeError(f"{self.name}: fit() comes before predict()")
        rng = np.random.default_rng([self.seed, crc32(history.series_id.encode())])
        past = _past(history)
        reach = min(horizon, (len(past.values) - past.week + 1) // 2)
        models = _trained(past, reach, rng)
        now = np.full(horizon, len(past.values))
        quantiles = np.sort(_predicted(models, past, now, np.arange(horizon)), axis=1)
        errors = np.pad(_errors(models, past, rng), ((0, 0), (0, horizon - reach)), mode="symmetric")
        paths = keep_sign(past.unit * _in_order_of(errors, quantiles), history.values)
        return SampleForecast(history.series_id, history.end, history.freq, paths, self.name, seed=self.seed)


def require_boosting() -> None:
    """Raises MissingPart where the extra is not installed."""
    try:
        import sklearn.ensemble  # noqa: F401
        import threadpoolctl  # noqa: F401
    except ImportError as problem:
        raise MissingPart(
            "gradient boosting needs scikit-learn, which is not installed",
            why="it is an extra of this package",
            next_step=".venv/bin/uv pip install --require-hashes -r requirements/boosting.txt",
        ) from problem


class _Past(NamedTuple):
    """What is looked at, in units of its mean absolute value. ``centre[o]`` and ``scale[o]``: of the week before
    step o; ``last_day[o]``: the mean of the day before it."""

    values: Array
    unit: float
    filled: Array
    centre: Array
    scale: Array
    last_day: Array
    start: float
    """Seconds since the epoch."""
    seconds: float
    """A step's."""
    day: int
    week: int


def _looked_at(history: History) -> Array:
    return history.values[-max(LOOKED_AT // history.freq, FEWEST_LOOKED_AT) :]


def _past(history: History) -> _Past:
    values = _looked_at(history)
    unit = float(np.nanmean(np.abs(values))) or 1.0
    filled = fill_forward(values) / unit
    day, week = _steps_in(DAY, history.freq), _steps_in(WEEK, history.freq)
    mean, square = _means_before(filled, week), _means_before(filled**2, week)
    first = history.start + (len(history.values) - len(values)) * history.freq
    return _Past(
        values / unit,
        unit,
        filled,
        mean,
        np.maximum(np.sqrt(np.maximum(square - mean**2, 0.0)), FLATTEST),
        _means_before(filled, day),
        first.timestamp(),
        history.freq.total_seconds(),
        day,
        week,
    )


def _means_before(values: Array, span: int) -> Array:
    """(n + 1,): of up to ``span`` values before each step and after the last; 0 before the first."""
    sums = np.append(0.0, np.cumsum(values))
    steps = np.arange(len(sums))
    found = (sums - sums[np.maximum(steps - span, 0)]) / np.maximum(np.minimum(steps, span), 1)
    return np.asarray(found, dtype=np.float64)


def _steps_in(span: timedelta, freq: timedelta) -> int:
    """To the nearest step, and at least one: a lag of about a day serves any step."""
    return max(round(span / freq), 1)


def _looks(past: _Past, origins: Steps, ahead: Steps) -> Array:
    """(n, looks): what came before each origin and may tell the value ``ahead`` steps (0: the first one) after it; the
    first ``ANCHORS`` are always known, the others NaN where nothing was measured."""
    at = origins + ahead
    nearest = at - past.day * (ahead // past.day + 1)
    by_day = np.stack([_valued(past.values, nearest - past.day * back) for back in range(DAYS_BACK)], axis=1)
    nearest = at - past.week * (ahead // past.week + 1)
    by_week = np.stack([_valued(past.values, nearest - past.week * back) for back in range(WEEKS_BACK)], axis=1)
    last, centre = past.filled[origins - 1], past.centre[origins]
    means = (_mean_of_known(by_day, centre), _mean_of_known(by_week, centre))
    anchors = np.stack([last, past.last_day[origins], centre, *means], axis=1)
    latest = np.stack([_valued(past.values, origins - back) for back in range(2, LATEST + 1)], axis=1)
    return np.concatenate([anchors, latest, by_day, by_week], axis=1)


def _mean_of_known(values: Array, otherwise: Array) -> Array:
    """(n,): row by row."""
    known = np.isfinite(values)
    total = np.where(known, values, 0.0).sum(axis=1)
    return np.where(known.any(axis=1), total / np.maximum(known.sum(axis=1), 1), otherwise)


def _features(past: _Past, looks: Array, anchor: int, origins: Steps, ahead: Steps, reach: int) -> Array:
    """(n, features): looks beside the anchor, in the window's scale, rounded so that units of measurement do not move
    one to the next bin; the step ahead, as far as there was one to learn from; time of day, weekday, and the origin."""
    relative = (np.delete(looks, anchor, axis=1) - looks[:, [anchor]]) / past.scale[origins, None]
    clock = past.start + (origins + ahead) * past.seconds
    plain = np.stack([np.minimum(ahead, reach - 1), clock // 60 % 1440, clock // 86400 % 7, origins], axis=1)
    return np.asarray(np.concatenate([np.round(relative, 6), plain], axis=1), dtype=np.float64)


def _valued(values: Array, at: Steps) -> Array:
    return np.where(at >= 0, values[np.maximum(at, 0)], np.nan)


class _Models(NamedTuple):
    """One per level, of the distance from the anchor (a column of the looks) in the window's scale."""

    levels: list[Any]
    anchor: int
    telling: NDArray[np.bool_]
    """Features that were not always the same, or missing: scikit-learn cannot take the others."""
    reach: int


def _trained(past: _Past, reach: int, rng: np.random.Generator) -> _Models:
    from sklearn.ensemble import HistGradientBoostingRegressor
    from threadpoolctl import threadpool_limits

    origins, ahead = _rows(past, reach, rng)
    looks, truth, scale = _looks(past, origins, ahead), past.values[origins + ahead], past.scale[origins]
    anchor = int(np.argmin(np.abs(truth[:, None] - looks[:, :ANCHORS]).mean(axis=0)))
    features = _features(past, looks, anchor, origins, ahead, reach)
    telling = _varies(features)
    telling[-1] &= not telling[:-1].any()  # time itself is learnt from only where nothing else ever changed
    wanted = np.round((truth - looks[:, anchor]) / scale, 6)
    with threadpool_limits(limits=1, user_api="openmp"):
        levels = [
            HistGradientBoostingRegressor(
                loss="quantile",
                quantile=level,
                early_stopping=False,
                random_state=0,
                min_samples_leaf=max(len(wanted) // LEAF_SHARE, FEWEST_IN_LEAF),
                **TREES,
            ).fit(features[:, telling], wanted)
            for level in LEVELS
        ]
    return _Models(levels, anchor, telling, reach)


def _varies(features: Array) -> NDArray[np.bool_]:
    """(features,)"""
    known = np.isfinite(features)
    highest, lowest = np.where(known, features, -np.inf).max(axis=0), np.where(known, features, np.inf).min(axis=0)
    return np.asarray(highest > lowest, dtype=np.bool_)


def _rows(past: _Past, reach: int, rng: np.random.Generator) -> tuple[Steps, Steps]:
    """Origins, as often as their windows' scale says (what is lost counts in the series' units), each with a step ahead
    by chance, where its value was measured. The first week is only looked back at."""
    length = len(past.values)
    first = np.arange(past.week, length)
    seen = np.append(0, np.cumsum(np.isfinite(past.values)))
    some = seen[np.minimum(first + reach, length)] > seen[first]
    weight = np.cumsum(np.where(some, past.scale[first], 0.0))
    places = (np.arange(MOST_ROWS) + rng.uniform()) / MOST_ROWS
    origins = past.week + np.searchsorted(weight, weight[-1] * places, side="right")
    ahead = rng.integers(reach, size=MOST_ROWS)
    at = origins + ahead
    kept = (at < length) & np.isfinite(past.values[np.minimum(at, length - 1)])
    return origins[kept], ahead[kept]


def _predicted(models: _Models, past: _Past, origins: Steps, ahead: Steps) -> Array:
    """(n, levels), in units of the past."""
    from threadpoolctl import threadpool_limits

    looks = _looks(past, origins, ahead)
    features = _features(past, looks, models.anchor, origins, ahead, models.reach)
    with threadpool_limits(limits=1, user_api="openmp"):
        relative = np.stack([model.predict(features[:, models.telling]) for model in models.levels], axis=1)
    return np.asarray(looks[:, [models.anchor]] + past.scale[origins, None] * relative, dtype=np.float64)


def _errors(models: _Models, past: _Past, rng: np.random.Generator) -> Array:
    """(PATHS, reach): of the median at earlier origins, in their windows' scale and in random order; 0 in gaps."""
    reach, median = models.reach, models._replace(levels=[models.levels[MEDIAN]])
    origins = np.unique(np.linspace(past.week, len(past.values) - reach, MOST_ORIGINS).astype(np.int64))
    each, ahead = np.repeat(origins, reach), np.tile(np.arange(reach), len(origins))
    missed = (past.values[each + ahead] - _predicted(median, past, each, ahead)[:, 0]) / past.scale[each]
    errors = np.nan_to_num(missed.reshape(len(origins), reach))
    return np.asarray(errors[rng.permutation(np.resize(np.arange(len(origins)), PATHS))], dtype=np.float64)


def _in_order_of(errors: Array, quantiles: Array) -> Array:
    """(PATHS, horizon): at each step a draw per error, evenly from the distribution, in the order of the errors."""
    places = (np.arange(PATHS) + 0.5) / PATHS
    rank = np.argsort(np.argsort(errors, axis=0, kind="stable"), axis=0, kind="stable")
    drawn = np.stack([np.interp(places, LEVELS, row) for row in quantiles], axis=1)
    return np.take_along_axis(drawn, rank, axis=0)
