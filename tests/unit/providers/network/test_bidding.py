"""Open ascending rounds; sealed ones are in test_auction and test_exchange."""

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal

import pytest

from engine.clock import ManualClock
from providers.network import wire
from providers.network.auction import stand
from providers.network.exchange import Exchange
from providers.network.stock import Refused
from providers.network.wire import BidStatus, ProblemCode, WireAuctionRule
from tests.unit.providers.network.networks import START, TENANT, TERM, a_network, an_auction, money
from tests.unit.providers.network.test_auction import bid

OPEN = WireAuctionRule.OPEN_ASCENDING
STEP = Decimal("0.001")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.mark.parametrize(
    ("supply", "rivals", "bids", "leads", "next_price"),
    [
        (2, [], [], {}, "0.01"),
        (2, ["0.04"], [], {}, "0.01"),
        (1, ["0.04"], [], {}, "0.011"),
        (1, ["0.04", "0.03"], [], {}, "0.032"),
        (1, ["0.04"], [("a", "0.02", 1)], {}, "0.022"),
        (1, ["0.04"], [("a", "0.041", 1)], {"a": 1}, "0.042"),
        (2, ["0.04"], [("a", "0.02", 2)], {"a": 1}, "0.021"),
        (0, ["0.04"], [], {}, "0.01"),
    ],
)
def test_a_rival_shows_no_more_than_it_must(
    supply: int, rivals: Sequence[str], bids: Sequence[tuple[str, str, int]], leads: dict[str, int], next_price: str
) -> None:
    entries = [bid(*entry) for entry in bids]
    standing = stand(supply, Decimal("0.01"), STEP, [Decimal(price) for price in rivals], entries)
    assert (standing.leads, standing.next_price) == (leads, Decimal(next_price))


def _network(clock: ManualClock) -> Exchange:
    return a_network(clock, [an_auction(OPEN, units=1)], rivals=lambda *_: [Decimal("0.03")])


def _bid(network: Exchange, price: str, key: str, *, raises: str | None = None) -> wire.WireBid:
    request = wire.BidRequest(quantity=1, unit_price=money(price), term=TERM, raises=raises)
    return network.bidding.bid(TENANT, "lot", request, key=key)


def test_bids_are_seen_raised_and_the_last_one_is_paid(clock: ManualClock) -> None:
    network = _network(clock)
    (auction,) = network.bidding.auctions()
    assert auction.standing_price == money("0.011")
    first = _bid(network, "0.011", "1")
    assert (first.leading, first.status) == (0, BidStatus.PENDING), "the rival went one step higher"
    (auction,) = network.bidding.auctions()
    assert auction.standing_price == money("0.013")
    second = _bid(network, "0.031", "2", raises=first.bid_id)
    assert second.leading == 1
    raised = network.bidding.result(TENANT, "lot", first.bid_id)
    assert (raised.status, raised.raised_by) == (BidStatus.RAISED, second.bid_id)
    clock.advance(timedelta(seconds=2))
    won = network.bidding.result(TENANT, "lot", second.bid_id)
    assert (won.status, won.clearing_price) == (BidStatus.WON, money("0.031"))
    assert won.quote is not None
    assert won.quote.unit_price == money("0.031")


def test_what_is_no_raise(clock: ManualClock) -> None:
    network = _network(clock)
    first = _bid(network, "0.011", "1")
    for price, raises, code in (
        ("0.011", None, ProblemCode.BID_TOO_LOW),
        ("0.011", first.bid_id, ProblemCode.BID_TOO_LOW),
        ("0.05", "bid-none", ProblemCode.NOT_FOUND),
    ):
        with pytest.raises(Refused, match=rf"^{code.value}"):
            _bid(network, price, f"{price}{raises}", raises=raises)
    clock.advance(timedelta(seconds=2))
    with pytest.raises(Refused, match="no open round"):
        _bid(network, "0.05", "late", raises=first.bid_id)
    sealed = a_network(clock, [an_auction()])
    with pytest.raises(Refused, match="sealed"):
        _bid(sealed, "0.05", "s", raises="bid-1")
    assert sealed.bidding.auctions()[0].standing_price is None, "a sealed auction tells nothing before it closes"
