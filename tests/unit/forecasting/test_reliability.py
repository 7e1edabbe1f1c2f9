from datetime import timedelta

import numpy as np
import pytest

from forecasting.reliability import Questions, calibration_error, reliability
from forecasting.sample_forecast import SampleForecast
from tests.contract.forecaster_contract import HOUR, hourly


def asked(bias: float, count: int = 600) -> Questions:
    """Truth and paths are drawn alike, but for the bias of the paths."""
    rng = np.random.default_rng(3)
    questions = Questions()
    past = hourly(np.full(48, 6.0))
    for _ in range(count):
        centre = rng.uniform(4, 11)
        paths = centre + bias + rng.normal(0, 1, (400, 4))
        made = SampleForecast("s", past.end, HOUR, paths, "x")
        questions.ask(past, centre + rng.normal(0, 1, 4), made, timedelta(hours=4))
    return questions


def test_honest_probabilities_lie_on_the_diagonal() -> None:
    bins = reliability(asked(0.0))
    assert {b.additional for b in bins} == {1, 2, 3, 4}
    assert calibration_error(bins) < 0.05


def test_optimists_are_caught() -> None:
    assert calibration_error(reliability(asked(-1.0))) > max(0.05, 2 * calibration_error(reliability(asked(0.0))))


def test_what_cannot_be_answered_is_not_asked() -> None:
    questions = Questions()
    made = SampleForecast("s", hourly(np.ones(3)).end, HOUR, np.ones((9, 2)), "x")
    questions.ask(hourly(np.zeros(9)), np.ones(2), made, HOUR)
    questions.ask(hourly(np.ones(9)), np.array([np.nan, 1.0]), made, HOUR)
    assert not questions.predicted[1]
    assert np.isnan(calibration_error(reliability(questions)))
    assert calibration_error(()) != pytest.approx(0)
