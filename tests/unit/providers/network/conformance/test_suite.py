"""The suite passes on honest networks and names what a broken one breaks."""

from collections.abc import Collection
from decimal import Decimal
from pathlib import Path

import httpx
import pytest

from engine.clock import ManualClock
from engine.errors import ConfigurationError, ProviderUnavailable
from engine.model.market import PurchaseOption
from providers.network.book import Terms
from providers.network.conformance.base import Outcome
from providers.network.conformance.suite import Conformance, all_cases, check
from providers.network.exchange import Exchange
from providers.network.server import RateLimit, create_app
from providers.network.stock import AuctionRules, Listing
from providers.network.wire import WireAuctionRule
from providers.sandbox.cloud import parse_options
from providers.sandbox.networks import build_app
from tests.unit.providers.network.conformance import broken
from tests.unit.providers.network.networks import START, InProcess, a_listing

POSTED_CASES = {
    "quote",
    "expired quote",
    "quotes that cannot be",
    "negotiation",
    "a rejection is not final",
    "counter-offers",
    "repeated proposal",
    "reverse auction",
    "resize of a reservation",
}
AUCTION_CASES = {"idempotent bid", "low bid", "second-price rule", "won quote"}
OTHER_RULES = {"first-price rule", "open ascending rule"}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


def _everything(clock: ManualClock) -> InProcess:
    """One small network that does all that the API knows."""
    posted = a_listing("small", units=20)
    larger = Listing(**{**vars(posted), "offer_id": "larger", "instance_type": "m.large", "ask": Decimal("0.09")})
    auctions = [
        Listing(
            **{
                **vars(a_listing(rule.value, option=PurchaseOption.AUCTION, ask="0.01", units=20)),
                "auction": AuctionRules(rule),
            }
        )
        for rule in WireAuctionRule
    ]
    exchange = Exchange(
        [posted, larger, *auctions], Terms("all"), clock=clock, rivals=lambda *_: [Decimal("0.02"), Decimal("0.03")]
    )
    limit = RateLimit(clock, per_second=50, burst=40)
    return InProcess(create_app(exchange, tenants={"secret": "t"}, clock=clock, limit=limit))


def _checked(transport: httpx.BaseTransport, clock: ManualClock, *, token: str = "secret") -> Conformance:
    return check("https://tiny.test", token, clock=clock, transport=transport, examples=0)


def _names(found: Conformance, outcome: Outcome) -> set[str]:
    return {result.name for result in found.results if result.outcome is outcome}


def _failures(found: Conformance) -> dict[str, str]:
    return {result.name: result.seen for result in found.results if result.outcome is Outcome.FAILED}


def test_a_network_that_does_everything_passes_every_case(clock: ManualClock) -> None:
    found = _checked(_everything(clock), clock)
    assert {result.name: result.seen for result in found.results if result.outcome is not Outcome.PASSED} == {}
    assert found.conforms
    assert len(found.results) == len(all_cases()) >= 40


@pytest.mark.parametrize(("name", "skipped"), [("harbor", AUCTION_CASES | OTHER_RULES), ("agora", POSTED_CASES)])
def test_both_sandbox_networks_pass(name: str, skipped: set[str], clock: ManualClock) -> None:
    options = parse_options("networks", account="t", regions=("north",), argv=["--name", name])
    found = _checked(InProcess(build_app(options, token="secret", clock=clock)), clock)
    assert _failures(found) == {}
    assert _names(found, Outcome.SKIPPED) == skipped
    assert found.conforms


def test_fuzzing_passes_and_finds_an_answer_that_is_not_as_described(clock: ManualClock) -> None:
    honest = check("https://t.test", "secret", clock=clock, transport=_everything(clock), cases=[], examples=3)
    assert _failures(honest) == {}
    assert honest.count(Outcome.PASSED) >= 25

    class Undescribed(InProcess):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            answer = super().handle_request(request)
            if request.url.path == "/v1/terms" and answer.is_success:
                return httpx.Response(200, json={"name": 7})
            if request.url.path == "/v1/auctions":
                return httpx.Response(500, text="Traceback")
            return answer

    found = check(
        "https://t.test", "secret", clock=clock, transport=Undescribed(_everything(clock)._app), cases=[], examples=3
    )
    assert set(_failures(found)) == {"fuzz GET /v1/terms", "fuzz GET /v1/auctions"}


