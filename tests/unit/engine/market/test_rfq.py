from collections.abc import Callable
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InsufficientCapacity, PriceMismatch, QuoteExpired
from engine.market.base import Declined
from engine.market.rfq import ROUNDS, RfqStrategy, concession, reservation_price
from engine.model.market import Offer, PurchaseOption, Quote
from engine.model.money import Money, usd
from engine.model.value import Interval
from providers.base import RfqAnswer
from tests.unit.engine.market.counterparties import (
    Climber,
    Haggler,
    Honest,
    Inflater,
    Overcharger,
    a_market,
    a_need,
    a_quote,
    an_offer,
    endless_haggler,
    honest_haggler,
    last_minute_haggler,
    stubborn_haggler,
)

OFFER = an_offer()  # asks 0.10
DEARER = an_offer("other", provider="q", price="0.20")


def _talk(haggler: Haggler, *others: Offer) -> Quote:
    (quote,) = RfqStrategy().negotiate(a_need(), [OFFER], a_market(haggler, offers=[OFFER, *others]))
    return quote


# -- the concession


@given(
    reservation=st.decimals("0.0001", "1000", places=4),
    rounds=st.integers(1, 20),
    opening=st.decimals("0.05", "1", places=2),
    patience=st.floats(0.2, 5),
)
def test_it_never_falls_and_ends_at_the_reservation_price(
    reservation: Decimal, rounds: int, opening: Decimal, patience: float
) -> None:
    steps = concession(reservation, rounds=rounds, opening=opening, patience=patience)
    assert len(steps) == rounds
    assert list(steps) == sorted(steps)
    assert steps[-1] == reservation
    assert all(0 < step <= reservation for step in steps)


def test_patience_decides_when_it_concedes() -> None:
    late, early = concession(Decimal(1), patience=3.0), concession(Decimal(1), patience=0.3)
    assert late[0] == early[0] == Decimal("0.8")
    assert all(a < b for a, b in zip(late[1:-1], early[1:-1], strict=True))


def test_the_reservation_price_is_the_ask_or_the_alternative() -> None:
    need = a_need()
    assert reservation_price(OFFER, need, [OFFER]) == Decimal("0.10")
    assert reservation_price(OFFER, need, [OFFER, DEARER]) == Decimal("0.10")
    cheaper = an_offer("other", provider="q", price="0.09")
    assert reservation_price(OFFER, need, [OFFER, cheaper]) == Decimal("0.09")


# -- counterparties of several characters


def test_an_honest_one_meets_it_part_of_the_way() -> None:
    haggler = honest_haggler()
    quote = _talk(haggler, DEARER)
    assert usd("0.09") <= quote.unit_price < usd("0.10")
    assert (quote.strategy, quote.price_ceiling) == ("rfq", quote.unit_price)
    proposals = [price for _, _, price in haggler.heard]
    assert proposals == sorted(proposals)
    assert len({key for key, _, _ in haggler.heard}) == 1


def test_a_counter_offer_is_taken_when_it_is_no_dearer_than_the_next_proposal() -> None:
    haggler = Haggler(lambda *_: Decimal("0.0817"))
    quote = _talk(haggler)
    following = concession(Decimal("0.10"))[1]
    assert quote.unit_price == usd("0.0817")
    assert Decimal("0.0817") <= following
    assert len(haggler.heard) == 1


def test_a_stubborn_one_gets_its_ask_and_no_more() -> None:
    haggler = stubborn_haggler()
    assert _talk(haggler).unit_price == usd("0.10")
    assert len(haggler.heard) == ROUNDS, "a rejection is not final"


def test_a_stubborn_one_that_is_too_dear_is_left() -> None:
    with pytest.raises(Declined, match=r"no agreement: it stands at 0\.10 USD, worth at most 0\.05"):
        _talk(stubborn_haggler(), an_offer("other", provider="q", price="0.05"))


def test_a_last_minute_one_is_waited_for() -> None:
    haggler = last_minute_haggler()
    quote = _talk(haggler)
    assert quote.unit_price <= usd("0.10")
    assert len(haggler.heard) == 6


def test_who_stops_listening_is_not_asked_again() -> None:
    haggler = Haggler(lambda number, ask, _: ask - Decimal(number) / 1000, rounds=2)
    assert _talk(haggler).unit_price == usd("0.098")
    assert len(haggler.heard) == 2


def test_counter_offers_that_never_end_end_after_the_rounds() -> None:
    haggler = endless_haggler()
    quote = _talk(haggler)
    assert len(haggler.heard) <= ROUNDS
    assert quote.unit_price <= usd("0.10")
    dearer_than_worth = endless_haggler()
    quote = _talk(dearer_than_worth, an_offer("other", provider="q", price="0.05"))
    assert len(dearer_than_worth.heard) == ROUNDS
    assert quote.unit_price < OFFER.price, "not worth it, but better than the posted price: the plan decides"
    assert max(price for _, _, price in dearer_than_worth.heard) <= Decimal("0.05"), "it proposes no more"


@pytest.mark.parametrize(
    ("cheat", "reason"),
    [
        (Climber, "its counter-offer went up from 0.096"),
        (Overcharger, "was accepted, but the quote asks"),
        (Inflater, "asked to pay 0.20 USD where at most 0.10 USD was agreed"),
    ],
)
def test_a_cheat_on_the_price_is_stopped(cheat: Callable[[], Haggler], reason: str) -> None:
    with pytest.raises(PriceMismatch, match=reason):
        _talk(cheat())


def test_an_answer_that_comes_too_late() -> None:
    class Late(Haggler):
        def _answer(self, *args: object, **fields: object) -> RfqAnswer:
            answer = super()._answer(*args, **fields)  # type: ignore[arg-type]
            return answer.model_copy(update={"quote": a_quote(OFFER, 1, a_need().term, usd("0.09"), lasts=-1)})

    with pytest.raises(QuoteExpired):
        _talk(Late(lambda *_: Decimal("0.09")))


def test_no_capacity_is_said_at_once() -> None:
    class SoldOut(Haggler):
        def propose(
            self, offer: Offer, quantity: int, price: Money, term: Interval, *, key: str, round_number: int
        ) -> RfqAnswer:
            raise InsufficientCapacity("none left")

    with pytest.raises(InsufficientCapacity):
        _talk(SoldOut(lambda *_: None))


def test_it_leaves_alone_what_is_not_talked_about() -> None:
    spot = an_offer("s", option=PurchaseOption.SPOT)
    assert RfqStrategy().negotiate(a_need(), [spot], a_market(stubborn_haggler())) == []
    assert RfqStrategy().negotiate(a_need(), [OFFER], a_market(Honest("p"))) == []


def test_a_resumed_round_goes_on_with_the_same_conversation() -> None:
    first, second = stubborn_haggler(), stubborn_haggler()
    _talk(first)
    _talk(second)
    assert [key for key, _, _ in first.heard] == [key for key, _, _ in second.heard]


def test_it_never_proposes_more_than_what_is_on_the_table() -> None:
    """One counter-offer, then nothing but rejections: the counter-offer still stands."""
    haggler = Haggler(lambda number, *_: Decimal("0.0875") if number == 1 else None)
    assert _talk(haggler).unit_price == usd("0.0875")
    assert max(price for _, _, price in haggler.heard) < Decimal("0.0875")
