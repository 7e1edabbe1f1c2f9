import threading
from collections.abc import Sequence

import pytest

from engine.errors import AuthenticationFailed, InsufficientCapacity, ShardwrightError
from engine.market.auction import AuctionStrategy
from engine.market.base import Market, Need
from engine.market.discovery import MarketView
from engine.market.fixed_price import FixedPriceStrategy
from engine.market.negotiation import Negotiation, negotiate
from engine.market.rfq import RfqStrategy
from engine.market.spot import SpotStrategy
from engine.model.market import DepthBelief, Offer, PurchaseOption, Quote
from engine.model.money import usd
from engine.model.value import Interval
from providers.base import Provider
from tests.unit.engine.market.counterparties import (
    NOW,
    Auctioneer,
    Cheat,
    Honest,
    LastMinute,
    Overcharger,
    Silent,
    Stubborn,
    a_market,
    a_need,
    a_quote,
    an_offer,
    honest_haggler,
    stubborn_haggler,
)

ALL = (FixedPriceStrategy(), SpotStrategy(), AuctionStrategy())


def _view(*offers: Offer) -> MarketView:
    return MarketView(offers=offers, rejections=(), failures=(), made_at=NOW)


def _negotiate(offers: Sequence[Offer], *providers: Provider) -> Negotiation:
    return negotiate(_view(*offers), a_need(), ALL, a_market(*providers))


def test_every_option_gets_its_strategy() -> None:
    offers = [
        an_offer("posted"),
        an_offer("spot", option=PurchaseOption.SPOT, price="0.04"),
        an_offer("lot", option=PurchaseOption.AUCTION, price="0.01"),
    ]
    auctioneer = Auctioneer(lambda _: (usd("0.03"), usd("0.03")))
    found = _negotiate(offers, auctioneer)
    assert {quote.offer.id: quote.strategy for quote in found.quotes} == {
        "posted": "fixed_price",
        "spot": "spot",
        "lot": "auction",
    }
    assert found.rejections == ()


def test_no_capacity_moves_on_to_the_next_offer() -> None:
    offers = [an_offer("a", provider="stubborn", price="0.01"), an_offer("b", provider="honest")]
    found = _negotiate(offers, Stubborn("stubborn"), Honest("honest"))
    assert [quote.offer.id for quote in found.quotes] == ["b"]
    assert found.rejections[0].offer == "a"
    assert found.rejections[0].reason.startswith("no capacity")


def test_an_expired_quote_is_asked_for_again_once() -> None:
    once, twice = LastMinute("once", late=1), LastMinute("twice", late=2)
    found = _negotiate([an_offer("a", provider="once"), an_offer("b", provider="twice")], once, twice)
    assert [quote.offer.id for quote in found.quotes] == ["a"]
    assert (len(once.asked), len(twice.asked)) == (2, 2)
    assert "expire at once" in found.rejections[0].reason


def test_a_cheat_is_stopped_and_named() -> None:
    cheat = Cheat("p")
    found = _negotiate([an_offer("a")], cheat)
    assert found.quotes == ()
    assert found.rejections[0].reason.startswith("price mismatch")
    assert len(cheat.asked) == 1


def test_a_provider_that_does_not_answer_is_not_asked_again() -> None:
    silent = Silent("p")
    found = _negotiate([an_offer("a", price="0.01"), an_offer("b"), an_offer("c", provider="q")], silent, Honest("q"))
    assert [quote.offer.id for quote in found.quotes] == ["c"]
    assert len(silent.asked) == 1
    assert [rejection.offer for rejection in found.rejections] == ["a", "b"]
    assert all("left the negotiation" in rejection.reason for rejection in found.rejections)


def test_a_refused_token_stops_that_provider_only() -> None:
    class Locked(Honest):
        def quote(self, offer: Offer, quantity: int, term: Interval) -> Quote:
            raise AuthenticationFailed("the network refuses the token")

    found = _negotiate([an_offer("a"), an_offer("b", provider="q")], Locked("p"), Honest("q"))
    assert [quote.offer.id for quote in found.quotes] == ["b"]


class Careless:
    """Somebody else's strategy: forgets its name, and its ceiling."""

    name = "careless"

    def __init__(self, ceiling: str) -> None:
        self.ceiling = ceiling

    def negotiate(self, need: Need, offers: Sequence[Offer], market: Market) -> Sequence[Quote]:
        quote = a_quote(offers[0], 1, need.term, usd("0.05"))
        return [quote.model_copy(update={"price_ceiling": usd(self.ceiling)})]


