"""Forecasts at the lead of a history's age, beside a process whose future distribution is known at every lead."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from scipy.stats import norm

from engine.clock import ManualClock
from forecasting.base import Array, History
from forecasting.champion import Champions, champions
from forecasting.lateness import MOST_WIDENED, Lead, forecast_from_now, lead_of
from forecasting.sample_forecast import SampleForecast
from tests.contract.forecaster_contract import HOUR, hourly

MEMORY, SPREAD, LEVEL, HORIZON = 0.97, 3.0, 20.0, 24


def process(seed: int) -> History:
    """Four weeks of an autoregressive process around a level: h steps on it is normal, and its spread grows with h."""
    rng = np.random.default_rng(seed)
    values = np.empty(28 * 24)
    values[0] = rng.normal()
    for i, shock in enumerate(rng.normal(0, np.sqrt(1 - MEMORY**2), len(values) - 1)):
        values[i + 1] = MEMORY * values[i] + shock
    return hourly(LEVEL + SPREAD * values, f"process-{seed}")


def truth(history: History, late: int) -> tuple[Array, Array]:
    """Mean and standard deviation of the 24 steps that begin ``late`` steps after the history's end."""
    ahead = late + np.arange(1, HORIZON + 1)
    return LEVEL + (history.values[-1] - LEVEL) * MEMORY**ahead, SPREAD * np.sqrt(1 - MEMORY ** (2 * ahead))


def inside_80(made: SampleForecast, mean: Array, deviation: Array) -> float:
    """True probability of the forecast's 80 % interval."""
    low, high = ((made.quantile(q) - mean) / deviation for q in (0.1, 0.9))
    return float(np.mean(norm.cdf(high) - norm.cdf(low)))


@pytest.fixture(scope="module")
def histories() -> list[History]:
    return [process(seed) for seed in range(12)]


@pytest.fixture(scope="module")
def field(histories: list[History]) -> Champions:
    """Tuned for long enough to know the process; a still clock ends no budget."""
    return champions(histories, HORIZON, budget_seconds=60, clock=ManualClock(datetime(2026, 11, 23, tzinfo=UTC)))


@pytest.mark.parametrize("late", [6, 24, 72])
def test_an_interval_holds_what_it_says_at_the_lead_that_matters(
    late: int, histories: list[History], field: Champions
) -> None:
    lead = lead_of(histories[0], histories[0].end + late * HOUR, 24)
    assert lead == Lead(steps=late)
    led, unled = [], []
    for history in histories:
        made = forecast_from_now(field, history, lead, HORIZON)
        assert made.start == history.end + late * HOUR
        assert made.horizon == HORIZON
        led.append(inside_80(made, *truth(history, late)))
        unled.append(inside_80(forecast_from_now(field, history, Lead(), HORIZON), *truth(history, late)))
    assert np.mean(led) == pytest.approx(0.8, abs=0.06)
    assert abs(np.mean(led) - 0.8) < abs(np.mean(unled) - 0.8)


def test_within_the_reach_the_network_forecasts_the_gap_too(histories: list[History], field: Champions) -> None:
    made = forecast_from_now(field, histories[0], Lead(steps=6), 6)
    whole = field.forecast(histories[:1], 12)[0]
    assert np.array_equal(np.sort(made.sample_paths(400), axis=0), np.sort(whole.sample_paths(400)[:, 6:], axis=0))


@pytest.mark.parametrize("by", ["seasonal_naive", "last_value"])
def test_a_baseline_forecasts_the_gap_too(by: str, histories: list[History], field: Champions) -> None:
    made = forecast_from_now(field, histories[0], Lead(steps=30), HORIZON, by=by)
    assert (made.forecaster, made.horizon, made.start) == (by, HORIZON, histories[0].end + 30 * HOUR)
    (whole,) = field.forecast(histories[:1], 54, by=by)
    assert np.array_equal(made.quantile(0.9), whole.quantile(0.9)[30:])


def test_the_same_history_gives_the_same_paths(histories: list[History], field: Champions) -> None:
    first, second = (forecast_from_now(field, histories[0], Lead(steps=30), HORIZON) for _ in range(2))
    assert np.array_equal(first.sample_paths(50), second.sample_paths(50))
    assert first.held == 400


def test_what_was_not_measured_at_the_end_counts_as_late(histories: list[History]) -> None:
    values = histories[0].values.copy()
    values[-5:] = np.nan
    gap = hourly(values)
    assert lead_of(gap, gap.end + 2.5 * HOUR, 24) == Lead(steps=7)
    assert lead_of(gap, gap.end - 5 * HOUR, 24).none
    assert lead_of(gap, gap.start, 24).none  # a history of the future


@pytest.mark.parametrize(
    ("minutes", "late", "steps", "widening"),
    [
        (60, timedelta(days=14), 14 * 24, 1.0),  # fourteen forecasts of a day
        (60, timedelta(days=16), 9 * 24, (16 / 9) ** 0.5),  # a week is skipped: the weekday stays
        (60, timedelta(days=3650), 10 * 24, MOST_WIDENED),
        (5, timedelta(hours=28), 336, 1.0),
        (5, timedelta(hours=30), 72, MOST_WIDENED),  # a day is skipped
        (1, timedelta(days=1), 336, MOST_WIDENED),  # not even a day fits
    ],
)
def test_beyond_the_bound_whole_seasons_are_skipped_and_it_is_widened(
    minutes: int, late: timedelta, steps: int, widening: float, histories: list[History]
) -> None:
    step = timedelta(minutes=minutes)
    history = History("s", histories[0].start, step, histories[0].values)
    lead = lead_of(history, history.end + late, 24)
    assert (lead.steps, lead.steps + lead.beyond) == (steps, late // step)
    assert lead.widening == pytest.approx(widening)


def test_widening_spreads_around_the_median_and_keeps_the_sign(histories: list[History], field: Champions) -> None:
    plain, wide = (
        forecast_from_now(field, histories[0], Lead(steps=48, beyond=beyond, widening=widening), HORIZON)
        for beyond, widening in ((0, 1.0), (168, 2.0))
    )
    assert wide.start - plain.start == timedelta(days=7)
    assert np.allclose(wide.quantile(0.5), plain.quantile(0.5), rtol=0.02)
    spread = plain.quantile(0.9) - plain.quantile(0.5)
    assert np.allclose(wide.quantile(0.9) - wide.quantile(0.5), 2 * spread, rtol=0.1)
    assert wide.sample_paths(400).min() >= 0


@pytest.mark.parametrize("days", [5, 7, 8, 15, 30])
def test_steps_of_a_week_and_more_have_a_lead_too(days: int) -> None:
    step = timedelta(days=days)
    history = History("s", datetime(2026, 1, 5, tzinfo=UTC), step, np.ones(10))
    lead = lead_of(history, history.end + 9 * step, 24)
    assert (lead.steps + lead.beyond, lead.steps > 0) == (9, True)
    assert 1 <= lead.widening <= MOST_WIDENED
