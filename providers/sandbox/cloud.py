"""What every sandbox cloud server shares: its command line, faults, tokens, the /_sandbox routes and serving.

A server is its own process; it prints one line, ``ready PORT``, once it serves, and ends within a second of SIGTERM.
It listens on loopback only.
"""

import argparse
import asyncio
import hashlib
import logging
import secrets
import socket
from base64 import b64encode
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Protocol, TypeVar

import uvicorn
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from engine.clock import Clock
from engine.model.value import Interval, Utc
from providers.sandbox.contract import (
    INSTANCES,
    NOTICES,
    PRICES,
    Fault,
    FaultMode,
    PriceChange,
    ReclaimOrder,
    SandboxBill,
    SandboxInstance,
    SandboxNotice,
)
from providers.sandbox.machines import Machines

SLOW_SECONDS = 30.0
_UTC: TypeAdapter[datetime] = TypeAdapter(Utc)
Order = TypeVar("Order", bound=BaseModel)


@dataclass(frozen=True)
class ServerOptions:
    """The command line of every sandbox cloud server."""

    name: str
    port: int
    account: str
    regions: tuple[str, ...]
    seed: int
    meter_speed: Decimal
    tls_cert: str | None = None
    tls_key: str | None = None


def parse_options(program: str, *, account: str, regions: Sequence[str], argv: Sequence[str] | None) -> ServerOptions:
    """``account`` and ``regions`` are the defaults. Ends the process (exit 2) on a wrong command line."""
    parser = argparse.ArgumentParser(prog=f"python -m {program}")
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    parser.add_argument("--account", default=account)
    parser.add_argument("--regions", default=",".join(regions), help="comma-separated")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--meter-speed", type=Decimal, default=Decimal(1), help="metered hours per real hour")
    parser.add_argument("--name", default=program.rpartition(".")[2])
    parser.add_argument("--tls-cert")
    parser.add_argument("--tls-key")
    given = parser.parse_args(argv)
    if bool(given.tls_cert) != bool(given.tls_key):
        parser.error("--tls-cert and --tls-key go together")
    if not given.meter_speed.is_finite() or given.meter_speed <= 0:
        parser.error("--meter-speed must be above 0")
    return ServerOptions(
        name=given.name,
        port=given.port,
        account=given.account,
        regions=tuple(region for region in given.regions.split(",") if region),
        seed=given.seed,
        meter_speed=given.meter_speed,
        tls_cert=given.tls_cert,
        tls_key=given.tls_key,
    )


class Faults:
    """The fault that is on now, if any."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._mode = FaultMode.NONE
        self._until = clock.now()

    def set(self, fault: Fault) -> None:
        self._mode, self._until = fault.mode, self._clock.now() + timedelta(seconds=fault.seconds)

    @property
    def mode(self) -> FaultMode:
        return self._mode if self._clock.now() < self._until else FaultMode.NONE

    @property
    def no_capacity(self) -> bool:
        return self.mode is FaultMode.NO_CAPACITY


class FaultGate:
    """ASGI middleware: the provider's own API misbehaves while a fault is on; ``/_sandbox/`` never does.

    ``error(status, message)`` shapes the provider's error body for 429 and 503. A server's no-capacity error is its
    own business: it asks ``Faults.no_capacity`` where it creates.
    """

    def __init__(self, app: ASGIApp, *, faults: Faults, error: Callable[[int, str], Response]) -> None:
        self._app, self._faults, self._error = app, faults, error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        mode = self._faults.mode
        if scope["type"] != "http" or scope["path"].startswith("/_sandbox/"):
            mode = FaultMode.NONE
        if mode is FaultMode.DOWN:
            await self._error(503, "The service is currently unavailable.")(scope, receive, send)
        elif mode is FaultMode.THROTTLE:
            answer = self._error(429, "Too many requests; try again later.")
            answer.headers["Retry-After"] = "1"
            await answer(scope, receive, send)
        elif mode is FaultMode.RUBBISH:
            await Response("<html><body><h1>It works!</h1></body></html>", media_type="text/html")(scope, receive, send)
        else:
            if mode is FaultMode.SLOW:
                await asyncio.sleep(SLOW_SECONDS)
            await self._app(scope, receive, send)


class Tokens:
    """Bearer tokens that this server handed out, each good for an hour."""

    lifetime = timedelta(hours=1)

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._good_until: dict[str, datetime] = {}

    def issue(self) -> str:
        token = secrets.token_urlsafe(32)
        self._good_until[token] = self._clock.now() + self.lifetime
        return token

    def accepts(self, authorization: str | None) -> bool:
        """Whether an ``Authorization`` header carries one of them."""
        scheme, _, token = (authorization or "").partition(" ")
        good_until = self._good_until.get(token)
        return scheme.lower() == "bearer" and good_until is not None and self._clock.now() < good_until


class SandboxControl(Protocol):
    """What stands behind the /_sandbox routes of one server. Unknown ids and types raise KeyError (404)."""

    def instances(self) -> Sequence[SandboxInstance]: ...
    def notices(self) -> Sequence[SandboxNotice]: ...
    def reclaim(self, order: ReclaimOrder) -> None: ...
    def change_price(self, change: PriceChange) -> None: ...
    def set_fault(self, fault: Fault) -> None: ...
    def bill(self, period: Interval) -> SandboxBill: ...
    def prices(self) -> Sequence[PriceChange]:
        """What is asked now, by region, type and option; of several zones' prices the lowest."""
        ...


