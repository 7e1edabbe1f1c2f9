from datetime import timedelta

import numpy as np
import pytest

from forecasting.sample_forecast import SampleForecast
from forecasting.scores import LEVELS, Tally, ratio, standing
from tests.contract.forecaster_contract import START


def tally(paths: np.ndarray, truths: list[np.ndarray]) -> Tally:
    made = Tally()
    for truth in truths:
        made.add(truth, SampleForecast("s", START, timedelta(hours=1), paths, "x"))
    return made


def test_the_true_quantiles_are_covered_as_they_say_and_lose_least() -> None:
    rng = np.random.default_rng(5)
    paths = rng.normal(10, 2, (4000, 8))
    truths = [rng.normal(10, 2, 8) for _ in range(400)]
    right, wide = tally(paths, truths), tally(10 + 3 * (paths - 10), truths)
    own = standing("right", [right], [right])
    for each in own.coverage:
        assert each.below == pytest.approx(each.level, abs=0.025)
    assert own.coverage_80 == pytest.approx(0.8, abs=0.03)
    against = standing("wide", [wide], [right])
    assert against.wql_ratio > 1.2
    assert against.coverage_80 > 0.97
    assert own.wql_ratio == own.mase_ratio == 1.0


def test_gaps_count_for_nothing() -> None:
    paths = np.full((10, 3), 2.0)
    made = tally(paths, [np.array([1.0, np.nan, 3.0])])
    assert made.steps == 2
    assert made.error == 2.0
    assert len(made.below) == len(LEVELS)


def test_ratios_stay_finite() -> None:
    assert ratio(0.0, 0.0) == 1.0
    assert ratio(1.0, 0.0) == 1000.0
    assert ratio(0.0, 1.0) == 0.001
