from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import torch

from engine.clock import ManualClock
from engine.errors import BadUsageData
from forecasting.base import History
from forecasting.rnn.train import TrainingPlan, device_for, held_out_loss, split, train
from forecasting.rnn.windows import Panel
from tests.contract.forecaster_contract import hourly


def panel_of(fleet: list[History], plan: TrainingPlan) -> Panel:
    return Panel(fleet, context=plan.context, horizon=plan.horizon)


def test_training_targets_end_before_the_held_out_tail(fleet: list[History], plan: TrainingPlan) -> None:
    windows = split(panel_of(fleet, plan))
    for i in range(len(fleet)):
        last_trained = windows.training[1][windows.training[0] == i].max() + plan.horizon
        assert last_trained <= windows.held_out[1][windows.held_out[0] == i].min()


def test_training_lowers_the_held_out_loss_and_repeats_itself(
    fleet: list[History], plan: TrainingPlan, still: ManualClock
) -> None:
    panel = panel_of(fleet, plan)
    windows = split(panel)
    short = plan.model_copy(update={"steps": 40})
    first, report = train(panel, short, windows, clock=still)
    second, again = train(panel, short, windows, clock=still)
    assert report.held_out_loss < 0.9 * report.first_held_out_loss
    assert (report.steps, report.stopped_by) == (40, "steps")
    assert report == again
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


class TickingClock(ManualClock):
    """A second passes at every look."""

    def now(self) -> datetime:
        self.advance(timedelta(seconds=1))
        return super().now()


def test_the_budget_ends_it(fleet: list[History], plan: TrainingPlan) -> None:
    panel = panel_of(fleet, plan)
    clock = TickingClock(datetime(2026, 11, 23, tzinfo=UTC))
    _, report = train(
        panel, plan.model_copy(update={"budget_seconds": 10.0, "patience": 99}), split(panel), clock=clock
    )
    assert report.stopped_by == "budget"
    assert report.steps == 9


def test_the_result_is_the_best_average_seen(fleet: list[History], plan: TrainingPlan, still: ManualClock) -> None:
    panel = panel_of(fleet, plan)
    windows = split(panel)
    wild = plan.model_copy(update={"steps": 24, "learning_rate": 0.5})
    network, report = train(panel, wild, windows, clock=still)
    assert held_out_loss(network, panel, windows.held_out) == pytest.approx(report.held_out_loss, rel=0.2)
    assert report.held_out_loss <= report.first_held_out_loss


def test_too_little_history_is_refused(plan: TrainingPlan) -> None:
    with pytest.raises(BadUsageData, match="too little history"):
        split(panel_of([hourly(np.ones(60))], plan))


def test_training_without_gain_ends_early(fleet: list[History], plan: TrainingPlan, still: ManualClock) -> None:
    panel = panel_of(fleet, plan)
    hopeless = plan.model_copy(update={"steps": 40, "learning_rate": 1e-30})
    _, report = train(panel, hopeless, split(panel), clock=still)
    assert report.stopped_by == "no gain"
    assert report.steps < 40


def test_a_gpu_is_for_long_trainings_only(plan: TrainingPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device_for(plan).type == "cpu"
    assert device_for(plan.model_copy(update={"steps": 4000, "batch": 96})).type == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_for(plan.model_copy(update={"steps": 4000, "batch": 96})).type == "cpu"
