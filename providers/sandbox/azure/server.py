"""The sandbox's Azure as one ASGI application: Entra's token endpoint, ARM, prices, cost details, Azure Monitor."""

import hmac
from datetime import timedelta
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from engine.clock import Clock
from engine.model.market import PurchaseOption
from engine.model.value import Interval
from providers.sandbox.azure.arm import Arm
from providers.sandbox.azure.billing import Biller, Invoices
from providers.sandbox.azure.catalog import SIZES, post_prices
from providers.sandbox.azure.monitoring import Monitoring
from providers.sandbox.azure.network import Network
from providers.sandbox.azure.retail import RetailPrices
from providers.sandbox.azure.vms import VirtualMachines
from providers.sandbox.azure.wire import ArmError, error_response
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
from providers.sandbox.machines import Machines
from providers.sandbox.meter import Meter
from providers.sandbox.prices import PriceBoard


class AzureCloud:
    """Everything behind the server; also what its /_sandbox routes ask."""

    def __init__(self, options: ServerOptions, clock: Clock) -> None:
        self.faults = Faults(clock)
        self.tokens = Tokens(clock)
        self.machines = Machines(clock)
        self.board = PriceBoard(clock)
        self.regions = options.regions
        post_prices(self.board, options.regions, options.seed)
        resource_ids: dict[str, str] = {}
        meter = Meter(self.board, clock, options.meter_speed)
        self.biller = Biller(options.account, self.machines, meter, clock, resource_ids)
        self.invoices = Invoices(self.biller, clock, clock.now())
        self.retail = RetailPrices(self.board, options.regions)
        self.monitoring = Monitoring()
        network = Network()
        self.vms = VirtualMachines(self.machines, network, self.board, self.faults)
        self.arm = Arm(
            options.account,
            options.regions,
            network,
            self.vms,
            self.machines,
            self.board,
            self.faults,
            self.invoices,
            resource_ids,
            clock,
        )

    def instances(self) -> list[SandboxInstance]:
        self.vms.evict_overpriced()
        return shown_instances(self.machines)

    def notices(self) -> list[SandboxNotice]:
        self.vms.evict_overpriced()
        return shown_notices(self.machines)

    def reclaim(self, order: ReclaimOrder) -> None:
        self.machines.reclaim(order.instance_id, timedelta(seconds=order.notice_seconds), "Preempt")

    def change_price(self, change: PriceChange) -> None:
        option = PurchaseOption(change.option.value)
        self.board.change(SIZES[change.instance_type].key(change.region, option), change.price)

    def prices(self) -> list[PriceChange]:
        return [
            PriceChange(region=region, instance_type=size.name, option=option, price=self.board.now(key))
            for region in self.regions
            for size in SIZES.values()
            for option in (MarketOption.ON_DEMAND, MarketOption.SPOT)
            if self.board.knows(key := size.key(region, PurchaseOption(option.value)))
        ]

    def set_fault(self, fault: Fault) -> None:
        self.faults.set(fault)

    def bill(self, period: Interval) -> SandboxBill:
        return self.biller.bill(period)


class Entra:
    """Client credentials at ``/{tenant}/oauth2/v2.0/token``, and what clients ask first about the tenant."""

    def __init__(self, tokens: Tokens, secret: str) -> None:
        self._tokens, self._secret = tokens, secret

    def routes(self) -> list[Route]:
        return [
            Route("/{tenant}/oauth2/v2.0/token", self._token, methods=["POST"]),
            Route("/{tenant}/v2.0/.well-known/openid-configuration", self._configuration),
        ]

    async def _token(self, request: Request) -> Response:
        form = {name: values[0] for name, values in parse_qs((await request.body()).decode(errors="replace")).items()}
        if form.get("grant_type") != "client_credentials":
            return _denied(400, "unsupported_grant_type", "AADSTS70003: The app requested an unsupported grant type.")
        if not form.get("client_id") or not form.get("scope"):
            return _denied(400, "invalid_request", "AADSTS900144: The request body must contain client_id and scope.")
        if not hmac.compare_digest(form.get("client_secret", "").encode(), self._secret.encode()):
            return _denied(401, "invalid_client", "AADSTS7000215: Invalid client secret provided.")
        lifetime = int(Tokens.lifetime.total_seconds())
        answer = {"token_type": "Bearer", "expires_in": lifetime, "ext_expires_in": lifetime}
        return JSONResponse({**answer, "access_token": self._tokens.issue()})

    async def _configuration(self, request: Request) -> Response:
        root = str(request.base_url) + request.path_params["tenant"]
        return JSONResponse(
            {
                "token_endpoint": f"{root}/oauth2/v2.0/token",
                "authorization_endpoint": f"{root}/oauth2/v2.0/authorize",
                "issuer": f"{root}/v2.0",
            }
        )


def build_app(options: ServerOptions, *, clock: Clock, secret: str) -> Starlette:
    cloud = AzureCloud(options, clock)

    async def arm_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, ArmError)
        return error_response(error.status, error.message, error.code)

    async def prices(request: Request) -> Response:
        skip = request.query_params.get("$skip", "0")
        if not skip.isdigit():
            raise ArmError(400, "BadRequest", "Invalid OData parameters supplied: $skip")
        url = str(request.base_url.replace(path="/api/retail/prices"))
        return JSONResponse(cloud.retail.page(request.query_params.get("$filter", ""), int(skip), url))

    async def cost_csv(request: Request) -> Response:
        return Response(cloud.invoices.content(request.path_params["report"]), media_type="text/csv")

    return Starlette(
        routes=[
            *sandbox_routes(cloud),
            *Entra(cloud.tokens, secret).routes(),
            Route("/api/retail/prices", prices),
            Route("/costdetails/{report}.csv", cost_csv),
            *cloud.monitoring.routes(),
            Route("/{path:path}", cloud.arm.answer, methods=["GET", "HEAD", "PUT", "PATCH", "POST", "DELETE"]),
        ],
        middleware=[
            Middleware(FaultGate, faults=cloud.faults, error=error_response),
            Middleware(_Guard, tokens=cloud.tokens),
        ],
        exception_handlers={ArmError: arm_error},
    )


class _Guard:
    """ASGI middleware: ARM (``/subscriptions``, ``/providers``) answers nobody without a token."""

    def __init__(self, app: ASGIApp, *, tokens: Tokens) -> None:
        self._app, self._tokens = app, tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        guarded = scope["type"] == "http" and scope["path"].lower().startswith(("/subscriptions", "/providers"))
        if guarded and not self._tokens.accepts(Request(scope).headers.get("authorization")):
            message = "The access token is missing, invalid or expired."
            await error_response(401, message)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _denied(status: int, error: str, description: str) -> JSONResponse:
    return JSONResponse({"error": error, "error_description": description}, status_code=status)
