import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from itertools import pairwise

import httpx
import pytest

from engine.clock import ManualClock
from engine.errors import NotFound, ProviderAnswerInvalid, ProviderUnavailable
from providers.network import wire
from providers.network.climbing import bid_and_wait, find_auction
from providers.network.exchange import Exchange
from providers.network.stock import AuctionRules
from providers.network.wire import BidStatus, WireAuctionRule
from tests.unit.providers.network.networks import START, TERM, InProcess, a_client, a_network, an_auction, money, served
from tests.unit.providers.network.test_provider import Change, Lying

OPEN = WireAuctionRule.OPEN_ASCENDING


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


def _network(clock: ManualClock, rivals: Sequence[str] = ("0.03", "0.02"), *, units: int = 2) -> Exchange:
    return a_network(clock, [an_auction(OPEN, units=units)], rivals=lambda *_: [Decimal(price) for price in rivals])


def _bid(
    network: Exchange, clock: ManualClock, limit: str, *, key: str = "k", transport: httpx.BaseTransport | None = None
) -> wire.WireBid | None:
    client = a_client(transport or served(network, clock), clock)
    return bid_and_wait(client, clock, "lot", quantity=1, limit=money(limit), term=TERM, key=key)


def test_it_pays_no_more_than_it_takes(clock: ManualClock) -> None:
    won = _bid(_network(clock), clock, "0.05")
    assert won is not None
    assert won.status is BidStatus.WON
    assert Decimal("0.02") < won.unit_price.amount <= Decimal("0.022"), "one step above the rival that had to give up"


def test_it_never_goes_above_its_limit(clock: ManualClock) -> None:
    lost = _bid(_network(clock, ["0.04"] * 3, units=1), clock, "0.02")
    assert lost is None or (lost.status is BidStatus.LOST and lost.unit_price.amount <= Decimal("0.02"))
    assert _bid(_network(clock, ["0.04"] * 3, units=1), clock, "0.01") is None, "it stands above the limit already"


def test_two_buyers_climb_until_one_gives_up(clock: ManualClock) -> None:
    network = _network(clock, [], units=1)
    transport = served(network, clock)
    first = a_client(transport, clock).bid("lot", quantity=1, unit_price=money("0.015"), term=TERM, key="other")
    won = _bid(network, clock, "0.05", transport=transport)
    assert won is not None
    assert (won.status, won.unit_price) == (BidStatus.WON, money("0.016"))
    assert a_client(transport, clock).bid_result("lot", first.bid_id).status is BidStatus.LOST


def test_a_resumed_round_follows_its_raised_bid(clock: ManualClock) -> None:
    network = _network(clock, [], units=1)
    transport = served(network, clock)
    client = a_client(transport, clock)
    first = client.bid("lot", quantity=1, unit_price=money("0.01"), term=TERM, key="k")
    second = client.bid("lot", quantity=1, unit_price=money("0.02"), term=TERM, key="k:1", raises=first.bid_id)
    won = _bid(network, clock, "0.05", transport=transport)
    assert won is not None
    assert (won.bid_id, won.status) == (second.bid_id, BidStatus.WON)


def _lying(clock: ManualClock, change: Change) -> httpx.BaseTransport:
    return Lying(InProcess(served(_network(clock), clock)._app), change)


def test_an_open_auction_that_says_nothing(clock: ManualClock) -> None:
    def silent(path: str, body: dict[str, object]) -> dict[str, object]:
        if path == "/v1/auctions":
            for auction in body["auctions"]:  # type: ignore[attr-defined]
                auction["standing_price"] = None
        return body

    with pytest.raises(ProviderAnswerInvalid, match="says not what leads"):
        _bid(_network(clock), clock, "0.05", transport=_lying(clock, silent))


def test_a_round_that_never_closes(clock: ManualClock) -> None:
    def pending(path: str, body: dict[str, object]) -> dict[str, object]:
        return {**body, "status": "pending", "leading": 1} if "/bids" in path else body

    with pytest.raises(ProviderUnavailable, match="has not decided"):
        _bid(_network(clock), clock, "0.05", transport=_lying(clock, pending))
    assert clock.now() - START < timedelta(seconds=70)


