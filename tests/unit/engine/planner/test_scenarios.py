"""Futures that keep what belongs together, and losses as often as they are said to come."""

import numpy as np
import pytest

from engine.planner.need import read_needs
from engine.planner.policy import PlanPolicy
from engine.planner.scenarios import Holding, judge, sample_scenarios
from tests.unit.engine.planner.cases import certain, pool, target, target_of_paths


def _needs(*targets):
    return read_needs(PlanPolicy(), targets)


def test_paths_of_one_index_stay_together() -> None:
    twin = [[i, i + 1] for i in range(50)]
    needs = _needs(target_of_paths(pool("a"), twin), target_of_paths(pool("b"), twin))
    scenarios = sample_scenarios(needs, (), count=10, seed=1)
    assert scenarios.count == 50, "no path is dropped"
    assert np.array_equal(scenarios.demand[0], scenarios.demand[1])


def test_the_same_seed_is_the_same_future() -> None:
    needs = _needs(target(pool()))
    one, two = (sample_scenarios(needs, ("g",), count=64, seed=5) for _ in range(2))
    assert np.array_equal(one.clocks["g"], two.clocks["g"])
    assert not np.array_equal(one.clocks["g"], sample_scenarios(needs, ("g",), count=64, seed=6).clocks["g"])


@pytest.mark.parametrize("loss", [0.05, 0.25, 0.9])
def test_losses_are_as_frequent_as_stated(loss: float) -> None:
    needs = _needs(certain(pool(), 2))
    scenarios = sample_scenarios(needs, ("g",), count=400, seed=2)
    holding = Holding(shards=(2,), hourly_price=1.0, group="g", loss=loss)
    judged = judge(needs, scenarios, [holding], [10.0])
    assert judged.shortfall[0] == pytest.approx(loss, abs=1 / 400)


def test_one_group_falls_together_two_do_not() -> None:
    needs = _needs(certain(pool(), 2))
    scenarios = sample_scenarios(needs, ("g", "h"), count=400, seed=2)

    def short_of_two(second: str) -> float:
        units = [Holding((1,), 1.0, group, 0.2) for group in ("g", second)]
        return float(judge(needs, scenarios, units, [10.0]).shortfall[0])

    assert short_of_two("g") == pytest.approx(0.2, abs=1 / 400)
    assert short_of_two("h") == pytest.approx(0.36, abs=0.05)


def test_costs_count_what_is_paid_and_what_is_bought_in_a_hurry() -> None:
    needs = _needs(certain(pool(), 3))
    scenarios = sample_scenarios(needs, (), count=4, seed=1)
    lasting = Holding(shards=(2,), hourly_price=0.5, group=None, loss=0.0)
    judged = judge(needs, scenarios, [lasting], [10.0])
    assert judged.costs == pytest.approx([0.5 + 10.0] * 4)
    assert judged.unserved[0] == pytest.approx(1 / 3)


def test_what_is_judged_is_what_looking_at_every_step_finds() -> None:
    """Units of three fates, one of them less reliable than the other of its group, against demand of two horizons."""
    needs = _needs(
        target(pool("a"), 5.0, paths=8, steps=6, seed=1),
        target(pool("b"), 2.0, paths=4, steps=3, seed=2),
    )
    units = [
        Holding((3, 1), 0.3, None, 0.0),
        Holding((2, 0), 0.1, "g", 0.1),
        Holding((0, 1), 0.2, "g", 0.3),
        Holding((1, 1), 0.1, "h", 0.5),
    ]
    scenarios = sample_scenarios(needs, ("g", "h"), count=64, seed=3)
    judged = judge(needs, scenarios, units, [10.0, 7.0])
    ever, missing, asked, costs = np.zeros(2), np.zeros(2), np.zeros(2), []
    for row in range(scenarios.count):
        until = [
            needs.hours
            if unit.group is None
            else min(needs.hours, scenarios.clocks[unit.group][row] / (-np.log(1 - unit.loss) / needs.hours))
            for unit in units
        ]
        cost = sum(unit.hourly_price * alive for unit, alive in zip(units, until, strict=True))
        for index, need in enumerate(needs.pools):
            path = need.demand[row % len(need.demand)]
            hours = need.hours / len(path)
            there = [
                sum(
                    u.shards[index] for u, alive in zip(units, until, strict=True) if alive >= (step + 1) * hours - 1e-9
                )
                for step in range(len(path))
            ]
            short = np.maximum(path - there, 0)
            ever[index] += short.any()
            missing[index] += short.sum()
            asked[index] += path.sum()
            cost += (10.0, 7.0)[index] * short.sum() * hours
        costs.append(cost)
    assert judged.shortfall == pytest.approx(ever / scenarios.count)
    assert judged.unserved == pytest.approx(missing / asked)
    assert judged.costs == pytest.approx(costs)
