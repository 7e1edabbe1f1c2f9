"""Which of several good choices stands."""

import numpy as np

from engine.planner.policy import MoveTerms, PlanPolicy
from tests.unit.engine.planner.cases import (
    MEMORY,
    SMALL,
    certain,
    inventory_of,
    offer,
    plan_of,
    pool,
    quote,
    random_market,
    target,
)


def _second_round(gap: float, price: str) -> bool:
    """Whether a node at 0.1000 is given up for one at ``price``, where only the price speaks."""
    policy = PlanPolicy(gap=gap, churn_penalty=0.0, min_move_saving=0.0, moves=MoveTerms(expected_stay_hours=1e6))
    needs = [certain(pool("web", SMALL), 2)]
    first = plan_of(needs, [quote(offer("first", "0.1000"))], policy)
    second = plan_of(needs, [quote(offer("second", price))], policy, inventory=inventory_of(first), parent=first)
    return not second.is_noop


def test_what_is_within_the_solvers_gap_changes_nothing() -> None:
    assert not _second_round(gap=0.002, price="0.0999")


def test_what_is_beyond_it_does() -> None:
    assert _second_round(gap=0.002, price="0.0900")
    assert _second_round(gap=0.0, price="0.0999")


def test_an_exposure_costs_what_it_takes_from_the_promise_however_small_it_is() -> None:
    """Two of a market's plans differ by a fifth in price; the dearer one was once taken, because one shard exposed was
    priced as a sixth of six shards exposed, and the solver ran after it.
    """
    needs = [target(pool("web", SMALL), 3.0, seed=196), target(pool("db", MEMORY), 1.0, seed=197)]
    market = random_market(np.random.default_rng(196), 14)
    made = plan_of(needs, market, PlanPolicy(max_provider_share=0.34, max_spot_share=0.6))
    assert float(made.expected_hourly_cost.amount) <= 0.2765
    assert all(outcome.quantile_met >= 0.9 for outcome in made.pools)
