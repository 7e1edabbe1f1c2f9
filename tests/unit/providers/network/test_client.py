import gzip
from collections.abc import Callable
from datetime import timedelta

import httpx
import pytest

from engine.clock import ManualClock
from engine.errors import (
    AuthenticationFailed,
    ConfigurationError,
    InsufficientCapacity,
    NotFound,
    ProviderAnswerInvalid,
    ProviderError,
    ProviderUnavailable,
    QuoteExpired,
)
from providers.network.client import NetworkClient
from providers.network.wire import ProblemCode
from tests.unit.providers.network.networks import START, TERM, a_client, a_network, node, served

Handler = Callable[[httpx.Request], httpx.Response]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


def _client(handler: Handler, clock: ManualClock) -> NetworkClient:
    return a_client(httpx.MockTransport(handler), clock)


def _answering(status: int, body: bytes | str, **headers: str) -> Handler:
    return lambda _: httpx.Response(status, content=body, headers=headers)


def _problem(status: int, code: ProblemCode) -> Handler:
    body = f'{{"type": "x", "title": "told", "status": {status}, "detail": "why", "code": "{code.value}"}}'
    return _answering(status, body)


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (401, ProblemCode.UNAUTHORIZED, AuthenticationFailed),
        (403, ProblemCode.UNAUTHORIZED, AuthenticationFailed),
        (404, ProblemCode.NOT_FOUND, NotFound),
        (409, ProblemCode.INSUFFICIENT_CAPACITY, InsufficientCapacity),
        (409, ProblemCode.NODE_TAKEN, ProviderError),
        (410, ProblemCode.QUOTE_EXPIRED, QuoteExpired),
        (410, ProblemCode.HOLD_LAPSED, NotFound),
        (422, ProblemCode.KEY_REUSED, ProviderError),
        (429, ProblemCode.RATE_LIMITED, ProviderUnavailable),
        (503, ProblemCode.UNAVAILABLE, ProviderUnavailable),
    ],
)
def test_problems_are_our_errors(status: int, code: ProblemCode, error: type[Exception], clock: ManualClock) -> None:
    with pytest.raises(error, match="why") as caught:
        _client(_problem(status, code), clock).auctions()
    assert type(caught.value) is error
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "handler",
    [
        _answering(200, "<html>It works!</html>", **{"Content-Type": "text/html"}),
        _answering(200, b""),
        _answering(200, '{"auctions": [{"auction_id": 7}]}'),
        _answering(200, '{"auctions": {}}'),
        _answering(404, "<html>no such page</html>"),
        _answering(302, "", Location="http://elsewhere.test/"),
        _answering(200, b"\x1f\x8b not gzip", **{"Content-Encoding": "gzip"}),
    ],
)
def test_rubbish_is_an_invalid_answer(handler: Handler, clock: ManualClock) -> None:
    with pytest.raises(ProviderAnswerInvalid):
        _client(handler, clock).auctions()


def test_a_wrong_address_is_not_taken_for_gone(clock: ManualClock) -> None:
    with pytest.raises(ProviderAnswerInvalid):
        _client(_answering(404, "nginx"), clock).release("hold-1")


def test_a_compressed_answer(clock: ManualClock) -> None:
    body = gzip.compress(b'{"auctions": []}')
    assert _client(_answering(200, body, **{"Content-Encoding": "gzip"}), clock).auctions() == ()


def test_a_bad_offer_does_not_spoil_the_list(clock: ManualClock) -> None:
    transport = served(a_network(clock), clock)
    good = httpx.Client(transport=transport, headers={"Authorization": "Bearer secret"}).get("http://t/v1/offers")
    offer = good.text.removeprefix('{"offers":[').removesuffix("]}")
    bad = offer.replace('"lot"', '"bad"').replace('"price":{"amount":"0.05"', '"price":{"amount":0.05', 1)
    page = _client(_answering(200, f'{{"offers": [{bad}, {offer}, 7, {{"offer_id": "empty"}}]}}'), clock).offers()
    assert [found.offer_id for found in page.offers] == ["lot"]
    assert [fault.offer_id for fault in page.faults] == ["bad", "#2", "empty"]
    assert "price.amount: an amount travels as text" in page.faults[0].reason
    with pytest.raises(ProviderAnswerInvalid, match="not a list of offers"):
        _client(_answering(200, '{"offers": {"a": 1}}'), clock).offers()


