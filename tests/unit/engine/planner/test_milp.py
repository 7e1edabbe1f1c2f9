"""HiGHS against scipy on the very same model, and against exhaustive search on small markets."""

from itertools import product

import numpy as np
import pytest
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_matrix

from engine.model.capacity import Resources, RiskClass, ShardType
from engine.model.market import Quote
from engine.planner.candidates import find_candidates
from engine.planner.formulation import build
from engine.planner.inventory import Inventory
from engine.planner.linear import LinearModel, solve
from engine.planner.need import read_needs
from engine.planner.policy import PlanPolicy
from engine.planner.programme import Programme, reference_prices, running_nodes
from engine.planner.screening import Screen
from tests.unit.engine.planner.cases import (
    CELLS,
    CRITICAL,
    MEMORY,
    NOW,
    SMALL,
    certain,
    offer,
    plan_of,
    pool,
    quote,
    random_market,
    target,
)

INDIFFERENT = RiskClass(name="indifferent", rank=1, quantile=0.5, max_shortfall=1.0)
EXACT = PlanPolicy(gap=0, shortfall_factor=0, time_limit_seconds=60)


def programme_of(policy: PlanPolicy, targets, quotes: list[Quote], inventory: Inventory | None = None) -> Programme:
    needs = read_needs(policy, targets)
    screen = Screen(policy, needs, {cell.id: cell for cell in CELLS})
    stock = find_candidates(policy, needs, screen, quotes, NOW)
    running = running_nodes(policy, needs, inventory or Inventory(), frozenset(), NOW)
    return Programme(
        policy=policy,
        needs=needs,
        candidates=stock.candidates,
        reserve=stock.reserve,
        running=running,
        reference=reference_prices(needs, stock.candidates, running),
        margin=(0.0,) * len(needs.pools),
    )


def _scipy(model: LinearModel) -> float:
    rows = csr_matrix((model.value, model.index, model.start), shape=(len(model.row_lower), len(model.cost)))
    answer = milp(
        np.array(model.cost),
        integrality=np.array(model.integer, dtype=int),
        bounds=Bounds(np.array(model.lower), np.array(model.upper)),
        constraints=LinearConstraint(rows, np.array(model.row_lower), np.array(model.row_upper)),
        options={"mip_rel_gap": 0},
    )
    assert answer.success
    return float(answer.fun)


@pytest.mark.parametrize("seed", range(6))
def test_agrees_with_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    targets = [target(pool("web"), 4.0, seed=seed), target(pool("db", MEMORY, CRITICAL), 1.0, seed=seed + 1)]
    policy = PlanPolicy(max_provider_share=0.6, max_spot_share=0.5, gap=0)
    model, _ = build(programme_of(policy, targets, random_market(rng, 12)))
    ours = solve(model, gap=0, time_limit=60, seed=seed)
    assert ours.objective == pytest.approx(_scipy(model), rel=1e-6, abs=1e-6)
    assert ours.bound <= ours.objective + 1e-6


def _packs(units: list[Resources], demand: tuple[int, int]) -> bool:
    """Can the units carry so many SMALL and MEMORY shards? By trying every split, unit by unit."""
    if demand == (0, 0):
        return True
    if not units:
        return False
    first, rest = units[0], units[1:]
    for small, memory in product(range(demand[0] + 1), range(demand[1] + 1)):
        fits = small + memory <= first.vcpus and small + 6 * memory <= first.memory_gib
        if fits and _packs(rest, (demand[0] - small, demand[1] - memory)):
            return True
    return False


def _exhaustive(quotes: list[Quote], demand: tuple[int, int]) -> float:
    best = float("inf")
    for counts in product(*(range(q.quantity + 1) for q in quotes)):
        cost = sum(float(q.unit_price.amount) * n for q, n in zip(quotes, counts, strict=True))
        units = [q.offer.resources for q, n in zip(quotes, counts, strict=True) for _ in range(n)]
        if cost < best and _packs(units, demand):
            best = cost
    return best


@pytest.mark.parametrize("seed", range(8))
def test_agrees_with_exhaustive_search(seed: int) -> None:
    """Two shapes into three kinds of unit, at most two of each."""
    rng = np.random.default_rng(seed)
    demand = (int(rng.integers(1, 5)), int(rng.integers(0, 4)))
    quotes = []
    for index in range(3):
        vcpus = int(rng.choice([2, 4]))
        found = offer(f"o{index}", f"{rng.uniform(0.02, 0.2):.4f}", cell=CELLS[index], vcpus=vcpus, memory=vcpus * 4)
        quotes.append(quote(found, quantity=2))
    memory = ShardType(name="memory.small", resources=MEMORY.resources)
    targets = [
        certain(pool("a", SMALL, INDIFFERENT), demand[0]),
        certain(pool("b", memory, INDIFFERENT), demand[1]),
    ]
    expected = _exhaustive(quotes, demand)
    if expected == float("inf"):
        pytest.skip("this market cannot carry this demand")
    made = plan_of(targets, quotes, EXACT)
    assert float(made.expected_hourly_cost.amount) == pytest.approx(expected, abs=1e-9)


def test_a_large_market_reports_a_true_gap() -> None:
    """The relaxation of the whole model bounds what is solved in whole numbers on part of it."""
    rng = np.random.default_rng(3)
    targets = [target(pool(f"p{i}"), 6.0, seed=i) for i in range(4)]
    quotes = random_market(rng, 400)
    policy = PlanPolicy(max_provider_share=0.5, max_spot_share=0.5, gap=0.01, time_limit_seconds=20)
    made = plan_of(targets, quotes, policy)
    assert made.solver == "highs"
    assert made.gap <= 0.05
    rough = plan_of(targets, quotes, policy.model_copy(update={"time_limit_seconds": 0.0}))
    assert rough.solver == "greedy"
    assert made.expected_hourly_cost <= rough.expected_hourly_cost
