from datetime import timedelta
from decimal import Decimal

import pytest

from engine.errors import PriceMismatch
from engine.market.agreements import Agreement, listed, settled, with_agreements
from engine.market.discovery import MarketView
from engine.market.fixed_price import FixedPriceStrategy
from engine.market.rfq import RfqStrategy
from engine.market.scoring import ScoreWeights, rank
from engine.model.market import Offer, PurchaseOption, Quote
from engine.model.money import usd
from engine.model.value import Interval
from tests.unit.engine.market.counterparties import (
    NOW,
    Cheat,
    Honest,
    a_market,
    a_need,
    a_quote,
    an_offer,
    honest_haggler,
)

THIRTY = Agreement(provider="p", discount=Decimal("0.3"))


def _view(*offers: Offer) -> MarketView:
    return MarketView(offers=offers, rejections=(), failures=(), made_at=NOW)


def _agreed(offer: Offer, *agreements: Agreement) -> Offer:
    (found,) = with_agreements(_view(offer), agreements).offers
    return found


def test_a_covered_offer_costs_what_is_agreed_and_keeps_its_list_price() -> None:
    offer = _agreed(an_offer(), THIRTY)
    assert (offer.price, offer.list_price) == (usd("0.070000000"), usd("0.10"))
    assert listed(offer) == an_offer()


@pytest.mark.parametrize(
    "agreement",
    [
        Agreement(provider="q", discount=Decimal("0.3")),
        Agreement(provider="p", discount=Decimal("0.3"), regions=("elsewhere",)),
        Agreement(provider="p", discount=Decimal("0.3"), instance_types=("m7*",)),
        Agreement(provider="p", discount=Decimal("0.3"), options=(PurchaseOption.SPOT,)),
        Agreement(provider="p", discount=Decimal("0.3"), until=NOW),
    ],
)
def test_what_is_not_covered_stays_as_it_is(agreement: Agreement) -> None:
    assert _agreed(an_offer(), agreement) == an_offer()


def test_the_best_agreement_counts_and_they_do_not_add_up() -> None:
    special = Agreement(
        provider="p", discount=Decimal("0.4"), instance_types=("t.*",), regions=("r",), until=NOW + timedelta(days=1)
    )
    assert _agreed(an_offer(), THIRTY, special).price == usd("0.060000000")


def test_it_is_ranked_bought_and_capped_at_what_is_agreed() -> None:
    agreed, other = _agreed(an_offer(), THIRTY), an_offer("other", provider="q", price="0.08")
    assert [one.offer.id for one in rank([other, agreed], a_need(), ScoreWeights())] == ["o1", "other"]
    honest = Honest("p")
    (quote,) = FixedPriceStrategy().negotiate(a_need(), [agreed], a_market(honest))
    assert quote.unit_price == quote.price_ceiling == usd("0.070000000")
    assert quote.offer == agreed


def test_a_provider_that_raised_its_list_price_is_stopped() -> None:
    with pytest.raises(PriceMismatch):
        FixedPriceStrategy().negotiate(a_need(), [_agreed(an_offer(), THIRTY)], a_market(Cheat("p")))


def test_the_provider_is_asked_for_what_it_posted() -> None:
    asked: list[Offer] = []

    class Noting(Honest):
        def quote(self, offer: Offer, quantity: int, term: Interval) -> Quote:
            asked.append(offer)
            return super().quote(offer, quantity, term)

    FixedPriceStrategy().negotiate(a_need(), [_agreed(an_offer(), THIRTY)], a_market(Noting("p")))
    assert asked == [an_offer()]


def test_an_agreed_price_is_not_talked_about_again() -> None:
    haggler = honest_haggler()
    assert RfqStrategy().negotiate(a_need(), [_agreed(an_offer(), THIRTY)], a_market(haggler)) == []
    assert haggler.heard == []


def test_without_an_agreement_a_quote_is_what_it_is() -> None:
    quote = a_quote(an_offer(), 1, a_need().term, usd("0.10"))
    assert settled(quote, an_offer()) == quote
