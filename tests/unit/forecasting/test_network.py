from pathlib import Path

import numpy as np
import pytest

from engine.clock import ManualClock
from engine.errors import BadUsageData
from forecasting.base import History, until
from forecasting.network import network_for
from forecasting.registry import ModelRegistry
from forecasting.rnn.train import TrainingPlan
from tests.contract.forecaster_contract import hourly


def test_a_short_history_gets_the_shipped_network_as_it_is(still: ManualClock) -> None:
    found = network_for([hourly(np.arange(30.0))], 12, 5.0, 0, registry=None, clock=still)
    assert found.rnn is not None
    assert found.loaded
    assert "as it is" in found.origin


def test_enough_history_fine_tunes_and_never_for_the_worse(
    fleet: list[History], still: ManualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forecasting.network.TUNING_STEPS", 10)
    few = [until(history, 500) for history in fleet[:2]]
    registry = ModelRegistry(tmp_path)
    found = network_for(few, 12, 5.0, 0, registry=registry, clock=still)
    assert found.rnn is not None
    assert "fine-tuned" in found.origin
    assert not found.loaded
    assert found.rnn.report.held_out_loss <= found.rnn.report.first_held_out_loss
    assert network_for(few, 12, 5.0, 0, registry=registry, clock=still).loaded


def test_a_horizon_out_of_reach_is_trained_for(fleet: list[History], still: ManualClock) -> None:
    plan = TrainingPlan(horizon=30, steps=3, batch=8, context=24, hidden=8)
    found = network_for(fleet[:1], 30, 5.0, 0, registry=None, clock=still, plan=plan)
    assert found.rnn is not None
    assert found.rnn.plan.horizon == 30
    with pytest.raises(BadUsageData, match="too little history"):
        network_for([hourly(np.arange(30.0))], 30, 5.0, 0, registry=None, clock=still)
