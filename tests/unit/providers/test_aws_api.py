from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from engine.clock import ManualClock
from engine.errors import (
    AuthenticationFailed,
    InsufficientCapacity,
    NotFound,
    ProviderAnswerInvalid,
    ProviderError,
    ProviderUnavailable,
)
from providers.aws_api import AwsApi
from providers.aws_wire import PriceList, Zones
from providers.base import ProviderSettings
from tests.unit.providers.aws_script import SETTINGS, ScriptedApi

START = datetime(2026, 3, 1, tzinfo=UTC)
Script = list[tuple[int, bytes]]


@contextmanager
def answering(script: Script) -> Iterator[tuple[ProviderSettings, list[str]]]:
    """A real HTTP server that gives these answers in order, the last one for ever."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            seen.append(self.headers.get("Authorization", ""))
            status, body = script.pop(0) if len(script) > 1 else script[0]
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Silence."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield SETTINGS.model_copy(update={"endpoint": f"http://127.0.0.1:{server.server_port}"}), seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def refusal(code: str) -> bytes:
    return f"<Response><Errors><Error><Code>{code}</Code><Message>said</Message></Error></Errors></Response>".encode()


ZONES = (
    b"<DescribeAvailabilityZonesResponse><availabilityZoneInfo><item><zoneName>us-east-1a</zoneName>"
    b"<zoneId>use1-az6</zoneId></item></availabilityZoneInfo></DescribeAvailabilityZonesResponse>"
)


@pytest.fixture
def ask() -> Callable[[ProviderSettings], Zones]:
    def asked(settings: ProviderSettings) -> Zones:
        api = AwsApi(settings, ManualClock(START))
        return api.ask(Zones, "ec2", "us-east-1", "describe_availability_zones")

    return asked


@pytest.mark.parametrize(
    ("status", "code", "error", "calls"),
    [
        (401, "AuthFailure", AuthenticationFailed, 1),
        (403, "UnauthorizedOperation", AuthenticationFailed, 1),
        (500, "InsufficientInstanceCapacity", InsufficientCapacity, 1),
        (400, "InvalidInstanceID.NotFound", NotFound, 1),
        (400, "InvalidParameterValue", ProviderError, 1),
        (503, "RequestLimitExceeded", ProviderUnavailable, 4),
        (500, "InternalError", ProviderUnavailable, 4),
    ],
)
def test_refusals_become_the_words_of_the_project(
    ask: Callable[[ProviderSettings], Zones], status: int, code: str, error: type[Exception], calls: int
) -> None:
    with answering([(status, refusal(code))]) as (settings, seen):
        with pytest.raises(error) as caught:
            ask(settings)
        assert type(caught.value) is error
        assert len(seen) == calls
        assert "very-secret" not in str(caught.value)


def test_a_failure_that_passes_is_not_noticed(ask: Callable[[ProviderSettings], Zones]) -> None:
    with answering([(503, refusal("RequestLimitExceeded")), (200, ZONES)]) as (settings, seen):
        assert ask(settings).availability_zones[0].zone_id == "use1-az6"
        assert len(seen) == 2
        assert all("Credential=AKIAEXAMPLE/" in header for header in seen)


@pytest.mark.parametrize("body", [b"<html>", b"", b"<html><body/></html>", b"not xml at all"])
def test_rubbish_is_an_invalid_answer(ask: Callable[[ProviderSettings], Zones], body: bytes) -> None:
    with answering([(200, body)]) as (settings, _), pytest.raises(ProviderAnswerInvalid):
        ask(settings)


def test_missing_credentials_name_the_key() -> None:
    api = AwsApi(SETTINGS.model_copy(update={"credentials": {}}), ManualClock(START))
    with pytest.raises(AuthenticationFailed, match=r"credentials\.access_key_id"):
        api.ask(Zones, "ec2", "us-east-1", "describe_availability_zones")


def test_pages_end() -> None:
    endless = ScriptedApi({"get_products": {"PriceList": [], "NextToken": "again"}}, ManualClock(START))
    with pytest.raises(ProviderAnswerInvalid, match="paging"):
        list(endless.pages(PriceList, "pricing", "us-east-1", "get_products"))


def test_pages_hand_the_token_on() -> None:
    def page(NextToken: str = "") -> dict[str, object]:
        return {"PriceList": [NextToken or "first"], "NextToken": {"": "two", "two": ""}[NextToken]}

    api = ScriptedApi({"get_products": page}, ManualClock(START))
    assert [p.price_list for p in api.pages(PriceList, "pricing", "us-east-1", "get_products")] == [
        ("first",),
        ("two",),
    ]
