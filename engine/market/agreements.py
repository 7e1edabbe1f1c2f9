"""Negotiated prices: what a provider's list does not tell, but the customer's contract with it does.

A discount lowers an offer's price to what is really paid, so that ranking, negotiating and planning see it; the posted
price is kept beside it. The provider still quotes its list price: the quote is settled at the same share of it. Pure.
"""

from collections.abc import Sequence
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal
from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import Field

from engine.market.discovery import MarketView
from engine.model.market import Offer, PurchaseOption, Quote
from engine.model.money import Money
from engine.model.value import Utc, Value

_STEP = Decimal("0.000000001")


class Agreement(Value):
    """A share off the posted price of one provider. An empty tuple means any."""

    provider: str
    discount: Annotated[Decimal, Field(gt=0, lt=1)]
    instance_types: tuple[str, ...] = ()
    """Shell patterns, e.g. ``m7*``."""
    regions: tuple[str, ...] = ()
    options: tuple[PurchaseOption, ...] = (PurchaseOption.ON_DEMAND,)
    until: Utc | None = None

    def covers(self, offer: Offer, now: datetime) -> bool:
        return (
            offer.provider == self.provider
            and offer.option in self.options
            and (not self.regions or offer.region in self.regions)
            and (not self.instance_types or any(fnmatchcase(offer.instance_type, one) for one in self.instance_types))
            and (self.until is None or now < self.until)
        )


def with_agreements(view: MarketView, agreements: Sequence[Agreement]) -> MarketView:
    """Every covered offer at its agreed price; of several agreements the best one counts, they do not add up."""
    if not agreements:
        return view
    offers = tuple(_agreed(offer, agreements, view.made_at) for offer in view.offers)
    return view.model_copy(update={"offers": offers})


def listed(offer: Offer) -> Offer:
    """As its provider posted it."""
    if offer.list_price is None:
        return offer
    return offer.model_copy(update={"price": offer.list_price, "list_price": None})


def settled(quote: Quote, offer: Offer) -> Quote:
    """A quote at the provider's list price, at the agreed share of it."""
    if offer.list_price is None or quote.unit_price.currency != offer.price.currency:
        return quote
    price = _share_of(quote.unit_price, offer.price.amount / offer.list_price.amount)
    return quote.model_copy(update={"unit_price": price})


def _agreed(offer: Offer, agreements: Sequence[Agreement], now: datetime) -> Offer:
    discount = max((one.discount for one in agreements if one.covers(offer, now)), default=None)
    if discount is None:
        return offer
    return offer.model_copy(update={"price": _share_of(offer.price, 1 - discount), "list_price": offer.price})


def _share_of(price: Money, share: Decimal) -> Money:
    return Money(amount=(price.amount * share).quantize(_STEP, rounding=ROUND_HALF_EVEN), currency=price.currency)
