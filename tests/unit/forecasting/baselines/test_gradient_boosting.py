import sys
from datetime import timedelta

import numpy as np
import pytest

from engine.errors import BadUsageData, MissingPart
from forecasting.base import History, until
from forecasting.baselines.gradient_boosting import GradientBoosting
from forecasting.baselines.seasonal_naive import SeasonalNaive
from forecasting.losses import quantile_loss
from forecasting.synthetic import red_noise, synthetic_history
from tests.contract.forecaster_contract import START, ForecasterContract, hourly


class TestGradientBoosting(ForecasterContract):
    shortest = 14 * 24

    def forecaster(self) -> GradientBoosting:
        return GradientBoosting()


def test_a_noisy_cycle_is_forecast_better_than_by_seasonal_naive() -> None:
    """Daily and weekly cycles of a known mean: a season ago carries noise of its own, an average of seasons less."""
    history = synthetic_history(seed=4, days=63, noise=0.15)
    boosted, naive, inside = 0.0, 0.0, []
    for origin in range(len(history.values) - 7 * 24, len(history.values), 40):
        truth, past = history.values[origin : origin + 24], until(history, origin)
        made = GradientBoosting().fit(past).predict(len(truth))
        boosted += quantile_loss(truth, made)
        naive += quantile_loss(truth, SeasonalNaive().fit(past).predict(len(truth)))
        inside.append((made.quantile(0.05) <= truth) & (truth <= made.quantile(0.95)))
    assert boosted < 0.9 * naive
    assert np.concatenate(inside).mean() > 0.7


def test_a_noiseless_cycle_is_continued_at_any_step_ahead() -> None:
    """Two weeks ahead is farther than three weeks of history let it look: the lags go on, the step does not."""
    cycle = np.tile(20 + 10 * np.sin(np.arange(24) / 24 * 2 * np.pi), 21)
    made = GradientBoosting().fit(hourly(cycle)).predict(14 * 24)
    assert np.abs(made.quantile(0.5) - np.tile(cycle[:24], 14)).max() < 2


def test_paths_hang_together_as_past_errors_did() -> None:
    """What is high now stays high for long in one series and is forgotten at once in the other."""
    rng = np.random.default_rng(3)
    follow = []
    for noise in (red_noise(35 * 24, 3), rng.standard_normal(35 * 24)):
        paths = GradientBoosting().fit(hourly(50 + 5 * noise)).predict(12).sample_paths(500)
        follow.append(np.mean([np.corrcoef(paths[:, step], paths[:, step + 1])[0, 1] for step in range(4, 11)]))
    assert follow[0] > 0.5
    assert abs(follow[1]) < 0.2


def test_another_seed_draws_other_paths_of_much_the_same_quantiles() -> None:
    history = synthetic_history(seed=3, days=28)
    one, other = (GradientBoosting(seed=seed).fit(history).predict(6) for seed in (0, 1))
    assert not np.array_equal(one.sample_paths(20), other.sample_paths(20))
    assert np.allclose(one.quantile(0.5), other.quantile(0.5), rtol=0.05)


@pytest.mark.parametrize(("step", "steps"), [(timedelta(days=1), 100), (timedelta(minutes=11), 1832)])
def test_steps_that_are_long_or_divide_no_day(step: timedelta, steps: int) -> None:
    values = 5 + np.arange(steps) % 7
    made = GradientBoosting().fit(History("s", START, step, values.astype(np.float64))).predict(30)
    assert np.isfinite(made.sample_paths(10)).all()
    with pytest.raises(BadUsageData, match="too short for gradient boosting"):
        GradientBoosting().fit(History("s", START, step, values[:-1].astype(np.float64)))


def test_nothing_that_ever_changed_is_enough_to_learn_from() -> None:
    made = GradientBoosting().fit(History("s", START, timedelta(days=7), np.full(120, 3.0))).predict(1)
    assert made.quantile(0.99) == pytest.approx(3.0)


def test_a_peak_before_a_long_outage_leaves_something_to_learn_from() -> None:
    values = np.full(8 * 168, np.nan)
    values[: 15 * 24] = 1.0
    values[15 * 24 - 1] = 1e6
    made = GradientBoosting().fit(hourly(values)).predict(24)
    assert np.isfinite(made.sample_paths(10)).all()


def test_what_was_measured_long_ago_does_not_count() -> None:
    with pytest.raises(BadUsageData) as caught:
        GradientBoosting().fit(hourly(np.concatenate([np.ones(3000), np.full(2184, np.nan)])))
    assert caught.value.why is not None
    assert "0 steps" in caught.value.why


def test_a_missing_extra_is_told_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    with pytest.raises(MissingPart, match="scikit-learn") as caught:
        GradientBoosting().fit(synthetic_history(seed=3, days=21))
    assert "requirements/boosting.txt" in (caught.value.next_step or "")
