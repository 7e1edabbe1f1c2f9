from datetime import timedelta

import numpy as np

from forecasting.base import History
from forecasting.varied import varied_series


def varied_fleet(count: int, *, seed: int, days: float, freq: timedelta = timedelta(hours=1)) -> list[History]:
    return [varied_series(number, seed=seed, days=days, freq=freq) for number in range(count)]


def test_the_same_seed_makes_the_same_series_and_all_say_that_they_are_made_up() -> None:
    first, second = varied_fleet(12, seed=4, days=10), varied_fleet(12, seed=4, days=10)
    assert all(np.array_equal(a.values, b.values) for a, b in zip(first, second, strict=True))
    assert all(history.synthetic and len(history.values) == 240 for history in first)
    assert not np.array_equal(first[0].values, varied_fleet(1, seed=5, days=10)[0].values)


def test_they_are_usage_and_of_many_characters() -> None:
    fleet = varied_fleet(60, seed=1, days=28, freq=timedelta(minutes=30))
    assert all(np.isfinite(history.values).all() and (history.values >= 0).all() for history in fleet)
    daily = [np.corrcoef(h.values[48:], h.values[:-48])[0, 1] for h in fleet if h.values.std() > 0]
    assert sum(r > 0.7 for r in daily) >= 8
    assert sum(r < 0.3 for r in daily) >= 8