@pytest.mark.parametrize(
    ("breaks", "cases"),
    [
        (
            broken.forgets_its_keys,
            {"idempotent hold", "repeated proposal", "idempotent bid", "key used for something else"},
        ),
        (broken.takes_any_request_for_a_key, {"key used for something else"}),
        (broken.never_lets_a_hold_lapse, {"hold expiry"}),
        (broken.starts_a_node_at_every_confirm, {"double confirm", "node of another token"}),
        (broken.refuses_a_second_release, {"release twice"}),
        (broken.charges_a_winner_its_own_bid, {"second-price rule"}),
        (broken.sells_on_expired_quotes, {"expired quote"}),
        (broken.takes_any_currency, {"wrong currency"}),
        (broken.ends_the_talk_at_the_first_rejection, {"a rejection is not final"}),
        (broken.repeats_events_from_the_start, {"event stream"}),
        (broken.tells_no_capacity, {"events"}),
    ],
)
def test_a_broken_rule_is_named(
    breaks: broken.Break, cases: set[str], clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaks(monkeypatch)
    found = _checked(_everything(clock), clock)
    assert not found.conforms
    assert cases <= set(_failures(found))
    assert len(_failures(found)) <= len(cases) + 3, "what is not broken still passes"


class Twisted(httpx.BaseTransport):
    def __init__(self, honest: httpx.BaseTransport, twists: Collection[broken.Twist]) -> None:
        self._honest, self._twists = honest, twists

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = self._honest.handle_request(request)
        for twist in self._twists:
            answer = twist(request, answer)
        return answer


@pytest.mark.parametrize(
    ("twist", "case", "seen"),
    [
        (broken.underprices, "signed offers", "forged: price"),
        (broken.quotes_unsigned, "quote", "unsigned"),
        (broken.bills_wrongly, "bill", "rows sum to"),
        (broken.lies_about_sizes, "shard types", "another size than its type"),
        (broken.no_retry_after, "rate limit", "429 without Retry-After"),
        (broken.plain_errors, "unknown things", "404 as application/json"),
        (broken.repeats_what_was_sent, "malformed requests", "what was sent is repeated"),
    ],
)
def test_a_rule_that_is_broken_on_the_wire_is_named(
    twist: broken.Twist, case: str, seen: str, clock: ManualClock
) -> None:
    failures = _failures(_checked(Twisted(_everything(clock), [twist]), clock))
    assert seen in failures[case]


def test_one_network_that_breaks_several_rules_has_each_named(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for breaks in (
        broken.never_lets_a_hold_lapse,
        broken.charges_a_winner_its_own_bid,
        broken.refuses_a_second_release,
    ):
        breaks(monkeypatch)
    transport = Twisted(_everything(clock), [broken.bills_wrongly, broken.underprices])
    failures = set(_failures(_checked(transport, clock)))
    assert {"hold expiry", "second-price rule", "release twice", "bill", "signed offers"} <= failures


def test_a_server_that_is_something_else_fails_and_breaks_nothing(clock: ManualClock) -> None:
    page = httpx.MockTransport(lambda _: httpx.Response(200, text="<html>It works!</html>"))
    found = _checked(page, clock)
    assert found.count(Outcome.PASSED) == 0
    assert found.count(Outcome.FAILED) > 30


def test_nobody_there(clock: ManualClock, tmp_path: Path) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(ProviderUnavailable, match="does not answer"):
        _checked(httpx.MockTransport(refuse), clock)
    with pytest.raises(ConfigurationError):
        check("ftp://tiny.test", "t", clock=clock)
