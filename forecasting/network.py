"""The network for a set of histories: the one that ships, fine-tuned where there is enough history; else a new one."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.clock import Clock
from engine.errors import BadUsageData
from forecasting.base import History
from forecasting.pretrained import pretrained
from forecasting.registry import ModelRegistry, load_or_train
from forecasting.rnn.train import TrainingPlan
from forecasting.rnn.trained import TrainedRnn

ENOUGH_VALUES = 500
"""Measured values, over all series, from which on fine-tuning is tried."""
TUNING_STEPS, TUNING_BATCH, TUNING_RATE = 200, 64, 1e-3


@dataclass(frozen=True)
class Network:
    """``loaded``: nothing was trained now. ``origin`` says in words where the network came from."""

    rnn: TrainedRnn | None
    loaded: bool
    origin: str

    @property
    def name(self) -> str:
        """The origin without its particulars."""
        return self.origin.partition(",")[0]


NO_NETWORK = Network(None, loaded=False, origin="none")


def network_for(
    histories: Sequence[History],
    horizon: int,
    budget_seconds: float,
    seed: int,
    *,
    registry: ModelRegistry | None,
    clock: Clock | None,
    plan: TrainingPlan | None = None,
) -> Network:
    """With a ``plan``, or where no shipped network fits step and horizon: trained anew (or found in the registry).

    A fine-tuned network is taken only where it loses less on held-out origins than the shipped one; the training
    report says both losses. Raises BadUsageData for too little history to train on, or for mixed steps.
    """
    freqs = {history.freq for history in histories}
    shipped = pretrained(freqs.pop(), horizon) if plan is None and len(freqs) == 1 else None
    if shipped is None:
        plan = plan or TrainingPlan(horizon=horizon, budget_seconds=budget_seconds, seed=seed)
        rnn, loaded = load_or_train(registry, histories, plan, clock=clock)
        return Network(rnn, loaded, "trained on these series")
    if sum(int(np.isfinite(h.values).sum()) for h in histories) >= ENOUGH_VALUES:
        try:
            rnn, loaded = load_or_train(
                registry, histories, tuning_plan(shipped, budget_seconds, seed), clock=clock, start=shipped
            )
            return Network(rnn, loaded, "shipped, fine-tuned on these series")
        except BadUsageData:
            pass  # many short series: nothing to hold back
    return Network(shipped, loaded=True, origin="shipped, as it is: too little history to fine-tune")


def tuning_plan(start: TrainedRnn, budget_seconds: float, seed: int) -> TrainingPlan:
    """How to go on from a trained network."""
    return start.plan.model_copy(
        update={
            "budget_seconds": budget_seconds,
            "seed": seed,
            "steps": TUNING_STEPS,
            "batch": TUNING_BATCH,
            "learning_rate": TUNING_RATE,
            "patience": 3,
            "start": start.digest(),
        }
    )
