from datetime import timedelta

import numpy as np
import pytest

from engine.errors import BadUsageData
from forecasting.base import History
from forecasting.baselines.seasonal_naive import SeasonalNaive
from forecasting.synthetic import synthetic_history
from tests.contract.forecaster_contract import START, ForecasterContract, hourly


class TestSeasonalNaive(ForecasterContract):
    shortest = 48

    def forecaster(self) -> SeasonalNaive:
        return SeasonalNaive()


class TestSeasonalNaiveWeek(ForecasterContract):
    shortest = 336

    def forecaster(self) -> SeasonalNaive:
        return SeasonalNaive("week")


def test_a_noiseless_cycle_is_continued() -> None:
    history = synthetic_history(seed=1, days=28, noise=0.0)
    made = SeasonalNaive().fit(hourly(history.values[:-24])).predict(24)
    assert np.allclose(made.quantile(0.5), history.values[-24:])
    assert np.allclose(made.quantile(0.99), history.values[-24:])


def test_auto_takes_the_week_only_where_it_helps() -> None:
    days_alike = np.tile(np.arange(24.0), 28) + np.random.default_rng(0).normal(0, 0.1, 28 * 24)
    weekends = synthetic_history(seed=1, days=28, noise=0.01).values
    assert SeasonalNaive().fit(hourly(weekends))._period == 168
    assert SeasonalNaive("day").fit(hourly(days_alike))._period == 24


def test_beyond_one_season_the_last_one_repeats() -> None:
    made = SeasonalNaive("day").fit(hourly(np.tile(np.arange(24.0), 10))).predict(60)
    assert np.allclose(made.quantile(0.5), np.tile(np.arange(24.0), 3)[:60])


def test_a_step_that_divides_neither_day_nor_week_is_refused() -> None:
    with pytest.raises(BadUsageData):
        SeasonalNaive().fit(History("s", START, timedelta(minutes=11), np.ones(5000)))
