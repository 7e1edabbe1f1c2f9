"""The Open Capacity API over HTTP: ``create_app(exchange, …)`` is the reference server.

Its OpenAPI 3.1 description is generated, and served without a token at /openapi.json. Everything else wants
``Authorization: Bearer TOKEN``; the token says which tenant asks. Every purchase wants an ``Idempotency-Key``.
Errors are application/problem+json and never repeat what was sent.
"""

import hmac
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
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
from providers.network.wire import ProblemCode

_STATUS = {
    ProblemCode.INVALID_REQUEST: 400,
    ProblemCode.UNAUTHORIZED: 401,
    ProblemCode.NOT_FOUND: 404,
    ProblemCode.INSUFFICIENT_CAPACITY: 409,
    ProblemCode.NODE_TAKEN: 409,
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
        409: "Not enough capacity, or the node's name is taken.",
        410: "The quote expired or the hold lapsed.",
        422: "The request is not well-formed, or its idempotency key was used for another one.",
        429: "Too many requests.",
    }.items()
}

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


class RateLimit:
    """A token bucket per tenant: ``per_second`` requests on average, ``burst`` at once."""

    def __init__(self, clock: Clock, *, per_second: float = 200.0, burst: float = 400.0) -> None:
        self._clock, self._per_second, self._burst = clock, per_second, burst
        self._lock = threading.Lock()
        self._buckets: dict[str, tuple[float, datetime]] = {}

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
            raise Refused(ProblemCode.RATE_LIMITED, f"again in {wait.total_seconds():.3f} s")
        return tenant

    def _tenant(self, token: str) -> str | None:
        given = token.encode()
        matching = [name for known, name in self.tenants.items() if hmac.compare_digest(known.encode(), given)]
        return matching[0] if matching else None


def create_app(
    exchange: Exchange, *, title: str, tenants: Mapping[str, str], clock: Clock, limit: RateLimit | None = None
) -> FastAPI:
    """``tenants``: bearer token -> tenant."""
    app = FastAPI(
        title=f"Open Capacity API: {title}",
        version=f"{wire.API_VERSION}.0.0",
        description="Find, price, win, hold, start and account for compute capacity.",
        docs_url=None,
        redoc_url=None,
    )
    gate = _Gate(tenants, limit or RateLimit(clock))
    for routes in (_market_routes, _holding_routes, _record_routes):
        app.include_router(routes(exchange, gate), prefix=f"/v{wire.API_VERSION}", responses=_PROBLEMS)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(HTTPException, _http_error)
    return app


def _market_routes(exchange: Exchange, gate: Callable[..., str]) -> APIRouter:
    routes = APIRouter(tags=["market"])
    tenant = Depends(gate)

    @routes.get("/offers", dependencies=[tenant])
    def list_offers(
        min_vcpus: Annotated[float, Query(ge=0)] = 0,
        min_memory_gib: Annotated[float, Query(ge=0)] = 0,
        min_storage_iops: Annotated[float, Query(ge=0)] = 0,
        min_network_mbps: Annotated[float, Query(ge=0)] = 0,
        region: Annotated[list[str] | None, Query()] = None,
        option: Annotated[list[PurchaseOption] | None, Query()] = None,
    ) -> wire.OfferList:
        """Posted offers whose one unit carries at least what is asked."""
        at_least = Resources(
            vcpus=min_vcpus, memory_gib=min_memory_gib, storage_iops=min_storage_iops, network_mbps=min_network_mbps
        )
        return wire.OfferList(offers=tuple(exchange.offers(at_least, region or (), option or ())))

    @routes.post("/quotes", status_code=201)
    def ask_quote(request: wire.QuoteRequest, who: Annotated[str, tenant]) -> wire.WireQuote:
        """A firm price; a limit price below the ask may be answered with a counter-offer, which is as firm."""
        return exchange.quote(who, request)

    @routes.get("/auctions", dependencies=[tenant])
    def list_auctions() -> wire.AuctionList:
        """Standing auctions with their rule, reserve price and last clearing prices."""
        return wire.AuctionList(auctions=tuple(exchange.auctions()))

    @routes.post("/auctions/{auction_id}/bids", status_code=201)
    def place_bid(auction_id: str, request: wire.BidRequest, key: Key, who: Annotated[str, tenant]) -> wire.WireBid:
        """Enter the round that is open. Winning commits to nothing: hold the won quote before it expires."""
        return exchange.bid(who, auction_id, request, key=key)

    @routes.get("/auctions/{auction_id}/bids/{bid_id}")
    def read_bid(auction_id: str, bid_id: str, who: Annotated[str, tenant]) -> wire.WireBid:
        """Pending until ``decides_at``, then won or lost."""
        return exchange.bid_result(who, auction_id, bid_id)

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

    @routes.delete("/holds/{hold_id}", status_code=204)
    def release_hold(hold_id: str, who: Annotated[str, tenant]) -> None:
        """Give up the units that have no node. Running units are not touched."""
        exchange.release(who, hold_id)

    @routes.get("/reservations")
    def list_reservations(who: Annotated[str, tenant]) -> wire.ReservationList:
        """The running ones."""
        return wire.ReservationList(reservations=tuple(exchange.reservations(who)))

    @routes.get("/reservations/{reservation_id}")
    def read_reservation(reservation_id: str, who: Annotated[str, tenant]) -> wire.WireReservation:
        """Running or ended."""
        return exchange.reservation(who, reservation_id)

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
    def list_events(since: datetime, who: Annotated[str, tenant]) -> wire.EventList:
        """Price changes, and reclaim notices for your units."""
        return wire.EventList(events=tuple(exchange.events(who, _aware(since))))

    @routes.get("/bills")
    def read_bill(start: datetime, end: datetime, who: Annotated[str, tenant]) -> wire.WireBill:
        """FOCUS 1.2 rows of [start, end) and the invoice they sum to."""
        return exchange.bill(who, Interval(start=_aware(start), end=_aware(end)))

    @routes.get(
        "/bills.csv",
        response_class=Response,
        responses={
            200: {
                "content": {"text/csv": {"schema": {"type": "string"}}},
                "headers": {"Open-Capacity-Invoice": {"schema": {"type": "string"}, "description": "WireInvoice"}},
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


def problem(code: ProblemCode, detail: str, *, status: int | None = None) -> Response:
    """A problem document."""
    number = status or _STATUS[code]
    body = wire.Problem(
        type=f"urn:open-capacity:problem:{code.value}",
        title=code.value.replace("_", " "),
        status=number,
        detail=detail,
        code=code,
    )
    headers = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "1"}}.get(number, {})
    return Response(body.model_dump_json(), number, headers=headers, media_type="application/problem+json")


async def _refused(_: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, Refused)
    return problem(refusal.code, refusal.detail)


async def _malformed(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return problem(ProblemCode.INVALID_REQUEST, f"{where}: {first['msg']}", status=422)


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _BY_STATUS.get(error.status_code, ProblemCode.INVALID_REQUEST)
    return problem(code, str(error.detail), status=error.status_code)
