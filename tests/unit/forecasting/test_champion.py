import numpy as np
import pytest

from engine.clock import ManualClock
from engine.errors import BadUsageData
from forecasting.base import History
from forecasting.champion import champions, counted
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


def test_an_intermittent_series_may_go_to_the_forecaster_built_for_it(plan: TrainingPlan, still: ManualClock) -> None:
    hours = np.arange(168 * 8)
    busy = (hours % 24 >= 8) & (hours % 24 < 18)
    rng = np.random.default_rng(4)
    values = np.where(busy & (rng.uniform(size=len(hours)) < 0.5), rng.choice([1.0, 2.0, 5.0], len(hours)), 0.0)
    field = champions([hourly(values, "sparse")], 12, clock=still, plan=plan.model_copy(update={"steps": 3}))
    (choice,) = field.choices
    hurdle, naive = choice.wql_of("hurdle"), choice.wql_of("seasonal_naive")
    assert hurdle is not None
    assert naive is not None
    assert hurdle < 0.8 * naive
    assert "hurdle" in [weight.forecaster for weight in choice.weights]


def test_what_is_counted_is_forecast_in_whole_numbers(plan: TrainingPlan, still: ManualClock) -> None:
    rng = np.random.default_rng(4)
    rate = 3 + 2.5 * np.sin(np.arange(35 * 24) * 2 * np.pi / 24)
    counts, level = hourly(rng.poisson(rate).astype(float), "counts"), hourly(rng.gamma(5, rate / 5), "level")
    field = champions([counts, level], 12, clock=still, plan=plan.model_copy(update={"steps": 30}))
    assert [choice.whole for choice in field.choices] == [True, False]
    made = field.forecast([counts, level], 12)
    for whole, forecast in zip((True, False), made, strict=True):
        numbers = np.concatenate([forecast.quantile(q) for q in (0.05, 0.33, 0.5, 0.9, 0.99)])
        assert (numbers % 1 == 0).all() == whole
        assert (forecast.sample_paths(100) % 1 == 0).all() == whole
    mean = made[0].sample_paths(400).mean(axis=0)
    assert np.abs(mean - rate[:12]).mean() < 0.8  # rounding has not moved it
    assert not field.forecast([counts], 12, by="rnn")[0].whole


def test_whole_numbers_by_chance_are_not_counts() -> None:
    assert not counted(hourly(np.arange(47.0)))
    assert counted(hourly(np.array([*np.arange(48.0), np.nan])))
    assert not counted(hourly(np.array([*np.arange(99.0), 0.5])))
