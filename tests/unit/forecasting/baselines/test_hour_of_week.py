import numpy as np

from forecasting.baselines.hour_of_week import HourOfWeek
from tests.contract.forecaster_contract import ForecasterContract, hourly


class TestHourOfWeek(ForecasterContract):
    shortest = 21 * 24

    def forecaster(self) -> HourOfWeek:
        return HourOfWeek()


def test_each_hour_of_the_week_is_what_it_was() -> None:
    week = np.arange(168.0)
    made = HourOfWeek().fit(hourly(np.tile(week, 5))).predict(200)
    expected = np.tile(week, 2)[:200]
    assert np.abs(made.quantile(0.5) - expected)[2:160].max() <= 1
    assert made.sample_paths(8).shape == (8, 200)
