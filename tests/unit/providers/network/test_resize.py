"""Reservations and holds change their size."""

from datetime import timedelta
from decimal import Decimal

import pytest

from engine.clock import ManualClock
from engine.model.capacity import Resources
from engine.model.value import Interval
from providers.network import wire
from providers.network.exchange import Exchange
from providers.network.stock import Listing, Refused
from providers.network.wire import ProblemCode
from tests.unit.providers.network.networks import (
    START,
    TENANT,
    a_listing,
    a_network,
    an_auction,
    free,
    held,
    money,
    node,
    quoted,
)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


def _refusal(code: ProblemCode) -> "pytest.RaisesExc[Refused]":
    return pytest.raises(Refused, match=rf"^{code.value}")


def _held(network: Exchange, units: int, quoted_units: int) -> wire.WireHold:
    quote = quoted(network, quoted_units)
    return network.hold(TENANT, wire.HoldRequest(quote_id=quote.quote_id, quantity=units), key="k")


def _resized(network: Exchange, hold: wire.WireHold, units: int, key: str = "r") -> wire.WireHold:
    return network.resize_hold(TENANT, hold.hold_id, wire.ResizeHoldRequest(quantity=units), key=key)


def test_a_hold_grows_within_its_quote_and_shrinks(clock: ManualClock) -> None:
    network = a_network(clock)
    hold = _held(network, 1, 3)
    assert (_resized(network, hold, 3).quantity, free(network)) == (3, 0)
    assert _resized(network, hold, 3).quantity == 3, "same key, same resize"
    assert (_resized(network, hold, 1, "s").quantity, free(network)) == (1, 2)
    with _refusal(ProblemCode.INSUFFICIENT_CAPACITY):
        _resized(network, hold, 4, "t")
    with _refusal(ProblemCode.KEY_REUSED):
        _resized(network, hold, 2, "s")


def test_a_hold_grows_no_further_than_there_is(clock: ManualClock) -> None:
    network = a_network(clock)
    hold = _held(network, 1, 3)
    network.hold(TENANT, wire.HoldRequest(quote_id=quoted(network, 2).quote_id, quantity=2), key="other")
    with _refusal(ProblemCode.INSUFFICIENT_CAPACITY):
        _resized(network, hold, 2)
    assert network.hold_state(TENANT, hold.hold_id).quantity == 1


def test_a_hold_grows_only_while_its_price_stands(clock: ManualClock) -> None:
    network = a_network(clock)
    hold = _held(network, 1, 3)
    network.pay(TENANT, hold.hold_id)
    clock.advance(timedelta(minutes=6))
    with _refusal(ProblemCode.QUOTE_EXPIRED):
        _resized(network, hold, 2)
    network.confirm(TENANT, hold.hold_id, node(), key="c")
    with _refusal(ProblemCode.INVALID_REQUEST):
        network.resize_hold(TENANT, hold.hold_id, wire.ResizeHoldRequest.model_construct(quantity=0), key="x")
    network.release(TENANT, hold.hold_id)
    with _refusal(ProblemCode.HOLD_LAPSED):
        _resized(network, hold, 1, "late")


def _larger() -> Listing:
    listing = a_listing("larger", ask="0.09")
    size = Resources(vcpus=4, memory_gib=8)
    return Listing(**{**vars(listing), "instance_type": "m.large", "resources": size})


def _resize(limit: str = "0.1", offer_id: str = "larger") -> wire.ResizeRequest:
    return wire.ResizeRequest(offer_id=offer_id, limit_price=money(limit))


def test_a_running_unit_becomes_a_larger_one_and_is_billed_for_both(clock: ManualClock) -> None:
    network = a_network(clock, [a_listing(), _larger()], meter_speed=3600)
    unit = network.confirm(TENANT, held(network).hold_id, node(), key="c")
    clock.advance(timedelta(seconds=10))
    resized = network.resize(TENANT, unit.reservation_id, _resize(), key="r")
    assert (resized.reservation_id, resized.instance_type, resized.unit_price) == (
        unit.reservation_id,
        "m.large",
        money("0.09"),
    )
    assert (free(network, 0), free(network, 1)) == (3, 2)
    assert network.resize(TENANT, unit.reservation_id, _resize(), key="r") == resized
    clock.advance(timedelta(seconds=20))
    network.end(TENANT, unit.reservation_id)
    assert free(network, 1) == 3
    rows = network.bill(TENANT, Interval(start=START, end=START + timedelta(days=1))).rows
    assert [(row.pricing_quantity, row.contracted_unit_price) for row in rows] == [
        (10, Decimal("0.05")),
        (20, Decimal("0.09")),
    ]


def test_a_resize_that_cannot_be(clock: ManualClock) -> None:
    elsewhere = Listing(**{**vars(_larger()), "offer_id": "elsewhere", "zone": "north-b"})
    auction = Listing(**{**vars(an_auction()), "offer_id": "auction"})
    network = a_network(clock, [a_listing(), _larger(), elsewhere, auction])
    unit = network.confirm(TENANT, held(network).hold_id, node(), key="c")
    for request, code in (
        (_resize("0.08"), ProblemCode.PRICE_ABOVE_LIMIT),
        (_resize(offer_id="elsewhere"), ProblemCode.INVALID_REQUEST),
        (_resize(offer_id="auction"), ProblemCode.INVALID_REQUEST),
        (_resize(offer_id="none"), ProblemCode.NOT_FOUND),
    ):
        with _refusal(code):
            network.resize(TENANT, unit.reservation_id, request, key=request.offer_id)
    network.end(TENANT, unit.reservation_id)
    with _refusal(ProblemCode.INVALID_REQUEST):
        network.resize(TENANT, unit.reservation_id, _resize(), key="late")
