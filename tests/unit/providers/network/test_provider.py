import json
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from engine.clock import ManualClock
from engine.errors import (
    AuthenticationFailed,
    ConfigurationError,
    InsufficientCapacity,
    NotFound,
    PriceMismatch,
    ProviderAnswerInvalid,
    ProviderUnavailable,
    QuoteExpired,
)
from engine.model.billing import BillFormat
from engine.model.capacity import Placement, Resources
from engine.model.market import Offer, OfferQuery, PurchaseOption, Quote
from engine.model.money import usd
from engine.model.value import Interval
from providers.base import AuctionRule, EventKind, ProviderSettings
from providers.network.exchange import Exchange
from providers.network.provider import NetworkProvider
from providers.network.wire import WireAuctionRule
from tests.unit.providers.network.networks import (
    START,
    TENANT,
    a_listing,
    a_network,
    an_auction,
    free,
    node,
    served,
)

QUERY = OfferQuery(at_least=Resources(vcpus=1, memory_gib=1))
DAY = Interval(start=START, end=START + timedelta(days=1))
SETTINGS = ProviderSettings(
    name="tiny",
    kind="network",
    account=TENANT,
    regions=("north",),
    endpoint="https://tiny.test",
    credentials={"token": SecretStr("secret")},
)
Change = Callable[[str, Any], Any]
"""(path, body) -> body: what a lying network answers instead."""


class Lying(httpx.BaseTransport):
    def __init__(self, honest: httpx.BaseTransport, change: Change) -> None:
        self._honest, self._change = honest, change

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = self._honest.handle_request(request)
        if not answer.read() or answer.status_code >= 300:
            return answer
        body = self._change(request.url.path, json.loads(answer.content))
        return httpx.Response(answer.status_code, content=json.dumps(body))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


def _provider(exchange: Exchange, clock: ManualClock, change: Change | None = None) -> NetworkProvider:
    transport: httpx.BaseTransport = served(exchange, clock)
    if change is not None:
        transport = Lying(transport, change)
    return NetworkProvider(SETTINGS, clock=clock, transport=transport)


def _first(provider: NetworkProvider) -> Offer:
    return provider.offers(QUERY)[0]


def _at(path: str, **fields: Any) -> Change:
    return lambda where, body: {**body, **fields} if where == path else body


def test_placement_keeps_the_network_unasked(clock: ManualClock) -> None:
    transport = served(a_network(clock), clock)
    provider = NetworkProvider(SETTINGS, clock=clock, transport=transport)
    elsewhere = QUERY.model_copy(update={"placement": Placement(regions=("south",))})
    assert provider.offers(elsewhere) == ()
    assert transport.requests == []


def test_a_network_that_ignores_filters_is_filtered_here(clock: ManualClock) -> None:
    spot = a_listing("spot", option=PurchaseOption.SPOT)

    def unfiltered(path: str, body: Any) -> Any:
        if path != "/v1/offers":
            return body
        return {
            "offers": [json.loads(o.model_dump_json()) for o in everything.offers(Resources(vcpus=0, memory_gib=0))]
        }

    everything = a_network(clock, [a_listing(), spot])
    provider = _provider(everything, clock, unfiltered)
    only = QUERY.model_copy(update={"options": (PurchaseOption.SPOT,)})
    assert [offer.id for offer in provider.offers(only)] == ["tiny/spot"]
    assert provider.offers(OfferQuery(at_least=Resources(vcpus=99, memory_gib=1))) == ()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"performance": 0}, "performance"),
        ({"available": -1}, "available"),
        ({"interruption_per_month": 2}, "interruption_per_month"),
        ({"price": None}, "price"),
        ({"resources": {"vcpus": -2, "memory_gib": 4}}, "vcpus"),
    ],
)
def test_an_offer_that_cannot_be_is_named(clock: ManualClock, fields: dict[str, Any], reason: str) -> None:
    def change(path: str, body: Any) -> Any:
        if path != "/v1/offers":
            return body
        good = body["offers"][0]
        return {"offers": [{**good, "offer_id": "bad", **fields}, good]}

    book = _provider(a_network(clock), clock, change).offer_book(QUERY)
    assert [offer.id for offer in book.offers] == ["tiny/lot"]
    assert [(found.offer, found.provider) for found in book.rejections] == [("tiny/bad", "tiny")]
    assert reason in book.rejections[0].reason


def test_quote_hold_confirm_release(clock: ManualClock) -> None:
    exchange = a_network(clock)
    provider = _provider(exchange, clock)
    quote = provider.quote(_first(provider), 2, DAY)
    assert (quote.unit_price, quote.price_ceiling, quote.quantity) == (usd("0.05"), usd("0.05"), 2)
    hold = provider.hold(quote, key="k")
    assert provider.hold(quote, key="k") == hold
    assert free(exchange) == 1
    paid = provider.confirm(hold)
    assert paid.provider_reference == hold.provider_reference
    provider.release(str(paid.provider_reference))
    provider.release(str(hold.id))
    assert free(exchange) == 3


