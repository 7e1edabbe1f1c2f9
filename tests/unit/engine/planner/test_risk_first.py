"""A large programme solved in stages, against its own whole model and its own bound."""

from collections import Counter

import numpy as np
import pytest

from engine.planner import candidates
from engine.planner.formulation import build
from engine.planner.greedy import greedy, serve_anew
from engine.planner.linear import Relaxation
from engine.planner.milp import solve_in_stages
from engine.planner.policy import PlanPolicy
from engine.planner.programme import Programme, leaves_short, objective, standing
from engine.planner.risk_first import reserve_saves, settle_risks, solve_with_cuts
from tests.unit.engine.planner.cases import (
    CRITICAL,
    MEMORY,
    SMALL,
    STANDARD,
    offer,
    plan_of,
    pool,
    quote,
    random_market,
    target,
)
from tests.unit.engine.planner.cases import certain as certain_need
from tests.unit.engine.planner.test_milp import programme_of

POLICY = PlanPolicy(max_provider_share=0.6, max_spot_share=0.6, gap=0.01)


def _programme(pools: int, offers: int, seed: int = 1, *, lasting: bool = False) -> Programme:
    kinds = [(SMALL, STANDARD), (MEMORY, STANDARD), (SMALL, CRITICAL)]
    targets = [
        target(pool(f"p{i}", *kinds[i % 3]), 60.0 if lasting else 5.0, paths=64, seed=seed + i) for i in range(pools)
    ]
    market = random_market(np.random.default_rng(seed), offers)
    if lasting:
        market = [q.model_copy(update={"quantity": 1}) for q in market if q.survival == 1]
    return programme_of(POLICY, targets, market)


@pytest.mark.parametrize("seed", range(3))
def test_stages_come_near_their_bound_and_beat_greedy(seed: int) -> None:
    programme = _programme(30, 300, seed)
    outcome = solve_in_stages(programme, seed=1, time_limit=20)
    assert outcome.choice is not None
    assert not leaves_short(programme, outcome.choice)
    assert 0 <= outcome.gap <= 0.03
    assert objective(programme, outcome.choice) <= objective(programme, greedy(programme)) * (1 + 1e-9)


@pytest.mark.parametrize("seed", [5, 19, 49, 56, 80, 93])
def test_half_shards_are_not_rounded_beyond_a_limit_that_they_share(seed: int) -> None:
    policy = PlanPolicy(max_provider_share=0.34, max_spot_share=0.0)
    needs = [target(pool("web", SMALL), 3.0, seed=seed), target(pool("db", MEMORY), 1.0, seed=seed + 1)]
    programme = programme_of(policy, needs, random_market(np.random.default_rng(seed), 14))
    outcome = solve_in_stages(programme, seed=1, time_limit=20)
    assert outcome.choice is not None
    shards: Counter[str] = Counter()
    for unit in outcome.choice.bought:
        shards[programme.candidates[unit.candidate].supply.provider] += sum(unit.shards)
    assert all(count <= programme.provider_limit(provider) for provider, count in shards.items())


def test_settled_risks_are_whole_and_bound_from_below() -> None:
    programme = _programme(12, 200)
    model, columns = build(programme, defer=True)
    relaxation = Relaxation(model, time_limit=20, seed=1)
    assert solve_with_cuts(relaxation, columns)
    root = relaxation.objective
    bound = settle_risks(programme, relaxation, columns, branches=40)
    assert bound is not None
    assert root - 1e-9 <= bound <= relaxation.objective + 1e-9
    for menu in columns.menus:
        taken = [relaxation.values[column] for column, _ in menu]
        assert np.rint(taken) == pytest.approx(taken, abs=1e-6)


def test_the_bound_counts_in_what_is_held_in_reserve(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a front of almost nothing the relaxation is too dear by no more than what it says the reserve may save. On
    units that stay, so that both relaxations offer the same menu of risks.
    """
    whole = _programme(6, 300, lasting=True)
    monkeypatch.setattr(candidates, "_MOST_WEIGHED", 10)
    monkeypatch.setattr(candidates, "_FRONT_LASTING", 0.01)
    monkeypatch.setattr(candidates, "_FRONT_GROUP", 0.01)
    monkeypatch.setattr(candidates, "_FEW", 1)
    part = _programme(6, 300, lasting=True)
    assert part.reserve
    assert len(part.candidates) < len(whole.candidates)

    def relaxed(programme: Programme) -> tuple[float, float]:
        model, columns = build(programme)
        relaxation = Relaxation(model, time_limit=20, seed=1)
        assert relaxation.solve()
        return relaxation.objective * programme.scale, reserve_saves(programme, relaxation, columns) * programme.scale

    best, nothing = relaxed(whole)
    dear, saves = relaxed(part)
    assert nothing == 0.0
    assert saves > 0
    assert dear - saves <= best * (1 + 1e-9)


def test_a_large_front_still_finds_the_cheapest_unit_for_one_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large units are cheaper per shard when full, and no use to one shard."""
    monkeypatch.setattr(candidates, "_MOST_WEIGHED", 10)
    market = [quote(offer(f"large{i:02d}", f"{0.4 + i / 1000:.3f}", vcpus=64, memory=256)) for i in range(40)]
    market.append(quote(offer("small", "0.05", vcpus=2, memory=8)))
    made = plan_of([certain_need(pool(), 1)], market)
    assert [p.quote.offer.id for cell in made.cells for p in cell.nodes if p.quote is not None] == ["small"]


def test_pools_served_anew_leave_the_others_as_they_are() -> None:
    programme = _programme(9, 120)
    before = greedy(programme)
    after = serve_anew(programme, before, {0, 4})
    assert not leaves_short(programme, after)
    kept, now = standing(programme, before).shards, standing(programme, after).shards
    assert [now[i] for i in range(9) if i not in (0, 4)] == [kept[i] for i in range(9) if i not in (0, 4)]
