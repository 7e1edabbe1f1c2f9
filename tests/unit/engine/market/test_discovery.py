import threading
from collections.abc import Sequence
from datetime import timedelta

import pytest

from engine.clock import ManualClock
from engine.errors import ProviderAnswerInvalid
from engine.market.discovery import MarketLimits, MarketView, discover, fault_of
from engine.model.ids import OfferId
from engine.model.market import Delivery, Offer, OfferQuery, PurchaseOption
from engine.model.plan import OfferRejection
from providers.base import OfferBook, Provider
from tests.unit.engine.market.counterparties import NOW, QUERY, Honest, an_offer

ZERO_SIZE = {"vcpus": 0.0, "memory_gib": 4.0, "storage_iops": 0.0, "network_mbps": 0.0}
HUGE = {**ZERO_SIZE, "vcpus": 1e6}


def _window(earliest: float, latest: float) -> Delivery:
    """Hours from now."""
    return Delivery(earliest=NOW + timedelta(hours=earliest), latest=NOW + timedelta(hours=latest))


def _discover(*providers: Provider, timeout_seconds: float = 5) -> MarketView:
    return discover(providers, QUERY, clock=ManualClock(NOW), timeout_seconds=timeout_seconds)


class Rubbish(Honest):
    def offers(self, need: OfferQuery) -> Sequence[Offer]:
        raise ProviderAnswerInvalid(f"{self.name}: not a list of offers", why="200 text/html")


class Broken(Honest):
    def offers(self, need: OfferQuery) -> Sequence[Offer]:
        raise KeyError("price")


class Hanging(Honest):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.let_go = threading.Event()

    def offers(self, need: OfferQuery) -> Sequence[Offer]:
        self.let_go.wait(30)
        return ()


def test_offers_come_in_the_providers_order() -> None:
    first, second = Honest("p", [an_offer("a"), an_offer("b")]), Honest("q", [an_offer("c", provider="q")])
    view = _discover(first, second)
    assert [offer.id for offer in view.offers] == ["a", "b", "c"]
    assert (view.rejections, view.failures, view.made_at) == ((), (), NOW)


def test_a_provider_that_fails_is_named_and_stops_nobody() -> None:
    hanging = Hanging("hangs")
    providers = [Rubbish("rubbish"), hanging, Broken("broken"), Honest("p", [an_offer("a")])]
    view = _discover(*providers, timeout_seconds=0.2)
    hanging.let_go.set()
    assert [offer.id for offer in view.offers] == ["a"]
    failures = {failure.provider: failure for failure in view.failures}
    assert failures["rubbish"].kind == "ProviderAnswerInvalid"
    assert "text/html" in failures["rubbish"].reason
    assert (failures["hangs"].kind, failures["hangs"].reason) == ("TimedOut", "no answer in 0.2 s")
    assert failures["broken"].kind == "KeyError"


@pytest.mark.parametrize("window", [None, _window(0, 0), _window(-1, 0), _window(0.1, 1 / 6)])
def test_what_comes_while_a_machine_starts_counts_as_there(window: Delivery | None) -> None:
    assert fault_of(an_offer(delivery=window), MarketLimits(), NOW) is None


def test_nobody_to_ask() -> None:
    assert _discover().offers == ()


@pytest.mark.parametrize(
    ("offer", "reason"),
    [
        (an_offer(price="0"), "zero price"),
        (an_offer(price="-0.05"), "negative price: -0.05 USD"),
        (an_offer(price="900"), "absurd price: 450 USD per vCPU-hour"),
        (an_offer(price="0.000001"), "absurd price"),
        (an_offer(currency="ZZZ"), "currency ZZZ is not known"),
        (an_offer(resources=ZERO_SIZE), "zero capacity: 0 vCPU"),
        (an_offer(resources=HUGE), "absurd size"),
        (an_offer(available=0), "sold out"),
        (an_offer(expires_at=NOW), "expired at 2026-03-01"),
        (an_offer(price_at=NOW + timedelta(hours=1)), "clock skew"),
        (
            an_offer(delivery=_window(2, 4)),
            "delivered later: between 2026-03-01 14:00Z and 2026-03-01 16:00Z, not within 10 minutes from now",
        ),
        (an_offer(delivery=_window(-1, 4)), "delivered later"),
        (an_offer(option=PurchaseOption.SPOT, price_at=NOW - timedelta(days=8)), "stale price: stated 8 days ago"),
        (an_offer(price_at=NOW - timedelta(days=401)), "stale price"),
        (an_offer(option=PurchaseOption.AUCTION, price="-1"), "negative price"),
    ],
)
def test_a_bad_offer_is_refused_with_a_reason(offer: Offer, reason: str) -> None:
    good = an_offer("good")
    view = _discover(Honest("p", [offer, good]))
    assert [found.id for found in view.offers] == ["good"]
    assert [found.offer for found in view.rejections] == [offer.id]
    assert reason in view.rejections[0].reason


@pytest.mark.parametrize(
    "offer",
    [
        an_offer(),
        an_offer(option=PurchaseOption.AUCTION, price="0"),
        an_offer(price_at=NOW - timedelta(days=30)),
        an_offer(price_at=NOW + timedelta(minutes=1)),
        an_offer(available=None),
        an_offer(expires_at=NOW + timedelta(seconds=1)),
    ],
)
def test_a_fine_offer_is_taken(offer: Offer) -> None:
    assert fault_of(offer, MarketLimits(), NOW) is None


def test_a_second_offer_of_the_same_id_is_refused() -> None:
    view = _discover(Honest("p", [an_offer("a"), an_offer("a", price="0.01")]))
    assert [offer.price.amount for offer in view.offers] == [an_offer().price.amount]
    assert "duplicate id" in view.rejections[0].reason


def test_nobody_posts_in_anothers_name() -> None:
    view = _discover(Honest("q", [an_offer("a", provider="p")]))
    assert view.offers == ()
    assert "in the name of p" in view.rejections[0].reason


def test_offers_that_the_adapter_could_not_read_are_passed_on() -> None:
    unread = OfferRejection(offer=OfferId("p/x"), provider="p", reason="price: field required")

    class WithBook(Honest):
        def offer_book(self, need: OfferQuery) -> OfferBook:
            return OfferBook(offers=(an_offer("a"),), rejections=(unread,))

    view = _discover(WithBook("p"))
    assert (len(view.offers), view.rejections) == (1, (unread,))


def test_the_view_survives_json() -> None:
    view = _discover(Honest("p", [an_offer("a"), an_offer("b", price="0")]), Rubbish("r"))
    assert MarketView.model_validate_json(view.model_dump_json()) == view
