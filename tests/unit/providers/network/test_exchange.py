from datetime import timedelta
from decimal import Decimal

import pytest

from engine.clock import ManualClock
from engine.model.capacity import Resources
from engine.model.market import PurchaseOption
from engine.model.value import Interval
from providers.network import wire
from providers.network.exchange import Exchange
from providers.network.stock import Refused
from providers.network.wire import HoldState, ProblemCode, QuoteKind
from providers.network.wire_records import PriceEvent, ReclaimEvent
from tests.unit.providers.network.networks import (
    ANY,
    START,
    TENANT,
    TERM,
    a_listing,
    a_network,
    an_auction,
    free,
    held,
    money,
    node,
    quoted,
)

YEAR = Interval(start=START - timedelta(days=1), end=START + timedelta(days=365))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def network(clock: ManualClock) -> Exchange:
    return a_network(clock)


def _refusal(code: ProblemCode) -> "pytest.RaisesExc[Refused]":
    return pytest.raises(Refused, match=f"^{code.value}")


# -- offers and quotes


def test_offers_are_filtered(network: Exchange) -> None:
    assert len(network.offers(ANY)) == 1
    assert len(network.offers(Resources(vcpus=2, memory_gib=4), ["north"], [PurchaseOption.ON_DEMAND])) == 1
    assert network.offers(Resources(vcpus=3, memory_gib=1)) == []
    assert network.offers(Resources(vcpus=1, memory_gib=1, storage_iops=2000)) == []
    assert network.offers(ANY, ["south"]) == []
    assert network.offers(ANY, [], [PurchaseOption.SPOT]) == []


def test_a_quote_keeps_nothing_and_a_hold_does(network: Exchange) -> None:
    quoted(network, 3)
    assert free(network) == 3
    held(network, 2)
    assert free(network) == 1
    with _refusal(ProblemCode.INSUFFICIENT_CAPACITY):
        quoted(network, 2)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"offer_id": "nothing"}, ProblemCode.NOT_FOUND),
        ({"term": wire.WireTerm(start=TERM.end, end=TERM.start)}, ProblemCode.INVALID_REQUEST),
        ({"term": wire.WireTerm(start=START - timedelta(days=2), end=START)}, ProblemCode.INVALID_REQUEST),
    ],
)
def test_a_quote_that_cannot_be(network: Exchange, change: dict[str, object], code: ProblemCode) -> None:
    with _refusal(code):
        network.quote(TENANT, wire.QuoteRequest(offer_id="lot", quantity=1, term=TERM).model_copy(update=change))


def test_a_firm_price_outlives_a_price_change(network: Exchange) -> None:
    quote = quoted(network)
    network.change_price("lot", Decimal("0.09"))
    hold = network.hold(TENANT, wire.HoldRequest(quote_id=quote.quote_id, quantity=1), key="k")
    assert hold.unit_price.amount == Decimal("0.05")
    assert network.offers(ANY)[0].price.amount == Decimal("0.09")
    assert quoted(network).unit_price.amount == Decimal("0.09")
    (event,) = [seen for seen in network.events("anybody", START) if isinstance(seen, PriceEvent)]
    assert event.price.amount == Decimal("0.09")


def test_a_quote_expires(network: Exchange, clock: ManualClock) -> None:
    quote = quoted(network)
    clock.advance(timedelta(minutes=5))
    with _refusal(ProblemCode.QUOTE_EXPIRED):
        network.hold(TENANT, wire.HoldRequest(quote_id=quote.quote_id, quantity=1), key="k")


# -- holds


def test_same_key_same_hold_and_another_request_is_refused(network: Exchange) -> None:
    quote = quoted(network, 2)
    request = wire.HoldRequest(quote_id=quote.quote_id, quantity=1)
    first = network.hold(TENANT, request, key="k")
    assert network.hold(TENANT, request, key="k") == first
    assert free(network) == 2
    with _refusal(ProblemCode.KEY_REUSED):
        network.hold(TENANT, wire.HoldRequest(quote_id=quote.quote_id, quantity=2), key="k")


def test_a_key_whose_hold_is_gone_is_free_for_another(network: Exchange, clock: ManualClock) -> None:
    first = held(network, 2)
    network.release(TENANT, first.hold_id)
    second = held(network)
    assert second.hold_id != first.hold_id
    clock.advance(timedelta(hours=1))
    assert held(network).hold_id not in (first.hold_id, second.hold_id)
    assert free(network) == 2


def test_holds_share_a_quote_but_not_more_than_it(network: Exchange) -> None:
    request = wire.HoldRequest(quote_id=quoted(network, 2).quote_id, quantity=1)
    network.hold(TENANT, request, key="a")
    network.hold(TENANT, request, key="b")
    with _refusal(ProblemCode.INSUFFICIENT_CAPACITY):
        network.hold(TENANT, request, key="c")


