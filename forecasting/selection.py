"""How much each forecaster counts for a series, by what it lost on recent rolling origins. Pure."""

from collections.abc import Mapping, Sequence
from datetime import timedelta

import numpy as np

from engine.model.value import Value
from forecasting.base import History

RNN = "rnn"
ORIGINS = 12
"""Recent origins that are scored per series, at most."""
EXPECTED = {RNN: 0.7}
"""Loss beside seasonal naive's that is expected before anything was seen; 1 for the others."""
EXPECTED_ORIGINS = 2
"""So many origins' worth that expectation counts."""
HOME_ADVANTAGE = 0.9
"""The network's loss counts for so much of itself: twelve origins are few, and all other series speak for it."""
SHARPNESS = 16
"""Weights fall with this power of the loss: near-equals are averaged, a clear loser is left out."""
LEAST_WEIGHT = 0.03


class Weight(Value):
    """``share`` of a forecaster in a mixture of quantiles; the shares of a series add up to 1."""

    forecaster: str
    share: float


def mixture(losses: Mapping[str, float], reference: str, origins: int) -> tuple[Weight, ...]:
    """The heaviest first. ``losses``: finite mean loss by forecaster on ``origins`` recent origins.

    Losses are taken beside the reference's (or the largest) and shrunk towards what is expected of each forecaster.
    """
    measure = losses.get(reference) or max(losses.values())
    if measure <= 0:
        best = RNN if RNN in losses else min(losses, key=lambda name: losses[name])
        return (Weight(forecaster=best, share=1.0),)
    ratios = {name: _shrunk(name, loss / measure, origins) for name, loss in losses.items()}
    best_ratio = min(ratios.values())
    raw = {name: (best_ratio / ratio) ** SHARPNESS for name, ratio in ratios.items()}
    total = sum(raw.values())
    kept = {name: value / total for name, value in raw.items() if value / total >= LEAST_WEIGHT}
    ordered = sorted(kept, key=lambda name: -kept[name])
    return tuple(Weight(forecaster=name, share=kept[name] / sum(kept.values())) for name in ordered)


def _shrunk(name: str, ratio: float, origins: int) -> float:
    expected = EXPECTED.get(name, 1.0)
    shrunk = (ratio * origins + expected * EXPECTED_ORIGINS) / (origins + EXPECTED_ORIGINS)
    return max(shrunk * (HOME_ADVANTAGE if name == RNN else 1.0), 1e-6)


def recent_origins(history: History, horizon: int) -> list[int]:
    """Up to twelve origins in the last two weeks (at most a third, at least a day and a horizon), the newest last."""
    length, day = len(history.values), max(int(timedelta(days=1) / history.freq), 1)
    tail = max(min(14 * day, length // 3), day + horizon)
    first = max(length - tail, length // 2, 1)
    found = sorted({int(o) for o in np.linspace(first, length - horizon, ORIGINS) if first <= o <= length - horizon})
    measured = np.isfinite(history.values)
    return [o for o in found if measured[:o].any() and measured[o : o + horizon].any()]


def as_words(weights: Sequence[Weight]) -> str:
    """``rnn 82 %, last_value 18 %``"""
    return ", ".join(f"{weight.forecaster} {weight.share:.0%}" for weight in weights)
