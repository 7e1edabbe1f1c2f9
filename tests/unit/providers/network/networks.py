"""A small network in memory to test against, and one served over HTTP without a socket."""

import asyncio
import atexit
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from random import Random

import httpx
from starlette.types import ASGIApp

from engine.clock import ManualClock
from engine.model.capacity import Resources
from engine.model.market import PurchaseOption
from providers.network import wire
from providers.network.auction import Rivals, nobody
from providers.network.book import Terms
from providers.network.client import NetworkClient
from providers.network.exchange import Exchange
from providers.network.server import RateLimit, create_app
from providers.network.stock import AuctionRules, Listing
from providers.network.wire import WireAuctionRule

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
TERM = wire.WireTerm(start=START, end=START + timedelta(days=1))
ANY = Resources(vcpus=0, memory_gib=0)
TENANT = "acme"


def a_listing(
    offer_id: str = "lot",
    *,
    option: PurchaseOption = PurchaseOption.ON_DEMAND,
    ask: str = "0.05",
    units: int = 3,
    rule: WireAuctionRule | None = None,
    lowest_share_of_ask: str = "0.9",
) -> Listing:
    return Listing(
        offer_id=offer_id,
        region="north",
        zone="north-a",
        instance_type="m.small",
        resources=Resources(vcpus=2, memory_gib=4, storage_iops=1000, network_mbps=500),
        performance=1.0,
        option=option,
        ask=Decimal(ask),
        units=units,
        correlation_group="north/north-a/m",
        lowest_share_of_ask=Decimal(lowest_share_of_ask),
        auction=AuctionRules(rule) if rule else None,
    )


def an_auction(rule: WireAuctionRule = WireAuctionRule.SEALED_SECOND_PRICE, *, units: int = 3) -> Listing:
    return a_listing(option=PurchaseOption.AUCTION, ask="0.01", units=units, rule=rule)


def a_network(
    clock: ManualClock, listings: Sequence[Listing] = (), *, rivals: Rivals = nobody, meter_speed: int = 1
) -> Exchange:
    terms = Terms("tiny", meter_speed=Decimal(meter_speed))
    return Exchange(listings or [a_listing()], terms, clock=clock, rivals=rivals)


def free(exchange: Exchange, position: int = 0) -> int | None:
    return exchange.offers(ANY)[position].available


def money(amount: str, currency: str = "USD") -> wire.WireMoney:
    return wire.WireMoney(amount=Decimal(amount), currency=currency)


def quoted(exchange: Exchange, quantity: int = 1, *, tenant: str = TENANT) -> wire.WireQuote:
    return exchange.quote(tenant, wire.QuoteRequest(offer_id="lot", quantity=quantity, term=TERM))


def held(exchange: Exchange, quantity: int = 1, *, key: str = "k") -> wire.WireHold:
    quote = quoted(exchange, quantity)
    return exchange.hold(TENANT, wire.HoldRequest(quote_id=quote.quote_id, quantity=quantity), key=key)


def node(name: str = "n1", token: str = "t1", user_data: str = "#!/bin/sh\n") -> wire.ConfirmRequest:
    return wire.ConfirmRequest(node=name, token=token, user_data=user_data)


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """One loop in a thread of its own for all of them: a fresh one for every request costs more than the request."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="in-process servers", daemon=True)
    thread.start()

    def end() -> None:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()

    atexit.register(end)
    return loop


class InProcess(httpx.BaseTransport):
    """Carries requests to an ASGI application without a socket, and counts them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.requests: list[httpx.Request] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return asyncio.run_coroutine_threadsafe(self._carry(request), _loop()).result()

    async def _carry(self, request: httpx.Request) -> httpx.Response:
        inner = httpx.ASGITransport(self._app, raise_app_exceptions=False)
        answer = await inner.handle_async_request(
            httpx.Request(request.method, request.url, headers=request.headers, content=request.read())
        )
        assert isinstance(answer.stream, httpx.AsyncByteStream)
        body = b"".join([chunk async for chunk in answer.stream])
        return httpx.Response(answer.status_code, headers=answer.headers, content=body)


def served(exchange: Exchange, clock: ManualClock, *, limit: RateLimit | None = None) -> InProcess:
    return InProcess(create_app(exchange, tenants={"secret": TENANT}, clock=clock, limit=limit))


def a_client(transport: httpx.BaseTransport, clock: ManualClock, *, token: str = "secret") -> NetworkClient:
    return NetworkClient("https://tiny.test", token, clock=clock, rng=Random(0), transport=transport)