def test_a_hold_lapses(network: Exchange, clock: ManualClock) -> None:
    hold = held(network, 3)
    clock.advance(timedelta(minutes=15))
    assert network.hold_state(TENANT, hold.hold_id).state is HoldState.LAPSED
    assert free(network) == 3
    for act in (
        lambda: network.confirm(TENANT, hold.hold_id, node(), key="c"),
        lambda: network.pay(TENANT, hold.hold_id),
    ):
        with _refusal(ProblemCode.HOLD_LAPSED):
            act()


def test_a_paid_hold_does_not(network: Exchange, clock: ManualClock) -> None:
    hold = held(network, 2)
    paid = network.pay(TENANT, hold.hold_id)
    clock.advance(timedelta(days=1))
    assert network.pay(TENANT, hold.hold_id) == paid
    assert (paid.state, free(network)) == (HoldState.PAID, 1)
    assert network.confirm(TENANT, hold.hold_id, node(), key="c").state is wire.ReservationState.RUNNING
    network.release(TENANT, hold.hold_id)
    network.release(TENANT, hold.hold_id)
    assert free(network) == 2, "the running unit stays"


def test_nobody_sees_what_another_tenant_has(network: Exchange) -> None:
    hold = held(network)
    unit = network.confirm(TENANT, hold.hold_id, node(), key="c")
    for act in (
        lambda: network.hold_state("other", hold.hold_id),
        lambda: network.release("other", hold.hold_id),
        lambda: network.reservation("other", unit.reservation_id),
        lambda: network.end("other", unit.reservation_id),
        lambda: network.hold("other", wire.HoldRequest(quote_id=hold.quote_id, quantity=1), key="k"),
    ):
        with _refusal(ProblemCode.NOT_FOUND):
            act()
    assert network.instances("other") == []
    assert network.bill("other", YEAR).rows == ()


# -- reservations


def test_a_node_is_started_once_whatever_the_key_and_the_user_data(network: Exchange) -> None:
    hold = held(network, 2)
    first = network.confirm(TENANT, hold.hold_id, node(user_data="one"), key="a")
    assert network.confirm(TENANT, hold.hold_id, node(user_data="two"), key="a") == first
    assert network.confirm(TENANT, hold.hold_id, node(user_data="two"), key="b") == first
    assert network.hold_state(TENANT, hold.hold_id).started == 1
    with _refusal(ProblemCode.NODE_TAKEN):
        network.confirm(TENANT, hold.hold_id, node(token="t2"), key="c")
    with _refusal(ProblemCode.KEY_REUSED):
        network.confirm(TENANT, hold.hold_id, node("n2"), key="a")


def test_a_hold_starts_as_many_nodes_as_it_has_units(network: Exchange) -> None:
    hold = held(network, 2)
    for name in ("n1", "n2"):
        network.confirm(TENANT, hold.hold_id, node(name), key=name)
    with _refusal(ProblemCode.INSUFFICIENT_CAPACITY):
        network.confirm(TENANT, hold.hold_id, node("n3"), key="n3")
    assert [instance.node for instance in network.instances(TENANT)] == ["n1", "n2"]


def test_ending_a_unit_frees_it_and_a_key_still_answers(network: Exchange) -> None:
    hold = held(network)
    unit = network.confirm(TENANT, hold.hold_id, node(), key="c")
    network.end(TENANT, unit.reservation_id)
    network.end(TENANT, unit.reservation_id)
    assert free(network) == 3
    assert network.confirm(TENANT, hold.hold_id, node(), key="c").state is wire.ReservationState.ENDED


def test_a_reclaim_is_told_then_done(network: Exchange, clock: ManualClock) -> None:
    unit = network.confirm(TENANT, held(network).hold_id, node(), key="c")
    network.reclaim(unit.reservation_id, timedelta(seconds=30))
    network.reclaim(unit.reservation_id, timedelta(seconds=5))
    (event,) = [seen for seen in network.events(TENANT, START) if isinstance(seen, ReclaimEvent)]
    assert (event.node, event.reclaim_at) == ("n1", START + timedelta(seconds=30))
    assert not any(isinstance(seen, ReclaimEvent) for seen in network.events("other", START))
    assert network.events(TENANT, START + timedelta(seconds=1)) == []
    clock.advance(timedelta(seconds=29))
    assert free(network) == 2
    clock.advance(timedelta(seconds=1))
    assert (free(network), network.instances(TENANT)) == (3, [])
    with _refusal(ProblemCode.NOT_FOUND):
        network.reclaim("res-none", timedelta(0))


# -- auctions


