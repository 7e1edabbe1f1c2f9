from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from random import Random

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
)
from providers.base import ProviderSettings
from providers.rest import KeptToken, RestApi, Wire, same_origin

URL = "https://cloud.example.com/v1/things"
START = datetime(2026, 11, 23, tzinfo=UTC)


class Thing(Wire):
    name: str


class Tokens:
    def __init__(self) -> None:
        self.forgotten = 0

    def __call__(self) -> str:
        return f"token-{self.forgotten}"

    def forget(self) -> None:
        self.forgotten += 1


def settings(**changes: object) -> ProviderSettings:
    facts = {"name": "cloud", "kind": "gcp", "account": "p", "regions": ("r",), **changes}
    return ProviderSettings(**facts)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def api(clock: ManualClock) -> Callable[..., RestApi]:
    def made(*answers: httpx.Response | Exception, seen: list[httpx.Request] | None = None) -> RestApi:
        waiting = list(answers)

        def handle(request: httpx.Request) -> httpx.Response:
            if seen is not None:
                seen.append(request)
            answer = waiting.pop(0) if len(waiting) > 1 else waiting[0]
            if isinstance(answer, Exception):
                raise answer
            return answer

        return RestApi(settings(), clock, rng=Random(1), transport=httpx.MockTransport(handle))

    return made


def google(status: int, reason: str = "", message: str = "no") -> httpx.Response:
    body = {"error": {"code": status, "message": message, "errors": [{"reason": reason}]}}
    return httpx.Response(status, json=body)


def test_a_passing_failure_is_tried_again(api: Callable[..., RestApi], clock: ManualClock) -> None:
    busy = httpx.Response(429, headers={"Retry-After": "2"})
    good = httpx.Response(200, json={"name": "x", "more": 1})
    assert api(busy, httpx.ConnectError("refused"), good).get(Thing, URL, token=None) == Thing(name="x")
    assert clock.now() - START >= timedelta(seconds=2), "Retry-After is the least that is waited"


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(503),
        httpx.Response(429),
        httpx.ReadTimeout("slow"),
        httpx.ConnectError("refused"),
        google(403, "rateLimitExceeded"),
    ],
)
def test_a_lasting_failure_is_unavailable(api: Callable[..., RestApi], answer: httpx.Response | Exception) -> None:
    seen: list[httpx.Request] = []
    with pytest.raises(ProviderUnavailable):
        api(answer, seen=seen).get(Thing, URL, token=None)
    assert len(seen) == 4


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (google(401, "authError"), AuthenticationFailed),
        (google(403, "forbidden"), AuthenticationFailed),
        (google(404, "notFound"), NotFound),
        (google(403, "quotaExceeded"), InsufficientCapacity),
        (httpx.Response(409, json={"error": {"code": "SkuNotAvailable", "message": "none"}}), InsufficientCapacity),
        (httpx.Response(400, json={"error": "invalid_grant", "error_description": "bad"}), ProviderError),
        (httpx.Response(302, headers={"Location": "https://elsewhere.example.com"}), ProviderError),
        (httpx.Response(200, html="<h1>It works!</h1>"), ProviderAnswerInvalid),
        (httpx.Response(200, json={"name": 3}), ProviderAnswerInvalid),
    ],
)
def test_refusals_in_our_words(api: Callable[..., RestApi], answer: httpx.Response, error: type[Exception]) -> None:
    seen: list[httpx.Request] = []
    with pytest.raises(error) as caught:
        api(answer, seen=seen).get(Thing, URL, token=None)
    assert type(caught.value) is error
    assert len(seen) == 1


def test_a_refused_token_is_renewed_once(api: Callable[..., RestApi]) -> None:
    seen: list[httpx.Request] = []
    tokens = Tokens()
    api(httpx.Response(401), httpx.Response(200, json={"name": "x"}), seen=seen).get(Thing, URL, token=tokens)
    assert [request.headers["Authorization"] for request in seen] == ["Bearer token-0", "Bearer token-1"]
    with pytest.raises(AuthenticationFailed) as caught:
        api(httpx.Response(401)).get(Thing, URL, token=tokens)
    assert "token-" not in str(caught.value)


def test_a_token_is_kept_until_shortly_before_its_end(clock: ManualClock) -> None:
    fetched: list[datetime] = []

    def fetch() -> tuple[str, timedelta]:
        fetched.append(clock.now())
        return f"t{len(fetched)}", timedelta(hours=1)

    token = KeptToken(fetch, clock)
    assert [token(), token()] == ["t1", "t1"]
    clock.advance(timedelta(minutes=59))
    assert token() == "t2"
    token.forget()
    assert token() == "t3"


@pytest.mark.parametrize("endpoint", ["http://cloud.example.com", "ftp://127.0.0.1", "cloud", "https://", "http://0x"])
def test_endpoints_where_a_token_is_not_safe(clock: ManualClock, endpoint: str) -> None:
    with pytest.raises(ConfigurationError):
        RestApi(settings(endpoint=endpoint), clock)


@pytest.mark.parametrize("endpoint", ["https://cloud.example.com", "http://127.0.0.1:80", "http://localhost:1"])
def test_endpoints_where_it_is(clock: ManualClock, endpoint: str) -> None:
    RestApi(settings(endpoint=endpoint), clock)


def test_a_missing_authority_is_a_configuration_error(clock: ManualClock) -> None:
    with pytest.raises(ConfigurationError, match="ca_file"):
        RestApi(settings(ca_file="nowhere.pem"), clock)


def test_links_are_followed_at_home_only() -> None:
    assert same_origin("https://cloud.example.com/next?page=2", URL)
    assert not same_origin("https://elsewhere.example.com/next", URL)
    assert not same_origin("http://cloud.example.com/next", URL)
    assert not same_origin("https://cloud.example.com:8443/next", URL)


def test_a_login_goes_along_and_errors_name_the_table_it_is_from() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("authorization", ""))
        return httpx.Response(401 if len(seen) > 1 else 200, json={"name": "n"})

    seen: list[str] = []
    table = "forecast.sources.prom"
    transport = httpx.MockTransport(answer)
    api = RestApi(settings(), ManualClock(START), transport=transport, table=table, login=("user", "pass"))
    assert api.get(Thing, URL, token=None).name == "n"
    assert seen == ["Basic dXNlcjpwYXNz"]
    with pytest.raises(AuthenticationFailed) as caught:
        api.get(Thing, URL, token=None)
    assert "[forecast.sources.prom]" in caught.value.next_step


def test_bytes_that_do_not_decode_are_told_without_the_links_signature(api: Callable[..., RestApi]) -> None:
    broken = httpx.Response(200, headers={"content-encoding": "gzip"}, stream=httpx.ByteStream(b"no gzip"))
    with pytest.raises(ProviderAnswerInvalid, match="GET /v1/things sent bytes that do not decode") as refused:
        api(broken).send("GET", URL + "?sig=s3cret", token=None)
    assert "s3cret" not in str(refused.value)
