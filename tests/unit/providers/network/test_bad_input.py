"""What a network may do wrong, one test each: it is refused by name in the market and in the plan, and stops nobody."""

import json
import threading
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from io import StringIO
from random import Random
from typing import Any

import httpx
import pytest
from rich.console import Console

from engine.cli.market import plan_tables, refused_table
from engine.clock import ManualClock
from engine.market.base import LiveMarket, Need
from engine.market.discovery import MarketView, discover
from engine.market.fixed_price import FixedPriceStrategy
from engine.market.negotiation import Negotiation, negotiate
from engine.market.rfq import ROUNDS, RfqStrategy
from engine.model.market import OfferQuery
from engine.model.placement import Cell
from engine.model.plan import Plan
from engine.model.value import Interval
from engine.planner.inventory import Inventory
from engine.planner.planner import plan
from engine.planner.policy import PlanPolicy
from providers.base import ProviderSettings
from providers.network import wire
from providers.network.book import Terms
from providers.network.exchange import Exchange
from providers.network.provider import NetworkProvider
from providers.network.signing import Signer
from tests.unit.engine.planner.cases import NOW, SMALL, pool, target
from tests.unit.providers.network.networks import TENANT, a_listing, served
from tests.unit.providers.network.test_provider import SETTINGS

QUERY = OfferQuery(at_least=SMALL.resources)
BAD = "bad"
Body = dict[str, Any]
Change = Callable[[Body], Body]
"""An offer as the honest network posts it -> what this one posts, and signs."""


class Rogue(httpx.BaseTransport):
    """A network that signs what it says, but says something else about one of its two offers."""

    def __init__(
        self, clock: ManualClock, change: Change = lambda body: body, *, also: Callable[[str, Any], Any] | None = None
    ) -> None:
        self.signer = Signer("rogue")
        listings = [a_listing(BAD), a_listing("fair", ask="0.06")]
        self.exchange = Exchange(listings, Terms("rogue"), clock=clock, signer=self.signer)
        self._honest, self._clock, self._change = served(self.exchange, clock), clock, change
        self._also = also or (lambda _, body: body)
        self.hangs = threading.Event()
        self.hangs.set()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.hangs.wait(30)
        answer = self._honest.handle_request(request)
        if not answer.read() or answer.status_code >= 300:
            return answer
        body = json.loads(answer.content)
        if request.url.path == "/v1/offers":
            body["offers"] = [found for one in body["offers"] for found in self._posted(one)]
        return httpx.Response(answer.status_code, json=self._also(request.url.path, body))

    def _posted(self, offer: Body) -> list[Body]:
        if offer["offer_id"] != BAD:
            return [offer]
        changed = self._change(offer)
        twins, signed_at = changed.pop("twins", 1), changed.pop("signed_at", self._clock.now())
        if not changed.pop("signs", True):
            return [changed] * twins
        try:
            said = wire.WireOffer.model_validate_json(json.dumps(changed))
        except ValueError:
            return [changed]
        signed = self.signer.sign_offer(said, signed_at)
        return [json.loads(signed.model_dump_json())] * twins


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


def _settings(name: str) -> ProviderSettings:
    return SETTINGS.model_copy(update={"name": name})


def _world(rogue: Rogue, clock: ManualClock) -> dict[str, NetworkProvider]:
    honest = Exchange([a_listing("lot", ask="0.055")], Terms("honest"), clock=clock)
    return {
        "rogue": NetworkProvider(_settings("rogue"), clock=clock, transport=rogue, rng=Random(0)),
        "honest": NetworkProvider(_settings("honest"), clock=clock, transport=served(honest, clock), rng=Random(0)),
    }


def _round(
    rogue: Rogue, clock: ManualClock, *, discovery_seconds: float = 20.0, talking_seconds: float = 20.0
) -> tuple[MarketView, Negotiation, Plan]:
    """Discover, negotiate and plan, as a round does."""
    providers = _world(rogue, clock)
    view = discover(list(providers.values()), QUERY, clock=clock, timeout_seconds=discovery_seconds)
    need = Need(key="r", max_units=3, term=Interval(start=NOW, end=NOW + timedelta(days=1)), slice=SMALL.resources)
    market = LiveMarket(providers=providers, clock=clock, rng=Random(0))
    strategies = [FixedPriceStrategy(), RfqStrategy()]
    talked = negotiate(view, need, strategies, market, timeout_seconds=talking_seconds)
    made = plan(
        PlanPolicy(),
        [target(pool(), 1.0)],
        Inventory(),
        talked.quotes,
        view.offers,
        (*view.rejections, *talked.rejections),
        None,
        cells=[Cell(provider=name, kind="network", account=TENANT, region="north") for name in providers],
        now=NOW,
        seed=1,
    )
    return view, talked, made


def _said(*tables: Any) -> str:
    text = StringIO()
    console = Console(file=text, width=400)
    for table in tables:
        console.print(table)
    return text.getvalue()