def _bid(network: Exchange, price: str = "0.05", *, key: str = "k", quantity: int = 1) -> wire.WireBid:
    request = wire.BidRequest(quantity=quantity, unit_price=money(price), term=TERM)
    return network.bidding.bid(TENANT, "lot", request, key=key)


def test_a_won_quote_keeps_its_units_until_it_is_held_or_expires(clock: ManualClock) -> None:
    network = a_network(clock, [an_auction()], rivals=lambda *_: [Decimal("0.02")] * 3)
    bid = _bid(network, quantity=2)
    assert (bid.status, bid.quote) == (wire.BidStatus.PENDING, None)
    clock.advance(timedelta(seconds=2))
    won = network.bidding.result(TENANT, "lot", bid.bid_id)
    assert won.quote is not None
    assert (won.status, won.quote.kind, won.quote.unit_price.amount) == ("won", QuoteKind.AUCTION, Decimal("0.02"))
    assert free(network) == 1
    hold = network.hold(TENANT, wire.HoldRequest(quote_id=won.quote.quote_id, quantity=1), key="h")
    assert (free(network), hold.unit_price.amount) == (1, Decimal("0.02"))
    clock.advance(timedelta(minutes=5))
    assert free(network) == 2, "the half that was not held is free again"


def test_a_released_hold_of_a_won_quote_can_be_held_again(clock: ManualClock) -> None:
    network = a_network(clock, [an_auction()])
    bid = _bid(network, quantity=2)
    clock.advance(timedelta(seconds=2))
    won = network.bidding.result(TENANT, "lot", bid.bid_id).quote
    assert won is not None
    request = wire.HoldRequest(quote_id=won.quote_id, quantity=2)
    network.release(TENANT, network.hold(TENANT, request, key="a").hold_id)
    assert free(network) == 1, "still kept for the winner"
    again = network.hold(TENANT, request, key="b")
    clock.advance(timedelta(minutes=6))
    network.release(TENANT, again.hold_id)
    assert free(network) == 3


def test_the_same_key_is_the_same_bid_even_if_it_asks_differently(clock: ManualClock) -> None:
    network = a_network(clock, [an_auction()])
    first = _bid(network)
    assert _bid(network, "0.04") == first
    clock.advance(timedelta(seconds=5))
    assert _bid(network, "0.04").bid_id == first.bid_id
    assert free(network) == 2


@pytest.mark.parametrize(
    ("auction_id", "price", "code"),
    [
        ("nothing", money("0.05"), ProblemCode.NOT_FOUND),
        ("posted", money("0.05"), ProblemCode.NOT_FOUND),
        ("lot", money("0"), ProblemCode.INVALID_REQUEST),
        ("lot", money("0.05", "EUR"), ProblemCode.INVALID_REQUEST),
    ],
)
def test_a_bid_that_cannot_be(clock: ManualClock, auction_id: str, price: wire.WireMoney, code: ProblemCode) -> None:
    network = a_network(clock, [an_auction(), a_listing("posted")])
    with _refusal(code):
        network.bidding.bid(TENANT, auction_id, wire.BidRequest(quantity=1, unit_price=price, term=TERM), key="k")


def test_an_auction_is_not_sold_at_a_posted_price(clock: ManualClock) -> None:
    with _refusal(ProblemCode.INVALID_REQUEST):
        quoted(a_network(clock, [an_auction()]))


# -- bills


def test_a_bill_meters_running_and_idle_units(clock: ManualClock) -> None:
    network = a_network(clock, meter_speed=3600)
    hold = held(network, 2)
    network.pay(TENANT, hold.hold_id)
    clock.advance(timedelta(seconds=10))
    unit = network.confirm(TENANT, hold.hold_id, node(), key="c")
    clock.advance(timedelta(seconds=20))
    network.end(TENANT, unit.reservation_id)
    network.release(TENANT, hold.hold_id)
    clock.advance(timedelta(seconds=100))
    bill = network.bill(TENANT, YEAR)
    hours = {row.capacity_reservation_status: [] for row in bill.rows}  # type: ignore[var-annotated]
    for row in bill.rows:
        hours[row.capacity_reservation_status].append(row.pricing_quantity)
    assert hours == {"Used": [20], "Unused": [10, 30]}
    assert bill.invoice.total.amount == Decimal("3.00") == sum(row.billed_cost for row in bill.rows)
    used = next(row for row in bill.rows if row.capacity_reservation_status == "Used")
    assert used.tags == {"shardwright-node": "n1", "shardwright-token": "t1"}


def test_a_period_that_ends_before_it_starts(network: Exchange) -> None:
    with _refusal(ProblemCode.INVALID_REQUEST):
        network.bill(TENANT, Interval(start=START, end=START))
