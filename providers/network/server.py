"""The Open Capacity API over HTTP: ``create_app(exchange, …)`` is the reference server.

Its OpenAPI 3.1 description is generated, served without a token at /openapi.json, and frozen in openapi.json beside
this file. The verification keys at /v1/keys need no token either. Everything else wants ``Authorization: Bearer
TOKEN``; the token says which tenant asks. Every purchase wants an ``Idempotency-Key``. Errors are
application/problem+json and never repeat what was sent.
"""

import hmac
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response, StreamingResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException

from engine.clock import Clock
from engine.model.capacity import Resources
from engine.model.market import PurchaseOption
from engine.model.value import Interval
from providers.network import wire
from providers.network.exchange import Exchange
from providers.network.statement import as_csv
from providers.network.stock import Refused
from providers.network.streaming import event_stream
from providers.network.wire import ProblemCode
from providers.network.wire_records import AnyEvent, EventList, WireBill
from providers.network.wire_talks import (
    NegotiationRequest,
    Proposal,
    ReverseRequest,
    WireNegotiation,
    WireReverseAuction,
)

_STATUS = {
    ProblemCode.INVALID_REQUEST: 400,
    ProblemCode.UNAUTHORIZED: 401,
    ProblemCode.NOT_FOUND: 404,
    ProblemCode.INSUFFICIENT_CAPACITY: 409,
    ProblemCode.NODE_TAKEN: 409,
    ProblemCode.BID_TOO_LOW: 409,
    ProblemCode.PRICE_ABOVE_LIMIT: 409,
    ProblemCode.NEGOTIATION_OVER: 410,
    ProblemCode.QUOTE_EXPIRED: 410,
    ProblemCode.HOLD_LAPSED: 410,
    ProblemCode.KEY_REUSED: 422,
    ProblemCode.RATE_LIMITED: 429,
    ProblemCode.UNAVAILABLE: 503,
}
_BY_STATUS = {401: ProblemCode.UNAUTHORIZED, 404: ProblemCode.NOT_FOUND, 503: ProblemCode.UNAVAILABLE}
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": wire.Problem, "content": {"application/problem+json": {}}, "description": meaning}
    for status, meaning in {
        400: "The request makes no sense.",
        401: "No token, or not one of ours.",
        404: "There is no such thing, or it is not yours.",
        409: "Not enough capacity, the node's name is taken, or the price is not enough.",
        410: "The quote expired, the hold lapsed, or the negotiation is over.",
        422: "The request is not well-formed, or its idempotency key was used for another one.",
        429: "Too many requests.",
    }.items()
}

_LARGEST_ID = 2**53
_bearer = HTTPBearer(auto_error=False)
Key = Annotated[
    str,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        description="The same key with the same request is the same purchase.",
    ),
]


class TooMany(Exception):
    """Come back after ``wait``."""

    def __init__(self, wait: timedelta) -> None:
        self.wait = wait
        super().__init__(wait)


class RateLimit:
    """A token bucket per tenant: ``per_second`` requests on average, ``burst`` at once."""

    def __init__(self, clock: Clock, *, per_second: float = 200.0, burst: float = 400.0) -> None:
        self._clock, self._per_second, self._burst = clock, per_second, burst
        self._lock = threading.Lock()
        self._buckets: dict[str, tuple[float, datetime]] = {}

    @property
    def policy(self) -> wire.RatePolicy:
        return wire.RatePolicy(per_second=self._per_second, burst=int(self._burst))

    def wait(self, tenant: str) -> timedelta:
        """Zero when the request may pass, else for how long to stay away."""
        with self._lock:
            now = self._clock.now()
            level, seen_at = self._buckets.get(tenant, (self._burst, now))
            level = min(self._burst, level + (now - seen_at).total_seconds() * self._per_second)
            if level < 1:
                return timedelta(seconds=(1 - level) / self._per_second)
            self._buckets[tenant] = (level - 1, now)
            return timedelta(0)


