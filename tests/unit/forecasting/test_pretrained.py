from datetime import timedelta

import numpy as np
import pytest

from forecasting.base import until
from forecasting.baselines.seasonal_naive import SeasonalNaive
from forecasting.losses import geometric_mean, quantile_loss
from forecasting.pretrained import FOLDER, pretrained
from forecasting.rnn.forecaster import RnnForecaster
from forecasting.synthetic import synthetic_fleet
from tests.contract.forecaster_contract import HORIZON, HOUR, ForecasterContract


class TestShippedNetwork(ForecasterContract):
    """Untrained on anything of the contract, as a first user meets it."""

    shortest = 1

    def forecaster(self) -> RnnForecaster:
        shipped = pretrained(HOUR, HORIZON)
        assert shipped is not None
        return RnnForecaster(shipped.plan, trained=shipped)


@pytest.mark.parametrize(("minutes", "horizon"), [(60, 24), (30, 12), (5, 24), (15, 12), (1, 20)])
def test_there_is_one_for_the_usual_steps(minutes: int, horizon: int) -> None:
    shipped = pretrained(timedelta(minutes=minutes), horizon)
    assert shipped is not None
    assert shipped.freq == timedelta(minutes=minutes)


@pytest.mark.parametrize(("minutes", "horizon"), [(60, 1000), (24 * 60, 7), (7, 12)])
def test_there_is_none_for_others(minutes: int, horizon: int) -> None:
    assert pretrained(timedelta(minutes=minutes), horizon) is None


def test_they_are_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 5_000_000


def test_it_beats_seasonal_naive_on_series_that_it_never_saw() -> None:
    shipped = pretrained(HOUR, 24)
    assert shipped is not None
    fleet = synthetic_fleet(12, seed=77, days=42)
    ratios = []
    for history in fleet:
        past, truth = until(history, len(history.values) - 24), history.values[-24:]
        own = quantile_loss(truth, shipped.forecast([past], 24)[0])
        ratios.append(own / quantile_loss(truth, SeasonalNaive().fit(past).predict(24)))
    assert geometric_mean(ratios) < 0.9
    assert np.isfinite(ratios).all()