def test_passing_failures_are_tried_again(clock: ManualClock) -> None:
    answers = iter([httpx.Response(503), httpx.Response(429, headers={"Retry-After": "2"}), None])

    def flaky(_: httpx.Request) -> httpx.Response:
        return next(answers) or httpx.Response(200, content='{"auctions": []}')

    assert _client(flaky, clock).auctions() == ()
    assert clock.now() - START >= timedelta(seconds=2), "Retry-After is honoured"


@pytest.mark.parametrize("error", [httpx.ConnectError("refused"), httpx.ReadTimeout("slow"), httpx.ReadError("reset")])
def test_the_unreachable_is_unavailable_after_bounded_tries(error: httpx.TransportError, clock: ManualClock) -> None:
    tries = []

    def fail(request: httpx.Request) -> httpx.Response:
        tries.append(request)
        raise error

    with pytest.raises(ProviderUnavailable, match=r"tiny\.test|no answer in 10 s"):
        _client(fail, clock).auctions()
    assert len(tries) == 4


def test_an_answer_without_end_is_given_up(clock: ManualClock) -> None:
    class Drip(httpx.SyncByteStream):
        def __iter__(self):  # type: ignore[no-untyped-def]
            while True:
                clock.advance(timedelta(seconds=1))
                yield b" "

    with pytest.raises(ProviderUnavailable):
        _client(lambda _: httpx.Response(200, stream=Drip()), clock).auctions()


def test_a_retried_purchase_carries_the_same_key(clock: ManualClock) -> None:
    transport = served(a_network(clock), clock)
    lost: list[httpx.Request] = []

    def lossy(request: httpx.Request) -> httpx.Response:
        answer = transport.handle_request(request)
        if request.method == "POST" and len(lost) < 1 and request.url.path == "/v1/holds":
            lost.append(request)
            raise httpx.ReadTimeout("the answer was lost")
        return answer

    client = _client(lossy, clock)
    quote = client.quote("lot", quantity=1, term=TERM)
    hold = client.hold(quote.quote_id, quantity=1, key="k")
    assert client.offers().offers[0].available == 2, "one unit is held, though it was asked for twice"
    keys = [r.headers["Idempotency-Key"] for r in transport.requests if r.url.path == "/v1/holds"]
    assert keys == ["k", "k"]
    request = node()
    reservation = client.confirm(hold.hold_id, key="c", node=request.node, token=request.token, user_data="x")
    client.delete_reservation(reservation.reservation_id)
    client.delete_reservation("never-was")
    client.release("never-was")


def test_ids_cannot_leave_their_place_in_the_path(clock: ManualClock) -> None:
    paths = []

    def note(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.raw_path.decode())
        return httpx.Response(204)

    _client(note, clock).release("../reservations/res-1?x=1")
    assert paths == ["/v1/holds/..%2Freservations%2Fres-1%3Fx%3D1"]


@pytest.mark.parametrize("url", ["ftp://tiny.test", "tiny.test", "http://tiny.test", "http://10.0.0.1:8080", ""])
def test_an_address_to_which_a_token_would_travel_in_the_clear(url: str) -> None:
    with pytest.raises(ConfigurationError, match="in the clear"):
        NetworkClient(url, "secret", clock=ManualClock(START))


@pytest.mark.parametrize("url", ["https://tiny.test/", "http://127.0.0.1:8080", "http://localhost:8080"])
def test_an_address_to_which_it_does_not(url: str) -> None:
    NetworkClient(url, "secret", clock=ManualClock(START)).close()


def test_a_bill_without_an_invoice(clock: ManualClock) -> None:
    with pytest.raises(ProviderAnswerInvalid):
        _client(_answering(200, "BilledCost\n"), clock).bill(START, START + timedelta(days=1))