@dataclass(frozen=True, eq=False)
class _Gate:
    """Who asks, and whether it may ask now."""

    tenants: Mapping[str, str]
    limit: RateLimit

    def __call__(self, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> str:
        tenant = self._tenant(credentials.credentials if credentials else "")
        if tenant is None:
            raise Refused(ProblemCode.UNAUTHORIZED, "no token, or not one of ours")
        wait = self.limit.wait(tenant)
        if wait:
            raise TooMany(wait)
        return tenant

    def _tenant(self, token: str) -> str | None:
        given = token.encode()
        matching = [name for known, name in self.tenants.items() if hmac.compare_digest(known.encode(), given)]
        return matching[0] if matching else None


def create_app(
    exchange: Exchange, *, tenants: Mapping[str, str], clock: Clock, limit: RateLimit | None = None
) -> FastAPI:
    """``tenants``: bearer token -> tenant."""
    app = FastAPI(
        title="Open Capacity API",
        version=f"{wire.API_VERSION}.0.0",
        description="Find, price, win, hold, start and account for compute capacity.",
        docs_url=None,
        redoc_url=None,
    )
    rate = limit or RateLimit(clock)
    gate = _Gate(tenants, rate)
    for routes in (_market_routes, _talk_routes, _holding_routes, _reservation_routes, _record_routes):
        app.include_router(routes(exchange, gate), prefix=f"/v{wire.API_VERSION}", responses=_PROBLEMS)
    app.include_router(_term_routes(exchange, gate, rate), prefix=f"/v{wire.API_VERSION}")
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(TooMany, _too_many)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(HTTPException, _http_error)
    return app


def _term_routes(exchange: Exchange, gate: Callable[..., str], limit: RateLimit) -> APIRouter:
    routes = APIRouter(tags=["terms"])

    @routes.get("/terms", dependencies=[Depends(gate)], responses=_PROBLEMS)
    def read_terms() -> wire.WireTerms:
        """How this network does business: currency, how long quotes and holds last, rate limit, what it can do."""
        return exchange.terms(limit.policy)

    @routes.get("/keys")
    def list_keys() -> wire.KeyList:
        """The keys that its signatures are checked with. Needs no token."""
        return exchange.keys()

    return routes


def _market_routes(exchange: Exchange, gate: Callable[..., str]) -> APIRouter:
    routes = APIRouter(tags=["market"])
    tenant = Depends(gate)

    @routes.get("/offers", dependencies=[tenant])
    def list_offers(
        region: Annotated[list[str], Query(default_factory=list)],
        option: Annotated[list[PurchaseOption], Query(default_factory=list)],
        min_vcpus: Annotated[float, Query(ge=0)] = 0,
        min_memory_gib: Annotated[float, Query(ge=0)] = 0,
        min_storage_iops: Annotated[float, Query(ge=0)] = 0,
        min_network_mbps: Annotated[float, Query(ge=0)] = 0,
    ) -> wire.OfferList:
        """Posted offers whose one unit carries at least what is asked."""
        at_least = Resources(
            vcpus=min_vcpus, memory_gib=min_memory_gib, storage_iops=min_storage_iops, network_mbps=min_network_mbps
        )
        return wire.OfferList(offers=tuple(exchange.offers(at_least, region, option)))

    @routes.get("/shard-types", dependencies=[tenant])
    def list_shard_types() -> wire.ShardTypeList:
        """What kinds of unit there are, how fast they are (nominal and measured), and where how many are free."""
        return exchange.shard_types()

    @routes.post("/quotes", status_code=201)
    def ask_quote(request: wire.QuoteRequest, who: Annotated[str, tenant]) -> wire.WireQuote:
        """The posted price, firm until the quote expires. To talk about the price, open a negotiation."""
        return exchange.quote(who, request)

    @routes.get("/auctions", dependencies=[tenant])
    def list_auctions() -> wire.AuctionList:
        """Standing auctions with their rule, reserve price and last clearing prices."""
        return wire.AuctionList(auctions=tuple(exchange.bidding.auctions()))

    @routes.post("/auctions/{auction_id}/bids", status_code=201)
    def place_bid(auction_id: str, request: wire.BidRequest, key: Key, who: Annotated[str, tenant]) -> wire.WireBid:
        """Enter the round that is open. Winning commits to nothing: hold the won quote before it expires."""
        return exchange.bidding.bid(who, auction_id, request, key=key)

    @routes.get("/auctions/{auction_id}/bids/{bid_id}")
    def read_bid(auction_id: str, bid_id: str, who: Annotated[str, tenant]) -> wire.WireBid:
        """Pending until ``decides_at``, then won or lost."""
        return exchange.bidding.result(who, auction_id, bid_id)

    return routes


def _talk_routes(exchange: Exchange, gate: Callable[..., str]) -> APIRouter:
    routes = APIRouter(tags=["negotiations and reverse auctions"])
    tenant = Depends(gate)

    @routes.post("/negotiations", status_code=201)
    def open_negotiation(request: NegotiationRequest, key: Key, who: Annotated[str, tenant]) -> WireNegotiation:
        """A request for a quote that can be talked about. Its first quote is the posted price."""
        return exchange.talks.open(who, request, key=key)

    @routes.get("/negotiations/{negotiation_id}")
    def read_negotiation(negotiation_id: str, who: Annotated[str, tenant]) -> WireNegotiation:
        return exchange.talks.read(who, negotiation_id)

    @routes.post("/negotiations/{negotiation_id}/proposals", status_code=201)
    def propose(negotiation_id: str, request: Proposal, key: Key, who: Annotated[str, tenant]) -> WireNegotiation:
        """Accepted, countered or rejected. A rejection is not final: while it is open, propose again."""
        return exchange.talks.propose(who, negotiation_id, request, key=key)

    @routes.delete("/negotiations/{negotiation_id}", status_code=204)
    def end_negotiation(negotiation_id: str, who: Annotated[str, tenant]) -> None:
        """Walk away. Quotes that were given stand until they expire. Idempotent."""
        exchange.talks.end(who, negotiation_id)

    @routes.post("/reverse-auctions", status_code=201)
    def open_reverse_auction(request: ReverseRequest, key: Key, who: Annotated[str, tenant]) -> WireReverseAuction:
        """Post a need; sellers undercut each other until it closes, and the lowest ask becomes a firm quote."""
        return exchange.talks.open_reverse(who, request, key=key)

    @routes.get("/reverse-auctions/{auction_id}")
    def read_reverse_auction(auction_id: str, who: Annotated[str, tenant]) -> WireReverseAuction:
        """Open with the asks as they stand, then awarded or failed."""
        return exchange.talks.reverse(who, auction_id)

    return routes


def _holding_routes(exchange: Exchange, gate: Callable[..., str]) -> APIRouter:
    routes = APIRouter(tags=["holds and reservations"])
    tenant = Depends(gate)

    @routes.post("/holds", status_code=201)
    def make_hold(request: wire.HoldRequest, key: Key, who: Annotated[str, tenant]) -> wire.WireHold:
        """Keep units of a quote, free of charge, until the hold lapses. Same key, same hold, as long as it lives."""
        return exchange.hold(who, request, key=key)

    @routes.get("/holds/{hold_id}")
    def read_hold(hold_id: str, who: Annotated[str, tenant]) -> wire.WireHold:
        return exchange.hold_state(who, hold_id)

    @routes.post("/holds/{hold_id}/confirm", status_code=201)
    def confirm_hold(
        hold_id: str, request: wire.ConfirmRequest, key: Key, who: Annotated[str, tenant]
    ) -> wire.WireReservation:
        """Start one unit of the hold as a node. The same running node and token is the same reservation."""
        return exchange.confirm(who, hold_id, request, key=key)

    @routes.post("/holds/{hold_id}/pay")
    def pay_hold(hold_id: str, key: Key, who: Annotated[str, tenant]) -> wire.WireHold:
        """Pay for the units that have no node yet, so that they no longer lapse."""
        return exchange.pay(who, hold_id)

    @routes.post("/holds/{hold_id}/resize")
    def resize_hold(
        hold_id: str, request: wire.ResizeHoldRequest, key: Key, who: Annotated[str, tenant]
    ) -> wire.WireHold:
        """More units at the same price while the quote lasts, or fewer at any time."""
        return exchange.resize_hold(who, hold_id, request, key=key)

    @routes.delete("/holds/{hold_id}", status_code=204)
    def release_hold(hold_id: str, who: Annotated[str, tenant]) -> None:
        """Give up the units that have no node. Running units are not touched."""
        exchange.release(who, hold_id)

    return routes


def _reservation_routes(exchange: Exchange, gate: Callable[..., str]) -> APIRouter:
    routes = APIRouter(tags=["holds and reservations"])
    tenant = Depends(gate)

    @routes.get("/reservations")
    def list_reservations(who: Annotated[str, tenant]) -> wire.ReservationList:
        """The running ones."""
        return wire.ReservationList(reservations=tuple(exchange.reservations(who)))

    @routes.get("/reservations/{reservation_id}")
    def read_reservation(reservation_id: str, who: Annotated[str, tenant]) -> wire.WireReservation:
        """Running or ended."""
        return exchange.reservation(who, reservation_id)

    @routes.post("/reservations/{reservation_id}/resize")
    def resize_reservation(
        reservation_id: str, request: wire.ResizeRequest, key: Key, who: Annotated[str, tenant]
    ) -> wire.WireReservation:
        """The running unit goes on as one of another offer in its zone, at that offer's price."""
        return exchange.resize(who, reservation_id, request, key=key)

    @routes.delete("/reservations/{reservation_id}", status_code=204)
    def end_reservation(reservation_id: str, who: Annotated[str, tenant]) -> None:
        """End the unit; it is charged up to now. Idempotent."""
        exchange.end(who, reservation_id)

    @routes.get("/instances")
    def list_instances(who: Annotated[str, tenant]) -> wire.InstanceList:
        """The machines that run now."""
        return wire.InstanceList(instances=tuple(exchange.instances(who)))

    return routes


def _record_routes(exchange: Exchange, gate: Callable[..., str]) -> APIRouter:
    routes = APIRouter(tags=["records"])
    tenant = Depends(gate)

    @routes.get("/events")
    def list_events(since: datetime, who: Annotated[str, tenant]) -> EventList:
        """Changes of prices and capacity, and reclaim notices for your units."""
        return EventList(events=tuple(exchange.events(who, _aware(since))))

    @routes.get(
        "/events/stream",
        response_class=StreamingResponse,
        responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
    )
    async def stream_events(
        who: Annotated[str, tenant],
        last_seen: Annotated[
            int, Header(alias="Last-Event-ID", ge=0, le=_LARGEST_ID, description="0: all that are kept")
        ] = 0,
        wait_seconds: Annotated[float, Query(ge=0, le=3600)] = 300,
    ) -> StreamingResponse:
        """The same events as they happen, for ``wait_seconds``; then come back with the last id that you saw."""

        def after(event_id: int) -> Sequence[AnyEvent]:
            return exchange.events_after(who, event_id)

        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        return StreamingResponse(
            event_stream(after, last_seen, wait_seconds), media_type="text/event-stream", headers=headers
        )

    @routes.get("/bills")
    def read_bill(start: datetime, end: datetime, who: Annotated[str, tenant]) -> WireBill:
        """FOCUS 1.2 rows of [start, end) and the invoice they sum to."""
        return exchange.bill(who, Interval(start=_aware(start), end=_aware(end)))

    @routes.get(
        "/bills.csv",
        response_class=Response,
        responses={
            200: {
                "content": {"text/csv": {"schema": {"type": "string"}}},
                "headers": {
                    "Open-Capacity-Invoice": {"schema": {"type": "string"}, "description": "WireInvoice as JSON"}
                },
            }
        },
    )
    def read_bill_csv(start: datetime, end: datetime, who: Annotated[str, tenant]) -> Response:
        """The same rows as CSV; the invoice is in the header Open-Capacity-Invoice, as JSON."""
        bill = exchange.bill(who, Interval(start=_aware(start), end=_aware(end)))
        headers = {"Open-Capacity-Invoice": bill.invoice.model_dump_json()}
        return Response(as_csv(bill), media_type="text/csv", headers=headers)

    return routes


def _aware(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise Refused(ProblemCode.INVALID_REQUEST, "a time needs a zone")
    return moment


def problem(code: ProblemCode, detail: str, *, status: int | None = None, retry_after: int = 1) -> Response:
    """A problem document; ``retry_after``: seconds, told where the status is 429."""
    number = status or _STATUS[code]
    body = wire.Problem(
        type=f"urn:open-capacity:problem:{code.value}",
        title=code.value.replace("_", " "),
        status=number,
        detail=detail,
        code=code,
    )
    headers = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": str(retry_after)}}.get(number, {})
    return Response(body.model_dump_json(), number, headers=headers, media_type="application/problem+json")


async def _refused(_: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, Refused)
    return problem(refusal.code, refusal.detail)


async def _too_many(_: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, TooMany)
    seconds = refusal.wait.total_seconds()
    return problem(ProblemCode.RATE_LIMITED, f"again in {seconds:.3f} s", retry_after=max(1, ceil(seconds)))


async def _malformed(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return problem(ProblemCode.INVALID_REQUEST, f"{where}: {first['msg']}", status=422)


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _BY_STATUS.get(error.status_code, ProblemCode.INVALID_REQUEST)
    return problem(code, str(error.detail), status=error.status_code)
