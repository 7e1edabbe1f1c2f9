"""The newsvendor on a curve of supply, against brute force."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.planner.rolling.offers import StepOffer
from engine.planner.rolling.sizing import Array, SupplyCurve, capacities, supply_curve
from tests.unit.engine.planner.rolling.offers import commitment, on_demand, spot

prices = st.integers(1, 40).map(lambda n: n / 20)
samples = st.lists(st.integers(1, 30), min_size=1, max_size=12).map(lambda n: np.array([sorted(n)], dtype=np.float64))
market = st.lists(st.tuples(prices, st.integers(0, 12), st.integers(1, 4)), max_size=4).map(
    lambda rows: [spot(f"s{i}", price, free, shards=shards) for i, (price, free, shards) in enumerate(rows)]
)


def curve_of(offers: list[StepOffer], on_demand_price: float = 2.0, move_cost: float = 0.0) -> SupplyCurve:
    every = [*offers, on_demand(price=on_demand_price)]
    return supply_curve(every, [0] * len(every), move_cost)


def whole_cost(capacity: float, demand: Array, worth: float, curve: SupplyCurve) -> float:
    return float(curve.cost(np.array([capacity]))[0] + worth * np.maximum(demand - capacity, 0).mean())


@given(market, st.integers(0, 60))
def test_cost_is_the_integral_of_the_marginal(offers: list[StepOffer], capacity: int) -> None:
    curve = curve_of(offers)
    shards = np.arange(1, capacity + 1, dtype=np.float64)
    assert curve.cost(np.array([float(capacity)]))[0] == pytest.approx(curve.marginal(shards).sum())


@given(market)
def test_marginal_ascends_from_nothing(offers: list[StepOffer]) -> None:
    marginal = curve_of(offers).marginal(np.arange(-3, 60, dtype=np.float64))
    assert (marginal[:4] == 0).all()
    assert (np.diff(marginal) >= 0).all()


def test_the_curve_counts_what_is_held_and_what_moves_cost_but_no_commitment() -> None:
    offers = [spot(price=0.3, free=2.0, shards=3, reclaim_rate=0.1), commitment(price=0.01), on_demand(price=1.0)]
    curve = supply_curve(offers, [1, 5, 0], move_cost=2.0)
    assert curve.marginal(np.array([9.0, 10.0])) == pytest.approx([0.3 + 0.1 * 2.0, 1.0])


@given(samples, st.integers(0, 100), prices)
def test_at_one_price_it_is_the_newsvendors_optimum(demand: Array, worth: int, price: float) -> None:
    curve = curve_of([], on_demand_price=price)
    chosen = capacities(demand, [float(worth)], curve)[0, 0]
    least = min(whole_cost(c, demand, worth, curve) for c in range(31))
    assert whole_cost(chosen, demand, worth, curve) == pytest.approx(least)


@given(samples, st.integers(0, 100), market)
def test_where_supply_gets_dearer_it_errs_by_one_sample_at_most_and_to_the_safe_side(
    demand: Array, worth: int, offers: list[StepOffer]
) -> None:
    curve = curve_of(offers)
    chosen = capacities(demand, [float(worth)], curve)[0, 0]
    costs = np.array([whole_cost(c, demand, worth, curve) for c in range(31)])
    best = np.flatnonzero(costs <= costs.min() + 1e-9)
    below = demand[demand < chosen]
    assert chosen >= best.min()
    assert best.max() >= (below.max() if len(below) else 0)


@given(samples, st.lists(st.integers(0, 100), min_size=2, max_size=5), market)
def test_capacity_rises_with_the_price_of_shortfall(demand: Array, worths: list[int], offers: list[StepOffer]) -> None:
    chosen = capacities(demand, sorted(map(float, worths)), curve_of(offers))[:, 0]
    assert (np.diff(chosen) >= 0).all()


@given(samples, st.integers(0, 100), market, st.integers(0, 3), prices)
def test_capacity_falls_with_an_offers_price(
    demand: Array, worth: int, offers: list[StepOffer], which: int, dearer: float
) -> None:
    raised = [replace(o, price=o.price + dearer) if i == which else o for i, o in enumerate(offers)]
    before, after = (capacities(demand, [float(worth)], curve_of(each, 9.0))[0, 0] for each in (offers, raised))
    assert after <= before


def test_nothing_is_bought_that_costs_more_than_its_lack() -> None:
    curve = curve_of([spot(price=0.3, free=4)], on_demand_price=1.0)
    assert capacities(np.full((1, 3), 10.0), [0.2, 0.5, 1.5], curve)[:, 0].tolist() == [0.0, 4.0, 10.0]


def test_each_moment_is_sized_by_its_own_samples() -> None:
    demand = np.array([[1.0, 2.0], [7.2, 9.5]])
    chosen = capacities(demand, [2.5, 100.0], curve_of([]))
    assert chosen.tolist() == [[1.0, 8.0], [2.0, 10.0]], "whole shards, rounded up"


def test_capacity_is_never_negative() -> None:
    assert capacities(np.array([[-3.0, -1.0]]), [50.0], curve_of([])).tolist() == [[0.0]]