def sandbox_routes(control: SandboxControl) -> list[Route]:
    """The contract of ``providers.sandbox.contract``, as Starlette routes."""

    async def instances(_: Request) -> Response:
        return Response(INSTANCES.dump_json(list(control.instances())), media_type="application/json")

    async def notices(_: Request) -> Response:
        return Response(NOTICES.dump_json(list(control.notices())), media_type="application/json")

    async def prices(_: Request) -> Response:
        return Response(PRICES.dump_json(list(control.prices())), media_type="application/json")

    async def bill(request: Request) -> Response:
        try:
            start, end = (_UTC.validate_python(request.query_params.get(key, "")) for key in ("start", "end"))
        except ValidationError as problem:
            return _refused(400, str(problem))
        answer = control.bill(Interval(start=start, end=end))
        return Response(answer.model_dump_json(), media_type="application/json")

    return [
        Route("/_sandbox/instances", instances),
        Route("/_sandbox/notices", notices),
        Route("/_sandbox/prices", prices),
        Route("/_sandbox/bill", bill),
        Route("/_sandbox/reclaim", _order(ReclaimOrder, control.reclaim), methods=["POST"]),
        Route("/_sandbox/price", _order(PriceChange, control.change_price), methods=["POST"]),
        Route("/_sandbox/fault", _order(Fault, control.set_fault), methods=["POST"]),
    ]


def _order(kind: type[Order], act: Callable[[Order], None]) -> Callable[[Request], Awaitable[Response]]:
    async def handle(request: Request) -> Response:
        try:
            act(kind.model_validate_json(await request.body()))
        except ValidationError as problem:
            return _refused(422, str(problem))
        except KeyError as unknown:
            return _refused(404, f"unknown: {unknown}")
        return Response(status_code=204)

    return handle


def _refused(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": message}, status_code=status)


def shown_instances(machines: Machines) -> list[SandboxInstance]:
    return [
        SandboxInstance(
            instance_id=machine.instance_id,
            node=machine.node,
            region=machine.region,
            zone=machine.zone,
            instance_type=machine.instance_type,
            spot=machine.spot,
            state=machines.state(machine),
            user_data=machine.user_data,
            private_ip=machine.private_ip,
            launched_at=machine.launched_at,
        )
        for machine in machines.shown()
    ]


def shown_notices(machines: Machines) -> list[SandboxNotice]:
    return [
        SandboxNotice(
            instance_id=machine.instance_id,
            node=machine.node,
            seen_at=reclaim.seen_at,
            at=reclaim.at,
            reason=reclaim.reason,
        )
        for machine, reclaim in machines.noticed()
    ]


def sandbox_bill(
    content: bytes, *, format: str, content_type: str, invoice_id: str, issuer: str, total: Decimal, period: Interval
) -> SandboxBill:
    """A bill in US dollars as /_sandbox/bill hands it over."""
    return SandboxBill(
        format=format,
        content_type=content_type,
        content_base64=b64encode(content).decode(),
        sha256=hashlib.sha256(content).hexdigest(),
        invoice_id=invoice_id,
        issuer=issuer,
        total=total,
        currency="USD",
        period_start=period.start,
        period_end=period.end,
    )


class _AnnouncingServer(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        for listener in sockets or []:
            print(f"ready {listener.getsockname()[1]}", flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # cutting open connections is no error here
        await super().shutdown(sockets=sockets)


def serve(app: ASGIApp, options: ServerOptions) -> None:
    """Serve on 127.0.0.1 until SIGTERM or SIGINT; raises OSError when the port is taken."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # named, so asyncio sets NODELAY
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", options.port))
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        lifespan="off",
        ssl_certfile=options.tls_cert,
        ssl_keyfile=options.tls_key,
        timeout_graceful_shutdown=0,
    )
    with listener:
        try:
            _AnnouncingServer(config).run(sockets=[listener])
        except KeyboardInterrupt:
            return