def test_confirm_after_the_nodes_are_started(clock: ManualClock) -> None:
    exchange = a_network(clock)
    provider = _provider(exchange, clock)
    hold = provider.hold(provider.quote(_first(provider), 1, DAY), key="k")
    exchange.confirm(TENANT, str(hold.provider_reference), node(), key="c")
    clock.advance(timedelta(hours=1))
    assert provider.confirm(hold).hold_id == hold.id
    (record,) = provider.instances()
    assert (record.node, record.token, record.running) == ("n1", "t1", True)
    provider.terminate(record.instance_id)
    assert provider.instances() == []


def test_a_lapsed_hold(clock: ManualClock) -> None:
    provider = _provider(a_network(clock), clock)
    hold = provider.hold(provider.quote(_first(provider), 1, DAY), key="k")
    clock.advance(timedelta(hours=1))
    with pytest.raises(NotFound):
        provider.confirm(hold)
    with pytest.raises(QuoteExpired):
        provider.hold(hold.quote, key="k")


def test_no_capacity(clock: ManualClock) -> None:
    provider = _provider(a_network(clock), clock)
    with pytest.raises(InsufficientCapacity):
        provider.quote(_first(provider), 4, DAY)


def test_a_hold_at_another_price_is_given_back(clock: ManualClock) -> None:
    exchange = a_network(clock)
    lie = _at("/v1/holds", unit_price={"amount": "0.051", "currency": "USD"})
    provider = _provider(exchange, clock, lie)
    with pytest.raises(PriceMismatch, match=r"quoted 1 at 0\.05 USD, held 1 at 0\.051 USD"):
        provider.hold(provider.quote(_first(provider), 1, DAY), key="k")
    assert free(exchange) == 3


def test_a_hold_that_is_charged_at_another_price_stops_the_purchase(clock: ManualClock) -> None:
    def charges_more(path: str, body: Any) -> Any:
        return {**body, "unit_price": {"amount": "0.06", "currency": "USD"}} if path.endswith("/pay") else body

    provider = _provider(a_network(clock), clock, charges_more)
    hold = provider.hold(provider.quote(_first(provider), 1, DAY), key="k")
    with pytest.raises(PriceMismatch, match=r"taken at 0\.05 USD, but is charged at 0\.06 USD; .* signed promise"):
        provider.confirm(hold)
    assert hold.quote.proof


@pytest.mark.parametrize(
    "fields",
    [
        {"quantity": 9},
        {"offer_id": "other"},
        {"unit_price": {"amount": "0", "currency": "USD"}},
        {"unit_price": {"amount": "-1", "currency": "USD"}},
        {"unit_price": {"amount": 0.05, "currency": "USD"}},
    ],
)
def test_a_quote_for_something_else(clock: ManualClock, fields: dict[str, Any]) -> None:
    provider = _provider(a_network(clock), clock, _at("/v1/quotes", **fields))
    with pytest.raises(ProviderAnswerInvalid):
        provider.quote(_first(provider), 1, DAY)


# -- auctions


def _rivals(*_: object) -> list[Decimal]:
    return [Decimal("0.02")] * 3


def test_a_bid_waits_for_its_round(clock: ManualClock) -> None:
    provider = _provider(a_network(clock, [an_auction()], rivals=_rivals), clock)
    offer = _first(provider)
    terms = provider.auction_terms(offer)
    assert (terms.rule, terms.reserve_price) == (AuctionRule.SECOND_PRICE, usd("0.01"))
    outcome = provider.bid(offer, 1, usd("0.05"), DAY, key="k")
    assert outcome.won
    assert outcome.quote is not None
    assert outcome.quote.unit_price == outcome.clearing_price == usd("0.02")
    assert clock.now() - START <= timedelta(seconds=4)
    lost = provider.bid(offer, 1, usd("0.015"), DAY, key="k2")
    assert (lost.won, lost.clearing_price, lost.quote) == (False, usd("0.02"), None)


def test_an_open_auction_is_won_at_what_it_takes(clock: ManualClock) -> None:
    open_ascending = an_auction(WireAuctionRule.OPEN_ASCENDING, units=2)
    provider = _provider(a_network(clock, [open_ascending], rivals=_rivals), clock)
    offer = _first(provider)
    assert provider.auction_terms(offer).rule is AuctionRule.OPEN_ASCENDING
    outcome = provider.bid(offer, 1, usd("0.05"), DAY, key="k")
    assert outcome.quote is not None, outcome.reason
    assert usd("0.02") < outcome.quote.unit_price <= usd("0.022")
    above = provider.bid(offer, 1, usd("0.01"), DAY, key="k2")
    assert (above.won, above.quote) == (False, None)
    assert "above 0.01 USD" in above.reason


