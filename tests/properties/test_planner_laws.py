"""Laws of every plan, on random markets and needs."""

from collections import Counter
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import BudgetExceeded, NoOfferFits
from engine.model.capacity import CapacityTarget, Resources, RiskClass
from engine.model.market import PurchaseOption, Quote
from engine.model.money import Money
from engine.model.plan import Plan, Verdict
from engine.planner.policy import PlanPolicy
from engine.planner.programme import objective
from engine.planner.solving import best_choice
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

INDIFFERENT = RiskClass(name="indifferent", rank=1, quantile=0.8, max_shortfall=1.0)
COST_ONLY = PlanPolicy(gap=0, shortfall_factor=0, time_limit_seconds=30)

few = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
seeds = st.integers(0, 10_000)
shares = st.sampled_from([0.34, 0.5, 1.0])


def _market(seed: int, count: int = 14) -> list[Quote]:
    return random_market(np.random.default_rng(seed), count)


def _needs(seed: int, risk: RiskClass = STANDARD) -> list[CapacityTarget]:
    return [target(pool("web", SMALL, risk), 3.0, seed=seed), target(pool("db", MEMORY, risk), 1.0, seed=seed + 1)]


def _plan(seed: int, policy: PlanPolicy, quotes: list[Quote] | None = None, risk: RiskClass = STANDARD) -> Plan | None:
    try:
        return plan_of(_needs(seed, risk), _market(seed) if quotes is None else quotes, policy)
    except (NoOfferFits, BudgetExceeded):
        return None


@few
@given(seed=seeds, share=shares, spot=st.sampled_from([0.0, 0.3, 1.0]), limit=st.sampled_from([0.0, 5.0]))
def test_needs_are_covered_and_limits_kept(seed: int, share: float, spot: float, limit: float) -> None:
    """Or it is said that nothing fits; by the solver and by the greedy fallback alike."""
    policy = PlanPolicy(max_provider_share=share, max_spot_share=spot, time_limit_seconds=limit)
    quotes = _market(seed)
    made = _plan(seed, policy, quotes)
    if made is None:
        return
    desired = sum(outcome.desired for outcome in made.pools)
    by_provider: Counter[str] = Counter()
    units: Counter[str] = Counter()
    on_spot = 0
    for cell in made.cells:
        for planned in cell.nodes:
            count = sum(slot.count for slot in planned.slots)
            by_provider[cell.cell.provider] += count
            on_spot += count * (planned.node.option is PurchaseOption.SPOT)
            assert planned.quote is not None
            units[planned.quote.id] += 1
            _fits_on_its_node(planned.node.resources, planned.slots)
    assert all(outcome.planned >= outcome.desired for outcome in made.pools)
    # The whole is no limit: what risk asks for beyond the desired shards has to be somewhere, too.
    assert share == 1.0 or max(by_provider.values(), default=0) <= max(1, int(share * desired + 1e-9))
    assert spot == 1.0 or on_spot <= int(spot * desired + 1e-9)
    assert all(units[q.id] <= q.quantity for q in quotes)
    assert {d.offer.id for d in made.decisions} == {q.offer.id for q in quotes}
    assert {d.offer.id for d in made.decisions if d.verdict is Verdict.CHOSEN} == {
        q.offer.id for q in quotes if units[q.id]
    }


def _fits_on_its_node(whole: Resources, slots) -> None:
    sizes = {"cpu.small": SMALL.resources, "memory.small": MEMORY.resources}
    for axis in ("vcpus", "memory_gib"):
        used = sum(getattr(sizes[slot.shard_type], axis) * slot.count for slot in slots)
        assert used <= getattr(whole, axis) + 1e-9


@few
@given(seed=seeds, share=shares)
def test_never_worse_than_greedy_at_equal_risk(seed: int, share: float) -> None:
    """Risk is priced into what both are measured by."""
    policy = PlanPolicy(max_provider_share=share, max_spot_share=0.6)
    programme = programme_of(policy, _needs(seed), _market(seed))
    rough = programme_of(policy.model_copy(update={"time_limit_seconds": 0.0}), _needs(seed), _market(seed))
    solved, greedy = best_choice(programme, seed=1), best_choice(rough, seed=1)
    assert (solved.solver, greedy.solver) == ("highs", "greedy")
    assert objective(programme, solved.choice) <= objective(programme, greedy.choice) * (1 + 1e-9)


@few
@given(seed=seeds, victim=st.integers(0, 13), factor=st.sampled_from(["1.1", "2", "10"]))
def test_a_dearer_market_never_gives_a_cheaper_plan(seed: int, victim: int, factor: str) -> None:
    quotes = _market(seed)
    before = _plan(seed, COST_ONLY, quotes, INDIFFERENT)
    if before is None:
        return
    dearer = [_priced(q, Decimal(factor)) if index == victim else q for index, q in enumerate(quotes)]
    after = _plan(seed, COST_ONLY, dearer, INDIFFERENT)
    assert after is not None
    assert after.expected_hourly_cost.amount >= before.expected_hourly_cost.amount * Decimal("0.999999")


@few
@given(seed=seeds, factor=st.sampled_from(["0.001", "0.5", "1000"]))
def test_the_unit_of_money_does_not_matter(seed: int, factor: str) -> None:
    quotes = _market(seed)
    policy = PlanPolicy(gap=0, max_spot_share=0.6, time_limit_seconds=30)
    before = _plan(seed, policy, quotes)
    after = _plan(seed, policy, [_priced(q, Decimal(factor)) for q in quotes])
    assert (before is None) == (after is None)
    if before is not None and after is not None:
        cost = before.expected_hourly_cost.amount * Decimal(factor)
        assert float(after.expected_hourly_cost.amount) == pytest.approx(float(cost), rel=1e-6)


@few
@given(seed=seeds, share=shares)
def test_carrying_out_a_plan_leaves_nothing_to_do(seed: int, share: float) -> None:
    policy = PlanPolicy(max_provider_share=share, max_spot_share=0.6)
    first = _plan(seed, policy)
    if first is None:
        return
    second = plan_of(_needs(seed), _left_of(_market(seed), first), policy, inventory=inventory_of(first), parent=first)
    assert second.is_noop
    assert second.expected_hourly_cost == first.expected_hourly_cost


@few
@given(seed=seeds)
def test_a_stricter_class_never_costs_less(seed: int) -> None:
    policy = PlanPolicy(gap=0, max_spot_share=0.6, time_limit_seconds=30)
    easy, strict = _plan(seed, policy, risk=INDIFFERENT), _plan(seed, policy, risk=CRITICAL)
    if easy is not None and strict is not None:
        assert strict.expected_hourly_cost.amount >= easy.expected_hourly_cost.amount * Decimal("0.999999")


def _left_of(quotes: list[Quote], made: Plan) -> list[Quote]:
    """A market that sells nothing twice."""
    sold = Counter(node.quote.id for cell in made.cells for node in cell.nodes if node.quote is not None)
    return [q.model_copy(update={"quantity": q.quantity - sold[q.id]}) for q in quotes if q.quantity > sold[q.id]]


def _priced(q: Quote, factor: Decimal) -> Quote:
    def scaled(money: Money) -> Money:
        return money * factor

    return q.model_copy(
        update={
            "unit_price": scaled(q.unit_price),
            "price_ceiling": scaled(q.price_ceiling),
            "offer": q.offer.model_copy(update={"price": scaled(q.offer.price)}),
        }
    )
