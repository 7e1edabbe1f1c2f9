"""The order of one step: what it may never do, and when it moves."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.planner.rolling.offers import StepOffer
from engine.planner.rolling.placement import FleetOrder, FleetStep, order_for
from tests.unit.engine.planner.rolling.offers import commitment, on_demand, spot

DEAR = on_demand(price=1.0)
CHEAP = spot(price=0.3, free=0.0, asked_lately=True)


def step_of(*offers: StepOffer, demand: Any = 10, **more: Any) -> FleetStep:
    """A fleet in the middle of a long game; ``demand`` is known for certain unless samples are given."""
    samples = np.sort(np.atleast_1d(np.array(demand, dtype=np.float64)))
    known = {
        "offers": offers,
        "demand": samples,
        "later": samples,
        "reclaimed": np.zeros(1),
        "recent": np.full(24, float(np.median(samples))),
        "load": int(np.median(samples)),
        "held": {},
        "pending": {},
        "young": {},
        "committed": {},
        "attached": {},
        "move_cost": 0.0,
        "shortfall_price": 50.0,
        "steps_left": 100,
        "first": False,
    }
    return FleetStep(**{**known, **more})


def shards(step: FleetStep, order: FleetOrder) -> int:
    sizes = {offer.id: offer.shards for offer in step.offers}
    return sum(count * sizes[name] for name, count in order.targets.items()) + sum(step.committed.values())


@st.composite
def steps(draw: st.DrawFn) -> FleetStep:
    """Any market, any holdings that can have come about."""
    places = ("aws/x", "aws/z", "gcp/y")
    cents = st.integers(1, 150).map(lambda n: n / 100)
    offers: list[StepOffer] = []
    for i in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from((on_demand, spot, spot, commitment)))
        free = {"free": float(draw(st.integers(0, 12))), "asked_lately": draw(st.booleans())} if kind is spot else {}
        rate = {"reclaim_rate": draw(st.integers(0, 20)) / 100} if kind is spot else {}
        cell, size = draw(st.sampled_from(places)), draw(st.integers(1, 4))
        lead = draw(st.sampled_from((1, 1, 1, 2, 3)))
        offers.append(kind(f"o{i}", draw(cents), cell=cell, shards=size, lead=lead, **free, **rate))
    counts = st.integers(0, 8)
    targets = [offer for offer in offers if not offer.term]
    held = {offer.id: draw(counts) for offer in targets}
    committed = {offer.cell: draw(counts) for offer in offers if offer.term}
    by_cell = dict(committed)
    for offer in targets:
        by_cell[offer.cell] = by_cell.get(offer.cell, 0) + held[offer.id] * offer.shards
    first = draw(st.booleans()) and not any(held.values())
    return step_of(
        *offers,
        demand=draw(st.lists(st.integers(0, 40), min_size=1, max_size=8)),
        reclaimed=np.array(draw(st.lists(st.integers(0, 10).map(lambda n: n / 20), max_size=5)), dtype=np.float64),
        recent=np.array(draw(st.lists(st.integers(0, 40), min_size=1, max_size=24)), dtype=np.float64),
        load=draw(st.integers(0, 40)),
        held=held,
        pending={} if first else {offer.id: draw(counts) for offer in targets if offer.lead > 1},
        young={name: draw(st.integers(0, count)) for name, count in held.items()},
        committed=committed,
        attached={cell: draw(st.integers(0, have)) for cell, have in by_cell.items()},
        move_cost=draw(cents),
        shortfall_price=draw(st.integers(0, 200)) / 2,
        steps_left=draw(st.integers(0, 200)),
        first=first,
    )


@given(steps())
@settings(max_examples=300, deadline=None)
def test_no_order_is_malformed(step: FleetStep) -> None:
    order = order_for(step)
    known = {offer.id: offer for offer in step.offers}
    assert all(count > 0 and isinstance(count, int) for count in order.targets.values())
    assert not any(known[name].term for name in order.targets), "a commitment is never a target"
    assert all(known[name].lead == 1 and not known[name].term for name in order.fallback)
    assert len(set(order.fallback)) == len(order.fallback)


@given(steps())
@settings(max_examples=300, deadline=None)
def test_what_is_young_or_on_its_way_is_kept(step: FleetStep) -> None:
    order = order_for(step)
    for name in step.held:
        least = min(step.young[name], step.held[name]) + step.pending.get(name, 0)
        assert order.targets.get(name, 0) >= least


@given(steps())
@settings(max_examples=100, deadline=None)
def test_the_same_step_gives_the_same_order(step: FleetStep) -> None:
    assert order_for(step) == order_for(replace(step, held=dict(reversed(step.held.items()))))


@given(steps(), st.integers(1, 100))
@settings(max_examples=200, deadline=None)
def test_a_first_order_grows_with_the_price_of_shortfall(step: FleetStep, more: int) -> None:
    """Before anything runs there is nothing to give back or to move: more caution is more capacity."""
    usual = {"held": {}, "pending": {}, "young": {}, "attached": {}, "first": True}
    unlimited = tuple(o for o in step.offers if not o.spot and not o.term) or (DEAR,)
    one = replace(step, **usual, offers=unlimited[:1])
    dearer = replace(one, shortfall_price=one.shortfall_price + more)
    assert shards(dearer, order_for(dearer)) >= shards(one, order_for(one))


def test_what_is_missing_is_bought_at_the_cheapest_place_with_the_dearer_ones_to_fall_back_on() -> None:
    cheap, dear = spot("cheap", 0.2, 4.0), spot("dear", 0.5, 30.0)
    order = order_for(step_of(DEAR, dear, cheap, demand=10))
    assert order == FleetOrder({"cheap": 10}, ("cheap", "dear", "od"))


def test_more_is_not_asked_of_an_offer_than_was_just_seen() -> None:
    cheap, dear = spot("cheap", 0.2, 4.0, asked_lately=True), spot("dear", 0.5, 30.0)
    assert order_for(step_of(DEAR, dear, cheap, demand=10)).targets == {"cheap": 4, "dear": 6}


def test_reclaims_make_a_cheap_place_dear() -> None:
    shaky = spot("shaky", 0.2, 30.0, reclaim_rate=0.5)
    assert order_for(step_of(DEAR, shaky, demand=10, move_cost=2.0)).targets == {"od": 10}
    assert order_for(step_of(DEAR, shaky, demand=10, move_cost=0.1)).targets == {"shaky": 10}


def test_what_is_committed_is_not_bought_again() -> None:
    assert order_for(step_of(DEAR, commitment(), demand=10, committed={"aws/x": 7})).targets == {"od": 3}


def test_what_nobody_needs_is_given_back_the_dearest_first() -> None:
    held = {"od": 10, "spot": 10}
    assert order_for(step_of(DEAR, CHEAP, demand=12, held=held)).targets == {"od": 2, "spot": 10}


def test_attached_shards_stay_when_moving_them_costs_more_than_a_step() -> None:
    """Demand falls for a step: idle places are cheaper than a move of every shard and back."""
    here = {"held": {"od": 10}, "attached": {"aws/x": 10}, "load": 10}
    dip = [4] * 5 + [10] * 5
    kept = order_for(step_of(DEAR, demand=dip, **here, move_cost=5.0))
    free = order_for(step_of(DEAR, demand=dip, **here, move_cost=0.0, shortfall_price=1.5))
    assert kept.targets == {"od": 10}
    assert free.targets == {"od": 4}


def with_room_elsewhere(move_cost: float, **more: Any) -> FleetStep:
    """Ten shards run on demand, ten free cheap places are held as well."""
    return step_of(
        DEAR, CHEAP, demand=10, held={"od": 10, "spot": 10}, attached={"aws/x": 10}, load=10, move_cost=move_cost,
        **more,
    )  # fmt: skip


@pytest.mark.parametrize(("move_cost", "moves"), [(1.0, True), (12.0, True), (13.5, False), (100.0, False)])
def test_dear_places_are_given_up_for_free_cheap_ones_when_the_gate_says_so(move_cost: float, moves: bool) -> None:
    """A shard saves 0.7 a step over a day: 16.8, which must be 1.3 times its move: up to 12.9."""
    order = order_for(with_room_elsewhere(move_cost))
    assert order.targets == ({"spot": 10} if moves else {"od": 10})


def test_a_move_must_pay_before_the_game_ends() -> None:
    assert order_for(with_room_elsewhere(2.0, steps_left=50)).targets == {"spot": 10}
    assert order_for(with_room_elsewhere(2.0, steps_left=3)).targets == {"od": 10}


def test_only_demand_that_stays_for_a_day_is_moved() -> None:
    """Four shards run all day long; the rest come and go, and are worth no move."""
    comes_and_goes = np.array([4.0] * 12 + [10.0] * 12)
    order = order_for(with_room_elsewhere(8.0, recent=comes_and_goes))
    assert order.targets["od"] >= 6


def test_young_places_are_not_given_up_for_cheaper_ones() -> None:
    assert order_for(with_room_elsewhere(1.0, young={"od": 10})).targets["od"] == 10


def test_a_wish_for_cheaper_room_asks_for_it_and_nothing_denied_is_bought_dear() -> None:
    """All run on demand and no cheap place is free: a stale belief is asked again, without the fallback list."""
    stale = spot(price=0.3, free=4.0, asked_lately=False)
    running = {"held": {"od": 10}, "attached": {"aws/x": 10}, "load": 10}
    order = order_for(step_of(DEAR, stale, demand=10, **running, move_cost=1.0))
    assert order.targets["od"] == 10
    assert order.targets["spot"] > 4, "more than was ever seen"
    assert order.fallback == ()


def test_nothing_dearer_is_asked_for_than_what_runs() -> None:
    dearer = spot(price=1.2, free=40.0)
    running = {"held": {"od": 10}, "attached": {"aws/x": 10}, "load": 10}
    assert order_for(step_of(DEAR, dearer, demand=10, **running, move_cost=1.0)).targets == {"od": 10}


def test_what_arrives_late_is_ordered_ahead_and_only_where_it_is_cheaper() -> None:
    slow = on_demand("slow", 0.4, lead=2, cell="azure/z")
    running = {"held": {"od": 10}, "attached": {"aws/x": 10}, "load": 10}
    order = order_for(step_of(DEAR, slow, demand=10, **running, move_cost=0.0))
    assert order.targets == {"od": 10, "slow": 10}
    assert "slow" not in order.fallback
    late = order_for(step_of(DEAR, replace(slow, price=1.5), demand=10, **running))
    assert late.targets == {"od": 10}


@pytest.mark.parametrize("beside", [(), (spot(price=0.2, free=0.0, asked_lately=True),)], ids=["alone", "some spot"])
def test_where_nothing_sure_is_quick_what_is_slow_is_weighed_against_shortfall(beside: tuple[StepOffer, ...]) -> None:
    slow = on_demand("slow", 1.0, lead=2, shards=2)
    rising = step_of(slow, *beside, demand=[8, 9, 10, 14], held={"slow": 3}, attached={"aws/x": 6}, load=6)
    assert order_for(rising).targets["slow"] == 7
    assert order_for(replace(rising, shortfall_price=0.5)).targets.get("slow", 0) <= 3
    held = {"slow": 3, "spot": 4} if beside else {"slow": 5}
    assert order_for(replace(rising, held=held)).targets["slow"] == (5 if beside else 7)


def test_where_only_spot_is_quick_something_certain_is_ordered_beside_spot_that_may_be_denied() -> None:
    slow, late = on_demand("slow", 1.0, lead=2), spot("late", 0.3, lead=3, free=20.0)
    awaited = step_of(slow, late, CHEAP, demand=10, pending={"late": 10})
    assert order_for(awaited).targets == {"late": 10, "slow": 10}
    came = replace(awaited, pending={}, held={"late": 10}, attached={"gcp/y": 10}, load=10)
    assert order_for(came).targets == {"late": 10}
    assert order_for(replace(awaited, shortfall_price=3.0)).targets == {"late": 10}
    sure = replace(awaited, offers=(*awaited.offers, DEAR))
    assert "slow" not in order_for(sure).targets, "what is certain can be had in time"


def test_what_is_on_its_way_counts() -> None:
    slow = on_demand("slow", 0.4, lead=2, cell="azure/z")
    order = order_for(step_of(DEAR, slow, demand=10, pending={"slow": 10}))
    assert order.targets == {"slow": 10}


def test_at_the_first_step_slow_offers_are_as_good_as_quick_ones() -> None:
    slow = on_demand("slow", 0.4, lead=3, cell="azure/z")
    order = order_for(step_of(DEAR, slow, demand=10, first=True))
    assert order.targets == {"slow": 10}
    assert order.fallback == ("od",)


def test_a_fleet_that_needs_nothing_orders_nothing() -> None:
    assert order_for(step_of(DEAR, CHEAP, demand=0)).targets == {}


def test_where_nothing_can_be_bought_nothing_is_ordered() -> None:
    assert order_for(step_of(commitment(), demand=10)) == FleetOrder({}, ())