def _refused_in_the_market(rogue: Rogue, clock: ManualClock, reason: str) -> None:
    """The bad offer is refused by name in ``offers`` and in the plan; its neighbour and the other network are used."""
    view, talked, made = _round(rogue, clock)
    assert [offer.id for offer in view.offers] == ["rogue/fair", "honest/lot"]
    assert [one.offer for one in view.rejections] == ["rogue/bad"]
    assert view.rejections[0].reason.startswith(reason), view.rejections[0].reason
    assert {quote.offer.id for quote in talked.quotes} == {"rogue/fair", "honest/lot"}
    assert reason in _said(refused_table(view.rejections, 40))
    assert reason in _said(*plan_tables(made))
    assert made.cells, "something is bought all the same"


def _with(**fields: object) -> Change:
    return lambda offer: {**offer, **fields}


def _price(amount: str, currency: str = "USD") -> Change:
    return _with(price={"amount": amount, "currency": currency})


def test_an_honest_network_is_bought_from(clock: ManualClock) -> None:
    view, talked, made = _round(Rogue(clock), clock)
    assert (len(view.offers), view.rejections, talked.rejections) == (3, (), ())
    assert made.rejections == ()


# -- offers


def test_a_missing_price(clock: ManualClock) -> None:
    def priceless(offer: Body) -> Body:
        return {name: value for name, value in offer.items() if name != "price"}

    _refused_in_the_market(Rogue(clock, priceless), clock, "price: field required")


def test_a_negative_price(clock: ManualClock) -> None:
    _refused_in_the_market(Rogue(clock, _price("-0.05")), clock, "negative price: -0.05 USD")


def test_an_absurd_price(clock: ManualClock) -> None:
    _refused_in_the_market(Rogue(clock, _price("9000")), clock, "absurd price: 4500 USD per vCPU-hour")


def test_a_price_that_is_too_good_to_be_true(clock: ManualClock) -> None:
    _refused_in_the_market(Rogue(clock, _price("0.0000001")), clock, "absurd price")


def test_a_stale_price(clock: ManualClock) -> None:
    long_ago = (NOW - timedelta(days=401)).isoformat()
    _refused_in_the_market(Rogue(clock, _with(price_at=long_ago)), clock, "stale price: stated 401 days ago")


def test_an_unknown_currency(clock: ManualClock) -> None:
    _refused_in_the_market(Rogue(clock, _price("0.05", "ZZZ")), clock, "currency ZZZ is not known here")


def test_zero_capacity(clock: ManualClock) -> None:
    _refused_in_the_market(Rogue(clock, _with(available=0)), clock, "zero capacity: sold out")


def test_a_lying_size(clock: ManualClock) -> None:
    huge = {"vcpus": 64, "memory_gib": 256, "storage_iops": 1000, "network_mbps": 500}
    reason = "lying size: 64 vCPU, 256 GiB offered as m.small of 2 vCPU, 4 GiB"
    _refused_in_the_market(Rogue(clock, _with(resources=huge)), clock, reason)


def test_an_id_that_is_used_twice(clock: ManualClock) -> None:
    view, _, made = _round(Rogue(clock, _with(twins=2)), clock)
    assert [offer.id for offer in view.offers] == ["rogue/bad", "rogue/fair", "honest/lot"], "the first one stands"
    assert [(one.offer, one.reason) for one in view.rejections] == [("rogue/bad", "duplicate id: another offer has it")]
    assert made.rejections == view.rejections


def test_a_clock_that_is_ahead(clock: ManualClock) -> None:
    ahead = (NOW + timedelta(hours=1)).isoformat()
    _refused_in_the_market(Rogue(clock, _with(price_at=ahead)), clock, "clock skew: its price is stated for")
    signed = Rogue(clock, _with(signed_at=NOW + timedelta(hours=1)))
    _refused_in_the_market(signed, clock, "clock skew: signed for")


def test_an_offer_that_has_expired(clock: ManualClock) -> None:
    past = (NOW - timedelta(seconds=1)).isoformat()
    _refused_in_the_market(Rogue(clock, _with(expires_at=past)), clock, "expired or replayed: signed at")


def test_an_unsigned_offer(clock: ManualClock) -> None:
    _refused_in_the_market(Rogue(clock, _with(proof=None, signs=False)), clock, "unsigned: no proof of its price")


def test_an_offer_that_somebody_changed_on_the_way(clock: ManualClock) -> None:
    cheaper = {"amount": "0.01", "currency": "USD"}
    _refused_in_the_market(
        Rogue(clock, _with(price=cheaper, signs=False)), clock, "forged: price is not what was signed"
    )


# -- quotes


