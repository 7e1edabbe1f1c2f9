import asyncio
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from engine.clock import ManualClock
from engine.model.value import Interval
from providers.sandbox.cloud import FaultGate, Faults, Tokens, parse_options, sandbox_bill, sandbox_routes
from providers.sandbox.contract import (
    Fault,
    FaultMode,
    PriceChange,
    ReclaimOrder,
    SandboxBill,
    SandboxInstance,
    SandboxNotice,
)

START = datetime(2026, 11, 23, 1, 30, tzinfo=UTC)


class Control:
    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self.orders: list[object] = []

    def instances(self) -> Sequence[SandboxInstance]:
        return []

    def notices(self) -> Sequence[SandboxNotice]:
        return []

    def reclaim(self, order: ReclaimOrder) -> None:
        raise KeyError(order.instance_id)

    def change_price(self, change: PriceChange) -> None:
        self.orders.append(change)

    def set_fault(self, fault: Fault) -> None:
        self._faults.set(fault)

    def bill(self, period: Interval) -> SandboxBill:
        content = b"rows"
        return sandbox_bill(
            content,
            format="focus",
            content_type="text/csv",
            invoice_id="1",
            issuer="I",
            total=Decimal("1.50"),
            period=period,
        )


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def control(clock: ManualClock) -> Control:
    return Control(Faults(clock))


@pytest.fixture
def call(control: Control, clock: ManualClock) -> Callable[..., httpx.Response]:
    async def api(_: Request) -> Response:
        return JSONResponse({"fine": True})

    def error(status: int, message: str) -> Response:
        return JSONResponse({"message": message}, status_code=status)

    app = Starlette(
        routes=[*sandbox_routes(control), Route("/api", api)],
        middleware=[Middleware(FaultGate, faults=control._faults, error=error)],
    )

    def run(method: str, path: str, **arguments: Any) -> httpx.Response:
        async def once() -> httpx.Response:
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
                return await http.request(method, path, **arguments)

        coroutine: Coroutine[Any, Any, httpx.Response] = once()
        return asyncio.run(coroutine)

    return run


@pytest.mark.parametrize(("mode", "status"), [("down", 503), ("throttle", 429), ("rubbish", 200)])
def test_a_fault_spoils_the_api_until_its_time_is_up(
    call: Callable[..., httpx.Response], clock: ManualClock, mode: str, status: int
) -> None:
    assert call("POST", "/_sandbox/fault", json={"mode": mode, "seconds": 5}).status_code == 204
    spoilt = call("GET", "/api")
    assert spoilt.status_code == status
    assert "fine" not in spoilt.text
    assert call("GET", "/_sandbox/instances").json() == []
    clock.advance(timedelta(seconds=5))
    assert call("GET", "/api").json() == {"fine": True}


def test_orders_are_checked(call: Callable[..., httpx.Response], control: Control) -> None:
    price = {"region": "r", "instance_type": "t", "option": "spot", "price": "0.0123"}
    assert call("POST", "/_sandbox/price", json=price).status_code == 204
    assert control.orders == [PriceChange.model_validate_json(b"%s" % httpx.Request("POST", "/", json=price).content)]
    assert call("POST", "/_sandbox/price", json={**price, "price": 0.1}).status_code == 422
    assert call("POST", "/_sandbox/price", content=b"{").status_code == 422
    assert call("POST", "/_sandbox/reclaim", json={"instance_id": "i", "notice_seconds": 1}).status_code == 404


def test_a_bill_is_asked_for_by_period(call: Callable[..., httpx.Response]) -> None:
    span = {"start": "2026-11-01T00:00:00Z", "end": "2026-12-01T00:00:00Z"}
    bill = SandboxBill.model_validate_json(call("GET", "/_sandbox/bill", params=span).content)
    assert (bill.total, bill.content_base64) == (Decimal("1.50"), "cm93cw==")
    assert call("GET", "/_sandbox/bill", params={"start": "yesterday"}).status_code == 400


def test_tokens_run_out(clock: ManualClock) -> None:
    tokens = Tokens(clock)
    header = f"Bearer {tokens.issue()}"
    assert tokens.accepts(header)
    assert not tokens.accepts("Bearer guessed")
    assert not tokens.accepts(None)
    clock.advance(Tokens.lifetime)
    assert not tokens.accepts(header)


def test_the_command_line_has_defaults() -> None:
    options = parse_options("providers.sandbox.gcp", account="a", regions=("r1", "r2"), argv=["--seed", "3"])
    assert (options.name, options.account, options.regions, options.seed) == ("gcp", "a", ("r1", "r2"), 3)
    assert options.meter_speed == 1


@pytest.mark.parametrize("wrong", [["--meter-speed", "0"], ["--tls-cert", "x"], ["--port", "http"]])
def test_a_wrong_command_line_ends_the_process(wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_options("providers.sandbox.gcp", account="a", regions=("r",), argv=wrong)
    assert ended.value.code == 2


def test_fault_modes_end_by_being_set_to_none(clock: ManualClock) -> None:
    faults = Faults(clock)
    faults.set(Fault(mode=FaultMode.NO_CAPACITY, seconds=60))
    assert faults.no_capacity
    faults.set(Fault(mode=FaultMode.NONE, seconds=0))
    assert not faults.no_capacity
