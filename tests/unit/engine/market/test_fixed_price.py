import pytest

from engine.errors import InsufficientCapacity, PriceMismatch, ProviderUnavailable, QuoteExpired
from engine.market.fixed_price import FixedPriceStrategy
from engine.model.market import PurchaseOption
from tests.unit.engine.market.counterparties import (
    Cheat,
    Honest,
    LastMinute,
    Silent,
    Stubborn,
    Switcher,
    a_market,
    a_need,
    an_offer,
)


def test_takes_the_posted_price_and_names_itself() -> None:
    (quote,) = FixedPriceStrategy().negotiate(a_need(units=3), [an_offer(available=2)], a_market(Honest()))
    assert (quote.strategy, quote.quantity, quote.unit_price) == ("fixed_price", 2, an_offer().price)
    assert quote.price_ceiling == an_offer().price


def test_commitments_too_but_neither_spot_nor_auctions() -> None:
    offers = [an_offer(option.value, option=option) for option in PurchaseOption]
    quotes = FixedPriceStrategy().negotiate(a_need(), offers, a_market(Honest()))
    assert [quote.offer.id for quote in quotes] == ["on_demand", "commitment"]


@pytest.mark.parametrize(
    ("counterparty", "error"),
    [
        (Stubborn(), InsufficientCapacity),
        (Silent(), ProviderUnavailable),
        (Cheat(), PriceMismatch),
        (Switcher(), PriceMismatch),
        (LastMinute(), QuoteExpired),
    ],
)
def test_what_goes_wrong_has_a_name(counterparty: Honest, error: type[Exception]) -> None:
    with pytest.raises(error):
        FixedPriceStrategy().negotiate(a_need(), [an_offer()], a_market(counterparty))
