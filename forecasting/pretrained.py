"""The networks that ship with the package, so that a first forecast needs no training."""

from dataclasses import replace
from datetime import timedelta
from functools import cache
from pathlib import Path

from forecasting.registry import ModelRegistry
from forecasting.rnn.trained import TrainedRnn

FOLDER = Path(__file__).parent / "pretrained_models"
HOURLY_NAME, FINE_NAME = "hourly", "fine"
HOURLY_STEPS = (timedelta(minutes=30), timedelta(hours=3))
FINE_STEPS = (timedelta(minutes=1), timedelta(minutes=20))


def pretrained(freq: timedelta, horizon: int) -> TrainedRnn | None:
    """The network for this step, if it reaches so far; None where there is none.

    The hourly one serves steps from 30 minutes to 3 hours, the fine one from 1 to 20 minutes.
    """
    if timedelta(days=1) % freq:
        return None
    for name, (shortest, longest) in ((HOURLY_NAME, HOURLY_STEPS), (FINE_NAME, FINE_STEPS)):
        if shortest <= freq <= longest:
            found = _loaded(name)
            return replace(found, freq=freq) if found and horizon <= found.plan.horizon else None
    return None


@cache
def _loaded(name: str) -> TrainedRnn | None:
    return ModelRegistry(FOLDER).find(name)
