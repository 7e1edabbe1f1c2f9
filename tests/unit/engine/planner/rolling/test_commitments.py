"""Commitments against brute force: the units that leave the least to pay in all."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.planner.rolling.commitments import LEVELS, MOST_UNITS, Commitment, Committed, commitments_for
from engine.planner.rolling.offers import StepOffer
from engine.planner.rolling.sizing import Array, SupplyCurve, supply_curve
from tests.unit.engine.planner.rolling.offers import commitment, on_demand, spot

LEFT = 200
needs = st.lists(st.integers(0, 3).map(lambda n: 20.0 * n), min_size=1, max_size=10).map(np.array)
"""Multiples of 20, so that every level of them is whole."""


def curve_of(*offers: StepOffer) -> SupplyCurve:
    every = [*offers, on_demand(price=1.0)]
    return supply_curve(every, [0] * len(every), 0.0)


def paid(units: int, offer: StepOffer, needed: Array, curve: SupplyCurve) -> float:
    """Per step, over the levels of demand: the commitment, and what must be bought beside it."""
    cases = np.concatenate([needed * level for level in LEVELS])
    return units * offer.shards * offer.price + float(curve.cost(np.maximum(cases - units * offer.shards, 0)).mean())


@given(needs, st.integers(1, 24).map(lambda n: n / 20), st.integers(0, 30))
def test_as_many_units_as_leave_the_least_to_pay(needed: Array, price: float, free_spot: int) -> None:
    offer, curve = commitment(price=price + 0.001), curve_of(spot(price=0.3, free=free_spot))
    bought = commitments_for([offer], needed, curve, [], steps_left=LEFT)
    units = sum(each.units for each in bought)
    least = min(paid(n, offer, needed, curve) for n in range(80))
    assert paid(units, offer, needed, curve) == pytest.approx(least)


@given(needs, st.integers(1, 24).map(lambda n: n / 20), st.integers(2, 8))
def test_large_units_are_at_most_one_from_the_best(needed: Array, price: float, size: int) -> None:
    offer, curve = commitment(price=price + 0.001, shards=size), curve_of(spot(price=0.3, free=7))
    units = sum(each.units for each in commitments_for([offer], needed, curve, [], steps_left=LEFT))
    costs = [paid(n, offer, needed, curve) for n in range(80)]
    best = [n for n, cost in enumerate(costs) if cost <= min(costs) + 1e-9]
    assert min(abs(units - n) for n in best) <= 1


def test_what_lasts_already_is_not_bought_again() -> None:
    needed, curve = np.full(10, 40.0), curve_of()
    whole = commitments_for([commitment()], needed, curve, [], steps_left=LEFT)[0].units
    rest = commitments_for([commitment()], needed, curve, [Committed(10, 90)], steps_left=LEFT)[0].units
    soon_over = commitments_for([commitment()], needed, curve, [Committed(10, 5)], steps_left=LEFT)[0].units
    assert (whole - rest, soon_over) == (10, whole)
    assert not commitments_for([commitment()], needed, curve, [Committed(whole, 90)], steps_left=LEFT)


def test_what_reaches_past_the_end_is_paid_for_and_of_no_use() -> None:
    """0.6 for 100 steps of which 50 are left is 1.2 a step: dearer than on demand."""
    needed = np.full(10, 40.0)
    assert not commitments_for([commitment(price=0.6, term=100)], needed, curve_of(), [], steps_left=50)
    assert commitments_for([commitment(price=0.6, term=100)], needed, curve_of(), [], steps_left=70)


def test_the_cheapest_term_is_filled_first() -> None:
    offers = [commitment("dear", 0.7), commitment("cheap", 0.5), on_demand(), spot(price=0.9, free=3)]
    bought = commitments_for(offers, np.full(4, 40.0), curve_of(), [], steps_left=LEFT)
    assert bought[0].offer == "cheap"
    assert sum(each.units for each in bought) >= 34, "what is needed at the lowest level of demand at least"


def test_nothing_is_bought_where_spot_is_cheaper() -> None:
    curve = curve_of(spot(price=0.2, free=1000))
    assert commitments_for([commitment(price=0.3)], np.full(4, 40.0), curve, [], steps_left=LEFT) == ()


def test_without_an_offer_that_lasts_there_is_nothing_to_buy() -> None:
    assert commitments_for([on_demand()], np.full(4, 40.0), curve_of(), [], steps_left=LEFT) == ()


def test_no_more_units_than_an_order_may_name() -> None:
    bought = commitments_for([commitment()], np.full(4, 5e7), curve_of(), [], steps_left=LEFT)
    assert bought == (Commitment("com", MOST_UNITS),)
