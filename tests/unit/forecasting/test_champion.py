import numpy as np
import pytest

from engine.clock import ManualClock
from engine.errors import BadUsageData
from forecasting.base import History
from forecasting.champion import champions
from forecasting.rnn.train import TrainingPlan
from tests.contract.forecaster_contract import hourly


def test_each_series_goes_to_whoever_lost_least(fleet: list[History], plan: TrainingPlan, still: ManualClock) -> None:
    walk = 500 + np.cumsum(np.random.default_rng(1).standard_normal(35 * 24))
    field = champions([*fleet[:3], hourly(walk, "walk")], 12, clock=still, plan=plan)
    assert field.rnn is not None
    for choice in field.choices:
        assert {score.forecaster for score in choice.scores} == {"rnn", "seasonal_naive", "hour_of_week", "last_value"}
        assert choice.forecaster == choice.weights[0].forecaster
        assert sum(weight.share for weight in choice.weights) == pytest.approx(1.0)
        chosen = choice.wql_of(choice.forecaster)
        assert chosen is not None
        assert chosen <= 1.25 * min(score.wql for score in choice.scores)
    naive_on_walk = field.choices[3].wql_of("seasonal_naive")
    assert field.choices[3].forecaster != "seasonal_naive"
    assert naive_on_walk is not None
    assert naive_on_walk > (field.choices[3].wql_of("last_value") or 0)
    made = field.forecast([*fleet[:3], hourly(walk, "walk")], 12)
    assert [f.forecaster for f in made] == [choice.forecaster for choice in field.choices]
    assert {f.forecaster for f in field.forecast(fleet[:3], 12, by="seasonal_naive")} == {"seasonal_naive"}


@pytest.mark.parametrize(("length", "by"), [(1, "last_value"), (10, "last_value"), (60, "seasonal_naive")])
def test_short_histories_fall_back_and_say_so(length: int, by: str, plan: TrainingPlan, still: ManualClock) -> None:
    history = hourly(3 + np.arange(float(length)) % 24)
    field = champions([history], 12, clock=still, plan=plan)
    assert field.rnn is None
    assert "too little history" in field.rnn_missing
    (made,) = field.forecast([history], 12)
    assert made.forecaster == by == field.choices[0].forecaster
    assert [weight.forecaster for weight in field.choices[0].weights] == [by]
    assert "too short" in field.choices[0].why or field.choices[0].scores


def test_a_new_series_is_served_by_the_network_of_the_others(
    fleet: list[History], plan: TrainingPlan, still: ManualClock
) -> None:
    new = hourly(np.full(5, 4.0), "new")
    field = champions([*fleet[:2], new], 12, clock=still, plan=plan.model_copy(update={"steps": 20}))
    (made,) = field.forecast([new], 12)
    assert made.forecaster == "rnn"
    assert np.isfinite(made.sample_paths(10)).all()


def test_a_series_without_any_value_is_refused(plan: TrainingPlan, still: ManualClock) -> None:
    with pytest.raises(BadUsageData, match="no measured value"):
        champions([hourly(np.full(5, np.nan))], 12, clock=still, plan=plan)
