import numpy as np

from forecasting.baselines.last_value import LastValue
from tests.contract.forecaster_contract import ForecasterContract, hourly


class TestLastValue(ForecasterContract):
    shortest = 1

    def forecaster(self) -> LastValue:
        return LastValue()

    def test_the_spread_of_a_random_walk_grows_like_a_root(self) -> None:
        walk = 1000 + np.cumsum(np.random.default_rng(5).standard_normal(4000))
        made = self.forecast(hourly(walk), 16)
        spread = made.quantile(0.9) - made.quantile(0.1)
        assert 2 < spread[15] / spread[0] < 6  # 4 for an endless one
        assert abs(made.quantile(0.5)[0] - walk[-1]) < 0.5

    def test_the_last_measured_value_counts(self) -> None:
        made = self.forecast(hourly(np.array([3.0, 9.0, np.nan, np.nan])))
        assert made.quantile(0.5)[0] == 9.0
