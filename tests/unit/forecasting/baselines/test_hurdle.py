import numpy as np
import pytest

from forecasting.base import Array, History
from forecasting.baselines.hurdle import Hurdle, hours_of_week, intermittent
from tests.contract.forecaster_contract import HOUR, ForecasterContract, hourly


class TestHurdle(ForecasterContract):
    shortest = 48

    def forecaster(self) -> Hurdle:
        return Hurdle()


def sparse(seed: int, *, weeks: int = 12) -> tuple[History, Array]:
    """Demand on working hours, with a known probability by hour of week, which is returned; sizes are 1, 2 or 5."""
    hours = np.arange(168)
    chances = np.where((hours % 24 >= 8) & (hours % 24 < 18) & (hours < 120), 0.5, 0.02)
    rng = np.random.default_rng(seed)
    there = rng.uniform(size=weeks * 168) < np.tile(chances, weeks)
    return hourly(np.where(there, rng.choice([1.0, 2.0, 5.0], weeks * 168), 0.0)), chances


def test_the_probability_of_demand_is_that_of_the_hour_of_week() -> None:
    history, chances = sparse(1)
    paths = Hurdle().fit(history).predict(168).sample_paths(500)
    made = (paths > 0).mean(axis=0)
    assert history.end.weekday() == 0
    busy = chances > 0.1
    assert made[busy].mean() == pytest.approx(0.5, abs=0.15)  # two weeks count half: it leans on the other hours
    assert made[~busy].mean() == pytest.approx(0.02, abs=0.06)
    assert np.abs(made - chances).mean() < 0.5 * np.abs(chances.mean() - chances).mean()
    assert set(np.unique(paths)) == {0.0, 1.0, 2.0, 5.0}  # sizes that were seen, and no others
    assert paths[paths > 0].mean() == pytest.approx(8 / 3, abs=0.3)


def test_days_without_demand_hang_together_as_they_did() -> None:
    """On for days and off for days: what is on now is likely on an hour later, and hardly known in a week."""
    rng = np.random.default_rng(2)
    state, values = 1.0, []
    for _ in range(8 * 168):
        state = 1 - state if rng.uniform() < 0.03 else state
        values.append(state * 4.0)
    for last in (0.0, 4.0):
        history = hourly(np.array([*values[: 8 * 168 - 24], *[last] * 24]))
        paths = Hurdle().fit(history).predict(96).sample_paths(500)
        on = (paths > 0).mean(axis=0)
        assert abs(on[0] - (last > 0)) < 0.15
        assert abs(on[-1] - np.mean(np.array(values) > 0)) < 0.3
        changes = (np.diff(paths > 0, axis=1) != 0).mean()
        assert changes == pytest.approx(
            0.03, abs=0.03
        )  # joint over time: marginals alone would change every other hour


def test_gaps_count_neither_as_demand_nor_as_none() -> None:
    history, _ = sparse(1)
    values = history.values.copy()
    values[::3] = np.nan
    made = [Hurdle().fit(each).predict(48).sample_paths(500).mean() for each in (history, hourly(values))]
    assert made[1] == pytest.approx(made[0], rel=0.35)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.tile([0.0, 0.0, 1.0], 200), True),
        (np.tile([0.0, 1.0, 1.0, 1.0], 200), False),
        (np.zeros(600), False),
        (np.full(600, np.nan), False),
        (np.concatenate([np.zeros(2000), np.ones(56 * 24)]), False),  # not lately
    ],
    ids=["sparse", "mostly there", "never", "not measured", "long ago"],
)
def test_which_series_are_intermittent(values: Array, expected: bool) -> None:
    assert intermittent(hourly(values)) is expected


def test_hours_of_the_week_for_other_steps() -> None:
    history = History("s", hourly(np.zeros(2)).start, HOUR / 4, np.zeros(8))
    assert hours_of_week(history, np.arange(8)).tolist() == hours_of_week(history, np.arange(8) // 4 * 4).tolist()
    assert len(set(hours_of_week(history, np.arange(168 * 4)).tolist())) == 168
