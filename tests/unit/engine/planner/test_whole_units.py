"""Whole units for settled risks: what the model says of a choice, and what the choice is worth."""

from dataclasses import replace

import numpy as np
import pytest

from engine.planner.formulation import Columns, build
from engine.planner.inventory import Inventory
from engine.planner.linear import Relaxation
from engine.planner.milp import read_choice
from engine.planner.policy import PlanPolicy
from engine.planner.programme import (
    Choice,
    Programme,
    expected_short,
    leaves_short,
    objective,
    shortfall_limit,
    standing,
)
from engine.planner.risk_first import settle_risks, solve_with_cuts
from engine.planner.whole_units import WholeUnits, _chords
from tests.unit.engine.planner.cases import (
    CRITICAL,
    MEMORY,
    SMALL,
    STANDARD,
    inventory_of,
    plan_of,
    pool,
    random_market,
    target,
)
from tests.unit.engine.planner.test_milp import programme_of

POLICY = PlanPolicy(max_provider_share=0.6, max_spot_share=0.6, gap=0.01)


def _targets(pools: int, mean: float):
    kinds = [(SMALL, STANDARD), (MEMORY, STANDARD), (SMALL, CRITICAL)]
    return [target(pool(f"p{i}", *kinds[i % 3]), mean, paths=64, seed=7 + i) for i in range(pools)]


def _solved(programme: Programme, *, rounded: bool = False) -> tuple[WholeUnits, Columns, float, Choice, float]:
    """(the model, …, what no choice costs less than, a choice, what the model says that it costs)"""
    model, columns = build(programme, defer=True)
    relaxation = Relaxation(model, time_limit=20, seed=1)
    assert solve_with_cuts(relaxation, columns)
    bound = settle_risks(programme, relaxation, columns, branches=40)
    assert bound is not None
    units = WholeUnits(programme, columns, relaxation, most=80, ways_out=True, rounded=rounded)
    solution = units.solve(enough=bound / 0.97, time_limit=20, seed=1)
    assert solution.values is not None
    choice = read_choice(programme, columns, units.spread(solution.values))
    return units, columns, bound, choice, solution.objective + units.offset


@pytest.fixture(scope="module")
def market():
    return random_market(np.random.default_rng(5), 80)


@pytest.mark.parametrize(("rounded", "over"), [(False, 1.01), (True, 1.03)])
def test_the_model_never_says_too_little_and_hardly_too_much(market, rounded: bool, over: float) -> None:
    programme = programme_of(POLICY, _targets(6, 6.0), market)
    _, _, bound, choice, said = _solved(programme, rounded=rounded)
    worth = objective(programme, choice) / programme.scale
    assert worth <= said + 1e-6
    assert said <= worth * over
    assert bound <= worth * (1 + 1e-9)
    assert not leaves_short(programme, choice)
    there = standing(programme, choice)
    for index, need in enumerate(programme.needs.pools):
        short = expected_short(programme, index, there.shards[index], there.groups(index))
        assert short <= shortfall_limit(need) + 1e-6


def test_what_runs_counts_and_its_free_room_is_used_first(market) -> None:
    first = plan_of(_targets(6, 6.0), market, POLICY)
    inventory: Inventory = inventory_of(first)
    grown = programme_of(POLICY, _targets(6, 9.0), market, inventory=inventory)
    pinned = replace(grown, running=tuple(replace(node, pinned=True) for node in grown.running))
    units, _, _, choice, said = _solved(pinned)
    held = [sum(node.held[i] for node in pinned.running) for i in range(6)]
    assert [of.there for of in units.ranges] == held
    assert sum(held) > 0
    assert all(choice.kept)
    assert not leaves_short(pinned, choice)
    released = sum(node.release_cost for node in pinned.running) / pinned.scale
    worth = objective(pinned, choice) / pinned.scale
    assert worth <= said + released + 1e-6
    assert said + released <= worth * 1.01


def test_chords_lie_above_their_curve_and_touch_it_where_they_must() -> None:
    def curve(point: int) -> float:
        return float((20 - point) ** 2) / 10

    found = _chords(curve, 2, 20, (7,), coarse=0.5)
    over = [max(slope * point + intercept for slope, intercept in found) - curve(point) for point in range(2, 21)]
    assert min(over) >= -1e-9
    assert max(over) <= 0.5
    assert [over[point - 2] for point in (2, 7, 20)] == pytest.approx([0, 0, 0])
    assert len(found) < 18