def _refused_in_the_talk(rogue: Rogue, clock: ManualClock, reason: str) -> None:
    """Every quote of the rogue is refused by name, in the plan too; the other network sells."""
    _, talked, made = _round(rogue, clock)
    assert {quote.offer.id for quote in talked.quotes} == {"honest/lot"}
    reasons = {one.offer: one.reason for one in talked.rejections}
    assert set(reasons) == {"rogue/bad", "rogue/fair"}
    assert all(reason in one for one in reasons.values()), reasons
    told = {row.offer.id: row.reason for row in made.decisions}
    assert reason in told["rogue/bad"]
    assert reason in _said(*plan_tables(made))
    assert {node.node.cell.split("/")[0] for cell in made.cells for node in cell.nodes} == {"honest"}


def _every_quote(change: Callable[[Body], Body]) -> Callable[[str, Any], Any]:
    def also(path: str, body: Any) -> Any:
        if path == "/v1/quotes":
            return change(body)
        if path.startswith("/v1/negotiations"):
            return {**body, "quote": change(body["quote"])}
        return body

    return also


def test_an_expired_quote(clock: ManualClock) -> None:
    rogue = Rogue(clock)

    def late(body: Body) -> Body:
        past = {**body, "expires_at": (NOW - timedelta(seconds=1)).isoformat()}
        said = wire.WireQuote.model_validate_json(json.dumps(past))
        return json.loads(rogue.signer.sign_quote(said, NOW, buyer=TENANT).model_dump_json())  # type: ignore[no-any-return]

    rogue._also = _every_quote(late)
    _refused_in_the_talk(rogue, clock, "expired or replayed")


def test_an_unsigned_quote(clock: ManualClock) -> None:
    rogue = Rogue(clock, also=_every_quote(lambda body: {**body, "proof": None}))
    _refused_in_the_talk(rogue, clock, "unsigned: no proof of its price")


def test_a_replayed_quote(clock: ManualClock) -> None:
    kept: dict[str, Body] = {}
    rogue = Rogue(clock, also=_every_quote(lambda body: kept.setdefault(body["offer_id"], body)))
    need = Interval(start=NOW, end=NOW + timedelta(days=1))
    provider = _world(rogue, clock)["rogue"]
    for offer in provider.offers(QUERY):
        provider.quote(offer, 3, need)
    clock.advance(timedelta(seconds=1))
    _refused_in_the_talk(rogue, clock, "replayed: the signature answers another request")


def test_a_quote_above_what_was_posted(clock: ManualClock) -> None:
    rogue = Rogue(clock)

    def dearer(body: Body) -> Body:
        more = {"amount": str(Decimal(body["unit_price"]["amount"]) * 2), "currency": "USD"}
        said = wire.WireQuote.model_validate_json(json.dumps({**body, "unit_price": more}))
        nonce = json.loads(_claims(body["proof"]))["nonce"]
        signed = rogue.signer.sign_quote(said, NOW, buyer=TENANT, nonce=nonce)
        return json.loads(signed.model_dump_json())  # type: ignore[no-any-return]

    rogue._also = _every_quote(dearer)
    _refused_in_the_talk(rogue, clock, "price mismatch")


def _claims(proof: str) -> bytes:
    from joserfc import jws

    return jws.extract_compact(proof.encode()).payload


# -- conduct


def test_a_network_that_hangs_at_discovery(clock: ManualClock) -> None:
    rogue = Rogue(clock)
    rogue.hangs.clear()
    view, talked, made = _round(rogue, clock, discovery_seconds=2.0)
    rogue.hangs.set()
    assert [(one.provider, one.kind) for one in view.failures] == [("rogue", "TimedOut")]
    assert {quote.offer.id for quote in talked.quotes} == {"honest/lot"}
    assert made.cells


def test_a_network_that_hangs_in_the_talk(clock: ManualClock) -> None:
    rogue = Rogue(clock)
    honest = rogue._also

    def hang_after_the_offers(path: str, body: Any) -> Any:
        if path == "/v1/quotes":
            rogue.hangs.clear()
            rogue.hangs.wait(30)
        return honest(path, body)

    rogue._also = hang_after_the_offers
    _, talked, made = _round(rogue, clock, talking_seconds=2.0)
    rogue.hangs.set()
    assert {one.reason for one in talked.rejections} == {"out of time: rogue did not finish in 2 s"}
    assert "out of time" in _said(*plan_tables(made))
    assert made.cells


def test_counter_offers_that_never_end(clock: ManualClock) -> None:
    """It always has another round, and never comes down."""
    rounds = []

    def endless(path: str, body: Any) -> Any:
        if path.endswith("/proposals"):
            rounds.append(path)
            return {**body, "state": "open", "rounds_left": 1_000_000, "reply": "rejected"}
        return body

    _, talked, _ = _round(Rogue(clock, also=endless), clock)
    assert len(rounds) <= 2 * ROUNDS, "two offers, each in bounded rounds"
    assert {quote.offer.id for quote in talked.quotes} == {"rogue/bad", "rogue/fair", "honest/lot"}
    assert all(quote.unit_price <= quote.offer.price for quote in talked.quotes)
