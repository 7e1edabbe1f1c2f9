"""A forecast for now from a history that ended a while ago: at the right lead, as uncertain as one must be there."""

from datetime import datetime, timedelta
from math import ceil, sqrt
from zlib import crc32

import numpy as np

from engine.model.value import Value
from forecasting.base import Array, History, until
from forecasting.baselines.last_value import keep_sign
from forecasting.champion import Champions
from forecasting.sample_forecast import SampleForecast
from forecasting.selection import RNN
from forecasting.togetherness import arranged

PATHS = 400
LONGEST = timedelta(days=14)
MOST_STAGES = 14
"""A gap is bridged by forecasting from forecast paths, so many times at most."""
FUTURES, DRAWN = 40, 100
"""Paths that are followed through the gap; paths drawn at the end of each, of which some are kept."""
LOOKED_AT = timedelta(days=70)
"""The network looks back six weeks; a longer past is not carried along."""
MOST_WIDENED = 2.0


class Lead(Value):
    """``steps`` from the end of what was measured are bridged; ``beyond`` that, whole seasons are skipped, and paths
    spread ``widening`` times as wide around their median."""

    steps: int = 0
    beyond: int = 0
    widening: float = 1.0

    @property
    def none(self) -> bool:
        return not self.steps


def lead_of(history: History, now: datetime, reach: int) -> Lead:
    """``reach``: the longest horizon that is forecast at once. Zero for a history that ends now or later."""
    steps = (now - history.measured_end) // history.freq
    if steps <= 0:
        return Lead()
    bound = max(min(LONGEST // history.freq, MOST_STAGES * reach), 1)
    if steps <= bound:
        return Lead(steps=steps)
    skipped = max(_season(history.freq, bound) * ceil((steps - bound) / _season(history.freq, bound)), 0)
    bridged = steps - skipped
    return Lead(steps=bridged, beyond=skipped, widening=min(sqrt(steps / bridged), MOST_WIDENED))


def forecast_from_now(
    field: Champions, history: History, lead: Lead, horizon: int, *, paths: int = PATHS, by: str | None = None
) -> SampleForecast:
    """``horizon`` steps from now on (the step that now lies in is the first), made as ``field.forecast`` makes them.

    Where the lead and the horizon are within the network's reach, it forecasts both and the lead is cut off. Otherwise
    its own paths through the gap become its history: the mixture of what follows each of them.
    """
    if lead.none:
        return field.forecast([history], horizon, paths=paths, by=by)[0]
    past = until(history, (history.measured_end - history.start) // history.freq)
    reach = field.rnn.plan.horizon if field.rnn else 0
    networked = any(weight.forecaster == RNN for weight in field.weights_of(history, by))
    if networked and lead.steps + horizon > reach:
        name, drawn = _rolled(field, past, lead.steps, horizon, reach, paths, by)
    else:
        whole = field.forecast([past], lead.steps + horizon, paths=paths, by=by)[0]
        name, drawn = whole.forecaster, whole.sample_paths(whole.held)[:, lead.steps :]
    if lead.widening > 1:
        median = np.median(drawn, axis=0)
        drawn = keep_sign(median + lead.widening * (drawn - median), history.values)
    start = past.end + (lead.steps + lead.beyond) * past.freq
    return SampleForecast(
        history.series_id, start, history.freq, drawn, name, whole=by is None and field.in_whole_numbers(history)
    )


def _season(freq: timedelta, bound: int) -> int:
    """Steps of the longest season that the bound holds twice (a day: once); a single step where it holds none."""
    week, day = timedelta(days=7) // freq, timedelta(days=1) // freq
    return week if 0 < 2 * week <= bound else day if 0 < day <= bound else 1


def _rolled(
    field: Champions, past: History, steps: int, horizon: int, reach: int, paths: int, by: str | None
) -> tuple[str, Array]:
    """(forecaster, (paths, horizon)) from the end of ``steps`` steps that nobody measured."""
    seed = crc32(past.series_id.encode())
    rng = np.random.default_rng(seed)
    past = _recent(past)
    (first,) = field.forecast([past], min(reach, steps), paths=FUTURES, by=by)
    gap = first.sample_paths(FUTURES)
    while gap.shape[1] < steps:
        made = field.forecast(_continued(past, gap), min(reach, steps - gap.shape[1]), paths=DRAWN, by=by)
        rows = rng.permutation(DRAWN)[:FUTURES]
        gap = np.hstack([gap, np.stack([m.sample_paths(DRAWN)[row] for m, row in zip(made, rows, strict=True)])])
    made = field.forecast(_continued(past, gap), horizon, paths=DRAWN, by=by)
    each = ceil(paths / FUTURES)
    kept = [m.sample_paths(DRAWN)[rng.permutation(DRAWN)[:each]] for m in made]
    drawn = np.concatenate(kept)[rng.permutation(each * FUTURES)[:paths]]
    assert field.rnn is not None
    together, common = field.rnn.calibration.together, field.rnn.plan.seed
    return made[0].forecaster, arranged(drawn, together, common_seed=common, own_seed=seed)


def _continued(past: History, gap: Array) -> list[History]:
    return [History(past.series_id, past.start, past.freq, np.concatenate([past.values, path])) for path in gap]


def _recent(past: History) -> History:
    cut = max(len(past.values) - LOOKED_AT // past.freq, 0)
    return History(past.series_id, past.start + cut * past.freq, past.freq, past.values[cut:])