def test_a_first_price_rule_is_told(clock: ManualClock) -> None:
    provider = _provider(a_network(clock, [an_auction(WireAuctionRule.SEALED_FIRST_PRICE)]), clock)
    assert provider.auction_terms(_first(provider)).rule is AuctionRule.FIRST_PRICE


def _stuck(path: str, body: Any) -> Any:
    return {**body, "status": "pending"} if "/bids" in path else body


def _dearer(path: str, body: Any) -> Any:
    if "/bids" in path and body["quote"]:
        body["quote"]["unit_price"]["amount"] = "0.06"
    return body


def _empty_handed(path: str, body: Any) -> Any:
    return {**body, "quote": None} if "/bids" in path else body


@pytest.mark.parametrize(
    ("change", "error"),
    [(_stuck, ProviderUnavailable), (_dearer, PriceMismatch), (_empty_handed, ProviderAnswerInvalid)],
)
def test_an_auction_that_goes_wrong(clock: ManualClock, change: Change, error: type[Exception]) -> None:
    provider = _provider(a_network(clock, [an_auction()], rivals=_rivals), clock, change)
    with pytest.raises(error):
        provider.bid(_first(provider), 1, usd("0.05"), DAY, key="k")
    assert clock.now() - START <= timedelta(seconds=62)


def test_no_auction(clock: ManualClock) -> None:
    provider = _provider(a_network(clock), clock)
    offer = _first(provider)
    with pytest.raises(NotFound):
        provider.bid(offer, 1, usd("0.05"), DAY, key="k")
    with pytest.raises(NotFound):
        provider.auction_terms(offer.model_copy(update={"auction_id": "none"}))


# -- records


def _running(provider: NetworkProvider, exchange: Exchange) -> tuple[Quote, str]:
    quote = provider.quote(_first(provider), 1, DAY)
    hold = provider.hold(quote, key="k")
    return quote, exchange.confirm(TENANT, str(hold.provider_reference), node(), key="c").reservation_id


def test_reclaim_notices(clock: ManualClock) -> None:
    exchange = a_network(clock)
    provider = _provider(exchange, clock)
    _, unit = _running(provider, exchange)
    exchange.change_price("lot", Decimal("0.06"))
    exchange.reclaim(unit, timedelta(seconds=30), "maintenance")
    (notice,) = provider.reclaim_notices(START)
    assert (notice.node, notice.provider, notice.reason) == ("n1", "tiny", "maintenance")
    assert notice.notice == timedelta(seconds=30)


def test_events_are_told_as_they_happen_and_resumed(clock: ManualClock) -> None:
    exchange = a_network(clock)
    provider = _provider(exchange, clock)
    _, unit = _running(provider, exchange)
    assert provider.tells_events()
    seen = list(provider.event_stream(None, wait_seconds=0))
    exchange.change_price("lot", Decimal("0.06"))
    exchange.reclaim(unit, timedelta(seconds=30), "maintenance")
    price, reclaim = provider.event_stream(seen[-1].id, wait_seconds=0)
    assert (price.kind, price.offer, price.notice) == (EventKind.PRICE, "tiny/lot", None)
    assert (reclaim.kind, reclaim.offer) == (EventKind.RECLAIM, None)
    assert reclaim.notice is not None
    assert (reclaim.notice.node, reclaim.notice.provider, reclaim.notice.reason) == ("n1", "tiny", "maintenance")
    (gap,) = provider.event_stream("999", wait_seconds=0)
    assert (gap.kind, gap.id) == (EventKind.GAP, reclaim.id)


def test_a_network_that_says_nothing_of_a_stream_has_none(clock: ManualClock) -> None:
    def older(path: str, body: Any) -> Any:
        return {key: value for key, value in body.items() if key != "event_stream"} if path == "/v1/terms" else body

    assert not _provider(a_network(clock), clock, older).tells_events()


def test_a_bill_is_delivered_as_it_was_written(clock: ManualClock) -> None:
    exchange = a_network(clock, meter_speed=3600)
    provider = _provider(exchange, clock)
    _running(provider, exchange)
    clock.advance(timedelta(seconds=7))
    delivery = provider.bill(DAY)
    assert (delivery.format, delivery.content_type) == (BillFormat.FOCUS, "text/csv")
    assert delivery.invoice.total == usd("0.35")
    assert delivery.invoice.billing_period == DAY
    assert b"0.350000000" in delivery.content


# -- settings


def test_a_network_needs_an_address_and_a_token(clock: ManualClock) -> None:
    with pytest.raises(ConfigurationError, match=r"providers\.tiny\.endpoint"):
        NetworkProvider(SETTINGS.model_copy(update={"endpoint": None}), clock=clock)
    unarmed = NetworkProvider(SETTINGS.model_copy(update={"credentials": {}}), clock=clock)
    with pytest.raises(AuthenticationFailed, match="no token"):
        unarmed.offers(QUERY)
