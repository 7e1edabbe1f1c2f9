"""Networks side by side on held-out origins that none of them was trained on."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from forecasting.base import History, until
from forecasting.champion import by_baseline
from forecasting.losses import geometric_mean, quantile_loss
from forecasting.rnn.trained import TrainedRnn
from forecasting.selection import recent_origins

REFERENCE = "seasonal_naive"
ORIGINS, FEWEST, MOST = 48, 8, 24
"""Over all series together, where that is no fewer and no more than these for each."""
HELD_OUT, LONGEST_DAYS = 0.15, 7
"""The last 15 % of a history is held out, at most a week and at least a day and a horizon."""
SMALLEST_RATIO = 1e-3
"""A network that loses next to nothing on one series must not outweigh all others in the geometric mean."""
PATHS = 200


class Standings(NamedTuple):
    """Per network: geometric mean over ``series`` of its loss / seasonal naive's on their origins."""

    ratios: tuple[float, ...]
    series: int
    origins: int


class _Judge(NamedTuple):
    past: History
    whole: History
    origins: tuple[int, ...]
    reference: float


def training_part(history: History, horizon: int) -> History:
    """What a network may be trained on that is to be compared afterwards."""
    return until(history, _cut(history, horizon))


def side_by_side(networks: Sequence[TrainedRnn], histories: Sequence[History], horizon: int) -> Standings:
    """Each is calibrated on what lies before the held-out end, then forecasts from the same origins within it.

    No series: there is nothing to compare on (too short, or nothing for seasonal naive to lose).
    """
    each = int(np.clip(ORIGINS // max(len(histories), 1), FEWEST, MOST))
    judges = [judge for history in histories if (judge := _judge(history, horizon, each))]
    if not judges:
        return Standings(tuple(float("nan") for _ in networks), 0, 0)
    ratios = tuple(_ratio(network, judges, horizon) for network in networks)
    return Standings(ratios, len(judges), sum(len(judge.origins) for judge in judges))


def _cut(history: History, horizon: int) -> int:
    length, per_day = len(history.values), max(round(86400 / history.freq.total_seconds()), 1)
    held_out = int(np.clip(HELD_OUT * length, per_day + horizon, LONGEST_DAYS * per_day + horizon))
    return length - min(held_out, length // 3)


def _judge(history: History, horizon: int, count: int) -> _Judge | None:
    cut, last = _cut(history, horizon), len(history.values) - horizon
    if last < cut or not np.isfinite(history.values[:cut]).any():
        return None
    spaced = sorted({int(origin) for origin in np.linspace(cut, last, count)})
    origins = tuple(o for o in spaced if np.isfinite(history.values[o : o + horizon]).any())
    lost = sum(
        quantile_loss(history.values[o : o + horizon], by_baseline(REFERENCE, until(history, o), horizon))
        for o in origins
    )
    return _Judge(until(history, cut), history, origins, lost) if lost > 0 else None


def _ratio(network: TrainedRnn, judges: Sequence[_Judge], horizon: int) -> float:
    past = [judge.past for judge in judges]
    rnn = network.recalibrated(past, [recent_origins(history, horizon) for history in past])
    asked = [(judge.whole, origin) for judge in judges for origin in judge.origins]
    made = rnn.forecast([until(history, origin) for history, origin in asked], horizon, paths=PATHS)
    lost = iter(
        quantile_loss(history.values[origin : origin + horizon], forecast)
        for (history, origin), forecast in zip(asked, made, strict=True)
    )
    ratios = [sum(next(lost) for _ in judge.origins) / judge.reference for judge in judges]
    return geometric_mean([max(ratio, SMALLEST_RATIO) for ratio in ratios])
