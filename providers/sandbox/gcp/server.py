"""The sandbox's Google Cloud as one ASGI application: Compute Engine, Cloud Billing, Cloud Storage (bills), Cloud
Monitoring, OAuth.
"""

from datetime import datetime, timedelta

from pydantic import AwareDatetime, TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from engine.clock import Clock
from engine.model.market import PurchaseOption
from engine.model.value import Interval
from providers.sandbox.cloud import (
    FaultGate,
    Faults,
    ServerOptions,
    Tokens,
    sandbox_routes,
    shown_instances,
    shown_notices,
)
from providers.sandbox.contract import (
    Fault,
    MarketOption,
    PriceChange,
    ReclaimOrder,
    SandboxBill,
    SandboxInstance,
    SandboxNotice,
)
from providers.sandbox.gcp.billing import Biller, commitment_document, sku_document
from providers.sandbox.gcp.bucket import BillBucket
from providers.sandbox.gcp.catalog import COMPUTE_ENGINE, MACHINE_TYPES, all_skus, change_price, post_prices, price_now
from providers.sandbox.gcp.compute import Compute
from providers.sandbox.gcp.instances import Instances
from providers.sandbox.gcp.monitoring import Monitoring
from providers.sandbox.gcp.networks import Networks
from providers.sandbox.gcp.oauth import OAuth
from providers.sandbox.gcp.operations import Operations
from providers.sandbox.gcp.wire import GoogleError, error_response, page
from providers.sandbox.machines import Machines
from providers.sandbox.meter import Meter
from providers.sandbox.prices import PriceBoard

_MOMENT: TypeAdapter[datetime] = TypeAdapter(AwareDatetime)
_OPEN_PATHS = ("/_sandbox/", "/token")


class GcpCloud:
    """Everything behind the server; also what its /_sandbox routes ask."""

    def __init__(self, options: ServerOptions, clock: Clock, secret: str) -> None:
        self.faults = Faults(clock)
        self.machines = Machines(clock)
        self.board = PriceBoard(clock)
        post_prices(self.board, options.regions, options.seed)
        meter = Meter(self.board, clock, options.meter_speed)
        self.biller = Biller(options.account, self.machines, meter, clock)
        self.oauth = OAuth(options.account, secret, Tokens(clock))
        self.regions = options.regions
        networks = Networks(options.account, options.regions, clock)
        instances = Instances(options.account, self.machines, networks, self.faults)
        operations = Operations(clock, options.account)
        self.compute = Compute(
            options.account, options.regions, instances, networks, operations, self.machines, self.faults
        )
        self.monitoring = Monitoring(options.account)
        self.bucket = BillBucket(options.account, self.biller, clock)

    def instances(self) -> list[SandboxInstance]:
        return shown_instances(self.machines)

    def notices(self) -> list[SandboxNotice]:
        return shown_notices(self.machines)

    def reclaim(self, order: ReclaimOrder) -> None:
        self.machines.reclaim(order.instance_id, timedelta(seconds=order.notice_seconds), "preempted")

    def change_price(self, change: PriceChange) -> None:
        if change.option is MarketOption.AUCTION or change.region not in self.regions:
            raise KeyError(f"{change.option} in {change.region}")
        spot = change.option.value == PurchaseOption.SPOT.value
        machine_type = MACHINE_TYPES[change.instance_type]
        change_price(self.board, change.region, machine_type, spot=spot, price=change.price)

    def prices(self) -> list[PriceChange]:
        return [
            PriceChange(region=region, instance_type=kind.name, option=option, price=price)
            for region in self.regions
            for kind in MACHINE_TYPES.values()
            for option in (MarketOption.ON_DEMAND, MarketOption.SPOT)
            if (price := price_now(self.board, region, kind, spot=option is MarketOption.SPOT)) is not None
        ]

    def set_fault(self, fault: Fault) -> None:
        self.faults.set(fault)

    def bill(self, period: Interval) -> SandboxBill:
        return self.biller.bill(period)

    async def skus(self, request: Request) -> Response:
        """Cloud Billing's catalogue of one service; startTime and endTime ask for the prices in between."""
        if request.path_params["service"] != COMPUTE_ENGINE:
            raise GoogleError(404, f"Service {request.path_params['service']} does not exist.")
        span = _span(request)
        documents = []
        for sku in all_skus(self.regions):
            documents.append(sku_document(sku, self.board, span))
            if sku.option is PurchaseOption.ON_DEMAND:
                documents.append(commitment_document(sku, self.board))
        items, token = page(request, documents)
        return JSONResponse({"skus": list(items), "nextPageToken": token})


def build_app(options: ServerOptions, *, clock: Clock, secret: str) -> Starlette:
    cloud = GcpCloud(options, clock, secret)

    async def google_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, GoogleError)
        return error_response(error.code, error.message, error.reason)

    async def no_such_path(request: Request, _: Exception) -> Response:
        return error_response(404, f"The requested URL {request.url.path} was not found on this server.")

    return Starlette(
        routes=[
            *sandbox_routes(cloud),
            *cloud.oauth.routes(),
            *cloud.compute.routes(),
            *cloud.bucket.routes(),
            *cloud.monitoring.routes(),
            Route("/v1/services/{service}/skus", cloud.skus),
        ],
        middleware=[
            Middleware(FaultGate, faults=cloud.faults, error=error_response),
            Middleware(_Guard, oauth=cloud.oauth),
        ],
        exception_handlers={GoogleError: google_error, 404: no_such_path},
    )


class _Guard:
    """ASGI middleware: without a token that this server knows there is nothing but 401."""

    def __init__(self, app: ASGIApp, *, oauth: OAuth) -> None:
        self._app, self._oauth = app, oauth

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not scope["path"].startswith(_OPEN_PATHS):
            authorization = Request(scope).headers.get("authorization")
            if not self._oauth.accepts(authorization):
                message = "Request had invalid authentication credentials. Expected OAuth 2 access token."
                await error_response(401, message)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _span(request: Request) -> tuple[datetime, datetime] | None:
    start, end = request.query_params.get("startTime"), request.query_params.get("endTime")
    if not start and not end:
        return None
    try:
        return _MOMENT.validate_python(start or ""), _MOMENT.validate_python(end or "")
    except ValidationError:
        raise GoogleError(400, "Invalid time range: startTime and endTime must be RFC 3339 timestamps.") from None
