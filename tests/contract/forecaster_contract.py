"""What every forecaster promises. A forecaster's own test file gives ``forecaster`` and inherits the cases."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from engine.errors import BadUsageData
from forecasting.base import Array, Forecast, Forecaster, History
from forecasting.synthetic import synthetic_history

START = datetime(2026, 3, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)
HORIZON = 12
LEVELS = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)


def hourly(values: Array, series_id: str = "s") -> History:
    return History(series_id, START, HOUR, np.asarray(values, dtype=np.float64))


class ForecasterContract:
    shortest = 1
    """Measured values from which on ``fit`` must succeed; below it must raise BadUsageData."""

    def forecaster(self) -> Forecaster:
        raise NotImplementedError

    def forecast(self, history: History, horizon: int = HORIZON) -> Forecast:
        return self.forecaster().fit(history).predict(horizon)

    @pytest.fixture
    def history(self) -> History:
        return synthetic_history(seed=3, days=21, level=12.0)

    def test_shapes_start_and_name(self, history: History) -> None:
        made = self.forecast(history)
        assert (made.start, made.freq, made.horizon, made.series_id) == (history.end, HOUR, HORIZON, history.series_id)
        assert made.quantile(0.5).shape == (HORIZON,)
        assert made.sample_paths(17).shape == (17, HORIZON)
        assert made.forecaster == self.forecaster().name

    def test_quantiles_never_cross(self, history: History) -> None:
        made = self.forecast(history)
        rows = np.stack([made.quantile(q) for q in LEVELS])
        assert (np.diff(rows, axis=0) >= 0).all()

    def test_same_history_same_paths(self, history: History) -> None:
        first, second = self.forecast(history), self.forecast(history)
        assert np.array_equal(first.sample_paths(50), second.sample_paths(50))
        assert np.array_equal(first.sample_paths(50), first.sample_paths(50))

    def test_paths_agree_with_quantiles(self, history: History) -> None:
        made = self.forecast(history)
        paths = made.sample_paths(1000)
        spread = made.quantile(0.95) - made.quantile(0.05) + 1e-9
        assert (np.abs(np.median(paths, axis=0) - made.quantile(0.5)) <= 0.1 * spread).all()

    def test_probability_falls_with_the_need_and_grows_with_the_window(self, history: History) -> None:
        made = self.forecast(history)
        now = float(made.quantile(0.5)[0])
        by_need = [made.probability_of_needing(k, 6 * HOUR, current=now) for k in (-100, 0, 1, 2, 4, 8, 1000)]
        by_window = [made.probability_of_needing(1, h * HOUR, current=now) for h in (1, 3, 6, 12)]
        assert by_need == sorted(by_need, reverse=True)
        assert by_need[0] == 1.0
        assert by_need[-1] == 0.0
        assert by_window == sorted(by_window)

    def test_gaps_are_tolerated(self, history: History) -> None:
        values = history.values.copy()
        values[::7] = np.nan
        values[100:124] = np.nan
        values[-3:] = np.nan
        made = self.forecast(hourly(values))
        assert np.isfinite(made.sample_paths(20)).all()
        assert 0.2 * 12 < made.quantile(0.5).mean() < 3 * 12

    @pytest.mark.parametrize("level", [0.0, 7.0])
    def test_a_constant_series_stays_where_it_is(self, level: float) -> None:
        made = self.forecast(hourly(np.full(21 * 24, level)))
        assert np.allclose(made.quantile(0.5), level, atol=0.05 * max(level, 1e-6))
        assert np.allclose(made.quantile(0.99), level, atol=0.1 * max(level, 1e-6))

    @pytest.mark.parametrize("scale", [1e-12, 1e12])
    def test_units_do_not_matter(self, history: History, scale: float) -> None:
        plain = self.forecast(hourly(history.values))
        scaled = self.forecast(hourly(history.values * scale))
        assert np.allclose(scaled.quantile(0.9) / scale, plain.quantile(0.9), rtol=0.05)

    def test_usage_is_never_forecast_below_zero(self) -> None:
        bursts = np.where(np.arange(21 * 24) % 31 == 0, 5.0, 0.01)
        made = self.forecast(hourly(bursts))
        assert made.sample_paths(100).min() >= 0

    def test_too_short_a_history_is_refused_by_name(self) -> None:
        with pytest.raises(BadUsageData) as caught:
            self.forecaster().fit(hourly(np.full(self.shortest - 1, 1.0)))
        assert caught.value.what
        assert caught.value.next_step

    def test_the_shortest_history_is_served(self) -> None:
        made = self.forecast(hourly(1 + np.arange(self.shortest) % 5), horizon=3)
        assert np.isfinite(made.sample_paths(10)).all()

    def test_nothing_measured_is_refused(self) -> None:
        with pytest.raises(BadUsageData):
            self.forecaster().fit(hourly(np.full(21 * 24, np.nan)))

    def test_predict_before_fit_is_refused(self) -> None:
        with pytest.raises(RuntimeError):
            self.forecaster().predict(3)