def test_a_quote_names_its_strategy_and_stays_under_its_ceiling_whoever_wrote_it() -> None:
    market = a_market(Honest("p"))
    fine = negotiate(_view(an_offer()), a_need(), [Careless("0.06")], market)
    assert [quote.strategy for quote in fine.quotes] == ["careless"]
    over = negotiate(_view(an_offer()), a_need(), [Careless("0.04")], market)
    assert over.quotes == ()
    assert "price mismatch" in over.rejections[0].reason


def test_an_offer_of_nobody_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ShardwrightError, match="no provider p"):
        _negotiate([an_offer()])


def test_the_cheapest_quote_of_an_offer_counts() -> None:
    talked = negotiate(_view(an_offer()), a_need(), [*ALL, RfqStrategy()], a_market(honest_haggler()))
    assert [quote.strategy for quote in talked.quotes] == ["rfq"]
    assert talked.quotes[0].unit_price < usd("0.10")
    stubborn = negotiate(_view(an_offer()), a_need(), [*ALL, RfqStrategy()], a_market(stubborn_haggler()))
    assert [quote.strategy for quote in stubborn.quotes] == ["fixed_price"], "equal prices: the plain purchase"


def test_who_cheats_in_one_talk_is_not_bought_from_in_another() -> None:
    found = negotiate(_view(an_offer()), a_need(), [*ALL, RfqStrategy()], a_market(Overcharger()))
    assert found.quotes == ()
    assert found.rejections[0].reason.startswith("price mismatch")


def test_a_provider_that_never_finishes_stops_nobody() -> None:
    let_go = threading.Event()

    class Hanging(Honest):
        def quote(self, offer: Offer, quantity: int, term: Interval) -> Quote:
            if offer.id == "a":
                return super().quote(offer, quantity, term)
            let_go.wait(30)
            raise AssertionError("nobody waits for this")

    offers = [an_offer("a", price="0.01"), an_offer("b"), an_offer("c"), an_offer("d", provider="q")]
    market = a_market(Hanging("p"), Honest("q"))
    found = negotiate(_view(*offers), a_need(), ALL, market, timeout_seconds=0.2)
    let_go.set()
    assert [quote.offer.id for quote in found.quotes] == ["a", "d"]
    assert [(one.offer, one.reason) for one in found.rejections] == [
        ("b", "out of time: p did not finish in 0.2 s"),
        ("c", "out of time: p did not finish in 0.2 s"),
    ]


def test_an_offer_that_one_strategy_passes_on_and_another_buys_is_not_refused() -> None:
    cheaper = an_offer("b", provider="q", price="0.05")
    market = a_market(stubborn_haggler(), Honest("q"))
    found = negotiate(_view(an_offer("a"), cheaper), a_need(), [*ALL, RfqStrategy()], market)
    assert {quote.offer.id: quote.strategy for quote in found.quotes} == {"a": "fixed_price", "b": "fixed_price"}
    assert found.rejections == ()


def test_what_was_denied_is_told_with_how_many_were_asked_for() -> None:
    none_left = an_offer("none", provider="q", available=2)
    found = _negotiate([an_offer("some"), none_left], Honest(), Stubborn("q"))
    assert [(one.place, one.units) for one in found.denied] == [(none_left.place, 2)]


def test_what_one_strategy_was_denied_and_another_got_was_not_denied() -> None:
    class Denied(SpotStrategy):
        name = "denied"

        def negotiate(self, need: Need, offers: Sequence[Offer], market: Market) -> Sequence[Quote]:
            raise InsufficientCapacity("none left")

    found = negotiate(_view(an_offer()), a_need(), (Denied(), FixedPriceStrategy()), a_market(Honest()))
    assert (len(found.quotes), found.denied) == (1, ())


def test_a_denial_of_what_was_not_on_offer_breaks_nothing_off() -> None:
    class Pushing:
        """Somebody else's strategy: asks for what its seller says it has none of."""

        name = "pushing"

        def negotiate(self, need: Need, offers: Sequence[Offer], market: Market) -> Sequence[Quote]:
            raise InsufficientCapacity("none left")

    found = negotiate(_view(an_offer(available=0)), a_need(), [Pushing()], a_market(Honest()))
    assert (found.quotes, found.denied) == ((), ())
    assert [one.reason for one in found.rejections] == ["no capacity: none left"]


def test_an_exhausted_offer_is_not_asked_for_and_leaves_its_turn_to_others() -> None:
    belief = DepthBelief(depth=0, told="denied 2 of 2 at 11:55")
    offers = [an_offer("best", price="0.01", available=0, belief=belief), an_offer("next")]
    seller = Honest()
    found = negotiate(_view(*offers), a_need(), ALL, a_market(seller), per_use=1)
    assert [quote.offer.id for quote in found.quotes] == ["next"]
    assert [name for name, _ in seller.asked] == ["next"]
