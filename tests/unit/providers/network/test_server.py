from collections.abc import Iterator
from datetime import timedelta

import httpx
import pytest

from engine.clock import ManualClock
from providers.network.server import RateLimit
from providers.network.wire import Problem
from providers.network.wire_records import WireBill
from tests.unit.providers.network.networks import START, TERM, InProcess, a_listing, a_network, an_auction, served

GOOD = {"Authorization": "Bearer secret"}
QUOTE = {"offer_id": "lot", "quantity": 1, "term": TERM.model_dump(mode="json")}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def http(clock: ManualClock) -> Iterator[httpx.Client]:
    transport = served(a_network(clock), clock)
    with httpx.Client(base_url="https://tiny.test", transport=transport, headers=GOOD) as client:
        yield client


def _problem(answer: httpx.Response) -> Problem:
    assert answer.headers["content-type"] == "application/problem+json"
    found = Problem.model_validate_json(answer.content)
    assert found.status == answer.status_code
    assert found.type == f"urn:open-capacity:problem:{found.code.value}"
    return found


def test_the_description_is_openapi_3_1_and_needs_no_token(http: httpx.Client) -> None:
    description = http.get("/openapi.json", headers={"Authorization": ""}).json()
    assert description["openapi"].startswith("3.1")
    assert {
        "/v1/offers",
        "/v1/quotes",
        "/v1/auctions/{auction_id}/bids",
        "/v1/holds/{hold_id}/confirm",
        "/v1/reservations/{reservation_id}",
        "/v1/events",
        "/v1/events/stream",
        "/v1/negotiations/{negotiation_id}/proposals",
        "/v1/reverse-auctions",
        "/v1/shard-types",
        "/v1/bills",
    } <= set(description["paths"])
    key = next(p for p in description["paths"]["/v1/holds"]["post"]["parameters"] if p["name"] == "Idempotency-Key")
    assert key["required"]
    for path, verbs in description["paths"].items():
        if path == "/v1/keys":
            continue
        for verb in verbs.values():
            assert verb["security"], f"{path} must say that it wants a token"
            assert "application/problem+json" in verb["responses"]["401"]["content"]


@pytest.mark.parametrize("authorization", ["", "Bearer wrong", "Basic secret", "Bearer sécret"])
def test_without_a_token_of_ours(http: httpx.Client, authorization: str) -> None:
    answer = http.get("/v1/offers", headers=[(b"Authorization", authorization.encode())])
    assert _problem(answer).code == "unauthorized"
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "cret" not in answer.text


def test_a_purchase_needs_an_idempotency_key(http: httpx.Client) -> None:
    quote = http.post("/v1/quotes", json=QUOTE).json()
    body = {"quote_id": quote["quote_id"], "quantity": 1}
    assert "Idempotency-Key" in _problem(http.post("/v1/holds", json=body)).detail
    hold = http.post("/v1/holds", json=body, headers={"Idempotency-Key": "k"})
    assert hold.status_code == 201
    confirm = f"/v1/holds/{hold.json()['hold_id']}/confirm"
    assert http.post(confirm, json={"node": "n", "token": "t", "user_data": "x"}).status_code == 422


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({**QUOTE, "quantity": "1"}, "body.quantity"),
        ({**QUOTE, "quantity": 0}, "body.quantity"),
        ({**QUOTE, "colour": "red"}, "body.colour"),
        ({**QUOTE, "term": {"start": "2026-03-01T12:00:00", "end": "2026-03-02T12:00:00Z"}}, "body.term.start"),
        ({**QUOTE, "lasts_seconds": 0}, "body.lasts_seconds"),
    ],
)
def test_a_malformed_request_is_told_where_and_not_repeated(
    http: httpx.Client, body: dict[str, object], where: str
) -> None:
    assert _problem(http.post("/v1/quotes", json=body)).detail.startswith(where)


def test_user_data_is_not_repeated_in_a_problem(http: httpx.Client) -> None:
    body = {"node": "not a name", "token": "t", "user_data": "join-token-1234"}
    answer = http.post("/v1/holds/h/confirm", json=body, headers={"Idempotency-Key": "k"})
    assert _problem(answer).detail.startswith("body.node")
    assert "join-token" not in answer.text


@pytest.mark.parametrize(
    ("verb", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("PUT", "/v1/offers", 405),
        ("GET", "/v1/holds/none", 404),
        ("GET", "/v1/offers?option=theft", 422),
        ("GET", "/v1/offers?min_vcpus=-1", 422),
        ("GET", "/v1/events?since=2026-03-01T12:00:00", 400),
        ("GET", "/v1/bills?start=2026-03-02T00:00:00Z&end=2026-03-01T00:00:00Z", 400),
    ],
)
def test_every_refusal_is_a_problem(http: httpx.Client, verb: str, path: str, status: int) -> None:
    answer = http.request(verb, path)
    assert answer.status_code == status
    _problem(answer)


def test_too_many_requests(clock: ManualClock) -> None:
    limit = RateLimit(clock, per_second=1, burst=2)
    with httpx.Client(
        base_url="https://tiny.test", transport=served(a_network(clock), clock, limit=limit), headers=GOOD
    ) as http:
        assert [http.get("/v1/offers").status_code for _ in range(3)] == [200, 200, 429]
        answer = http.get("/v1/offers")
        assert _problem(answer).code == "rate_limited"
        assert answer.headers["retry-after"] == "1"
        clock.advance(timedelta(seconds=1))
        assert http.get("/v1/offers").status_code == 200


def test_bills_are_json_or_csv(http: httpx.Client) -> None:
    period = "?start=2026-03-01T00:00:00Z&end=2026-04-01T00:00:00Z"
    bill = WireBill.model_validate_json(http.get(f"/v1/bills{period}").content)
    answer = http.get(f"/v1/bills.csv{period}")
    assert answer.headers["open-capacity-invoice"] == bill.invoice.model_dump_json()
    assert answer.text.startswith("AvailabilityZone,BilledCost,")


def test_auctions_are_listed_with_rule_and_recent_prices(clock: ManualClock) -> None:
    transport = InProcess(served(a_network(clock, [an_auction(), a_listing("posted")]), clock)._app)
    with httpx.Client(base_url="https://tiny.test", transport=transport, headers=GOOD) as http:
        (auction,) = http.get("/v1/auctions").json()["auctions"]
    assert (auction["auction_id"], auction["rule"]) == ("lot", "sealed_second_price")
    assert len(auction["recent"]) == 5
