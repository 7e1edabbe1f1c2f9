"""One small network, trained once by steps (a clock that stands still never ends the budget)."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import torch

from engine.clock import ManualClock
from forecasting.base import History
from forecasting.rnn.train import TrainingPlan
from forecasting.rnn.trained import TrainedRnn, train_rnn
from forecasting.synthetic import synthetic_fleet

PLAN = TrainingPlan(horizon=12, steps=250, batch=32, context=24, hidden=16, seed=1, learning_rate=1e-2)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def still() -> ManualClock:
    return ManualClock(datetime(2026, 11, 23, tzinfo=UTC))


@pytest.fixture(scope="session")
def plan() -> TrainingPlan:
    return PLAN


@pytest.fixture(scope="session")
def fleet() -> list[History]:
    """Five weeks of ten series; the last two days are not shown to ``trained``."""
    return list(synthetic_fleet(10, seed=11, days=35))


@pytest.fixture(scope="session")
def trained(fleet: list[History]) -> TrainedRnn:
    past = [History(h.series_id, h.start, h.freq, h.values[:-48]) for h in fleet]
    return train_rnn(past, PLAN, clock=ManualClock(datetime(2026, 11, 23, tzinfo=UTC)))
