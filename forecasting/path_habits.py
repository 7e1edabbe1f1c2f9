"""Habits of a series that quantiles per step cannot hold: staying exactly where it is, and changing for good."""

from datetime import timedelta

import numpy as np

from forecasting.base import Array, History
from forecasting.baselines.last_value import fill_forward

SHORTEST_RUN = 6
"""So many equal values in a row make a series flat for now."""
PRIOR_RUNS = 2
SURPRISES = 0.06
"""Share of the paths over a day that repeat a change of the series' own past: switched on, switched off, moved."""
MOST_DAYS = 56


def with_habits(paths: Array, history: History, values: Array | None = None) -> Array:
    """(n, horizon) -> the same shape: some paths are surprises out of the series' past, and of a series that is flat
    now the calmest ones stay exactly flat. ``values``: the history without gaps, if that is at hand."""
    filled = fill_forward(history.values) if values is None else values
    made = _surprised(paths, filled, max(int(timedelta(days=1) / history.freq), 1))
    share = flat_share(filled, paths.shape[1])
    if share > 0:
        calmest = np.argsort(np.abs(made - filled[-1]).max(axis=1), kind="stable")[: round(share * len(made))]
        made[calmest] = filled[-1]
    return made


def flat_share(values: Array, horizon: int) -> float:
    """P(the run of equal values at the end lasts over the horizon); 0 where there is no such run.

    From what became of the earlier runs of at least that length (a day's at most), shrunk towards length / (length +
    horizon), which is what a run of unknown rate promises.
    """
    ends = np.flatnonzero(np.diff(values)) + 1
    lengths = np.diff(np.concatenate([[0], ends, [len(values)]]))
    run = int(lengths[-1])
    if run < SHORTEST_RUN:
        return 0.0
    alike = lengths[:-1][lengths[:-1] >= min(run, 4 * SHORTEST_RUN)]
    lasted = int((alike >= min(run, 4 * SHORTEST_RUN) + horizon).sum())
    return (lasted + PRIOR_RUNS * run / (run + horizon)) / (len(alike) + PRIOR_RUNS)


def _surprised(paths: Array, values: Array, per_day: int) -> Array:
    """The last paths become the last value plus the changes of past days that began at this time of day."""
    horizon = paths.shape[1]
    count = round(SURPRISES * min(1.0, horizon / per_day) * len(paths))
    days = min(MOST_DAYS, (len(values) - horizon - 1) // per_day)
    made = paths.copy()
    first = -(-horizon // per_day)
    if count and days >= first + 6:
        back = np.resize(np.unique(np.linspace(first, days, count).astype(np.int64)), count) * per_day
        begin = (len(values) - back)[:, None]
        made[-count:] = values[-1] + values[begin + np.arange(horizon)] - values[begin - 1]
    return made
