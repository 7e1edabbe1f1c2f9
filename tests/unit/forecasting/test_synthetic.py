import numpy as np

from forecasting.synthetic import synthetic_fleet, synthetic_history, true_mean


def test_it_says_that_it_is_synthetic_and_repeats_itself() -> None:
    first, second = synthetic_history(seed=4), synthetic_history(seed=4)
    assert first.synthetic
    assert np.array_equal(first.values, second.values)
    assert not np.array_equal(first.values, synthetic_history(seed=5).values)


def test_it_has_daily_and_weekly_cycles() -> None:
    history = synthetic_history(seed=1, days=28, noise=0.0)
    by_day = history.values.reshape(28, 24)
    assert by_day[0, 15] > 2 * by_day[0, 3]
    assert by_day[5].mean() < 0.7 * by_day[1].mean()
    assert np.array_equal(history.values, true_mean(history.start, history.freq, 28 * 24, level=20.0))


def test_growth_is_relative_to_the_span() -> None:
    flat, grown = (synthetic_history(seed=1, noise=0.0, growth=g).values for g in (0.0, 0.5))
    assert grown[0] == flat[0]
    assert np.isclose(grown[-1], 1.5 * flat[-1])


def test_a_fleet_differs_in_level() -> None:
    fleet = synthetic_fleet(4, seed=1, days=7)
    assert len({history.series_id for history in fleet}) == 4
    assert len({round(float(history.values.mean())) for history in fleet}) > 1