def test_no_such_auction(clock: ManualClock) -> None:
    with pytest.raises(NotFound):
        find_auction(a_client(served(_network(clock), clock), clock), "none")


# -- counterparties that climb


class Shill(httpx.BaseTransport):
    """A seller that has somebody bid against us by ``step`` whenever we lead, as long as it thinks we go along."""

    def __init__(self, network: Exchange, clock: ManualClock, step: str, up_to: str) -> None:
        self.honest = served(network, clock)
        self.client = a_client(self.honest, clock)
        self.step, self.up_to, self.count = Decimal(step), Decimal(up_to), 0
        self.ours: list[Decimal] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = self.honest.handle_request(request)
        if request.method == "POST" and answer.status_code == 201:
            price = Decimal(json.loads(request.content)["unit_price"]["amount"])
            self.ours.append(price)
            self.count += 1
            if price + self.step <= self.up_to:
                self.client.bid(
                    "lot", quantity=1, unit_price=money(str(price + self.step)), term=TERM, key=f"shill{self.count}"
                )
        return answer


def test_a_shill_drives_the_price_to_the_limit_and_never_above(clock: ManualClock) -> None:
    shill = Shill(_network(clock, [], units=1), clock, "0.001", "9")
    lost = _bid(_network(clock), clock, "0.0305", transport=shill)
    assert lost is not None
    assert lost.status is BidStatus.LOST
    assert shill.ours == sorted(shill.ours)
    assert max(shill.ours) <= Decimal("0.0305")
    assert len(shill.ours) >= 5


def test_a_rival_that_gives_up_leaves_it_at_one_step_more(clock: ManualClock) -> None:
    shill = Shill(_network(clock, [], units=1), clock, "0.001", "0.02")
    won = _bid(_network(clock), clock, "0.05", transport=shill)
    assert won is not None
    assert (won.status, won.unit_price) == (BidStatus.WON, money("0.020")), "one step above 0.019, where it gave up"
    steps = [later - earlier for earlier, later in pairwise(shill.ours)]
    assert set(steps) == {Decimal("0.002")}, "what it takes to lead again, each time"


def test_a_seller_that_raises_by_a_hair_is_not_followed_for_ever(clock: ManualClock) -> None:
    """Each look at the auction asks a little more than the last bid, and no bid ever leads."""
    asked: list[httpx.Request] = []

    def hair(path: str, body: dict[str, object]) -> dict[str, object]:
        if path == "/v1/auctions":
            for auction in body["auctions"]:  # type: ignore[attr-defined]
                auction["standing_price"]["amount"] = str(Decimal("0.01") + Decimal(len(asked)) / 10**7)
        return {**body, "leading": 0} if "/bids" in path else body

    honest = a_network(clock, [replace(an_auction(OPEN, units=1), auction=AuctionRules(OPEN, 2.0, Decimal(0)))])
    inner = served(honest, clock)

    class Counted(Lying):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            if request.method == "POST":
                asked.append(request)
            return super().handle_request(request)

    decided = _bid(honest, clock, "0.05", transport=Counted(inner, hair))
    assert decided is not None
    assert decided.unit_price.amount <= Decimal("0.05")
    assert len(asked) <= 201


def test_who_is_outrun_between_the_look_and_the_bid_looks_again(clock: ManualClock) -> None:
    network = _network(clock, [], units=1)
    honest, outrun = served(network, clock), []

    class Faster(httpx.BaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            answer = honest.handle_request(request)
            if request.url.path == "/v1/auctions" and not outrun:
                outrun.append(
                    a_client(honest, clock).bid("lot", quantity=1, unit_price=money("0.02"), term=TERM, key="faster")
                )
            return answer

    won = _bid(network, clock, "0.05", transport=Faster())
    assert won is not None
    assert (won.status, won.unit_price) == (BidStatus.WON, money("0.021"))


def test_who_is_always_outrun_gives_the_round_up(clock: ManualClock) -> None:
    def refused(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            body = '{"type": "x", "title": "bid too low", "status": 409, "code": "bid_too_low"}'
            return httpx.Response(409, content=body)
        return inner.handle_request(request)

    inner = served(_network(clock, [], units=1), clock)
    assert _bid(_network(clock), clock, "0.05", transport=httpx.MockTransport(refused)) is None
