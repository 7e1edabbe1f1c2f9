"""Cost, performance and reliability of offers on one scale, from the same evidence. Pure.

Each part lies in (0, 1]: cost is the cheapest price per slice over this one's, performance this score over the best,
reliability the probability that a unit outlives the term. The score is their mean under the user's weights.
"""

from collections.abc import Sequence
from statistics import median_low
from typing import Annotated, Self

from pydantic import Field, model_validator

from engine.market.base import Need
from engine.model.capacity import Probability, Resources
from engine.model.market import Offer, PurchaseOption
from engine.model.money import Money
from engine.model.value import Value

HOURS_PER_MONTH = 730.0
_UNPUBLISHED_INTERRUPTION = {PurchaseOption.SPOT: 0.15}
_USUAL_INTERRUPTION = 0.005
_RELIABLE_ENOUGH = 1e-3

Weight = Annotated[float, Field(ge=0)]


class ScoreWeights(Value):
    """Relative; they need not sum to one."""

    cost: Weight = 0.7
    performance: Weight = 0.1
    reliability: Weight = 0.2

    @model_validator(mode="after")
    def _something_counts(self) -> Self:
        if self.cost + self.performance + self.reliability <= 0:
            raise ValueError("at least one weight must be above 0")
        return self


class ScoredOffer(Value):
    offer: Offer
    cost: Probability
    performance: Probability
    reliability: Probability
    score: Probability


def expected_price(offer: Offer) -> Money:
    """Per unit-hour: what is asked; for an auction the usual clearing price, where it is known."""
    if offer.option is not PurchaseOption.AUCTION:
        return offer.price
    cleared = [point.price for point in offer.price_history if point.price.currency == offer.price.currency]
    usual = Money(
        amount=median_low([price.amount for price in cleared] or [offer.price.amount]), currency=offer.price.currency
    )
    return max(usual, offer.price, key=lambda price: price.amount)


def survival(offer: Offer, hours: float) -> float:
    """Probability that a unit is not taken back within ``hours``, from the share lost in a month."""
    lost = offer.reliability.interruption_per_month
    if lost is None:
        lost = _UNPUBLISHED_INTERRUPTION.get(offer.option, _USUAL_INTERRUPTION)
    return float((1 - lost) ** (max(hours, 0.0) / HOURS_PER_MONTH))


def price_per_slice(offer: Offer, slice_: Resources) -> float | None:
    """Expected; None where not one slice fits."""
    slices = offer.resources.holds(slice_)
    return float(expected_price(offer).amount) / slices if slices else None


def risk_adjusted(price: float, alive: float) -> float:
    """What a price comes to when lost units have to be bought again."""
    return price / max(alive, _RELIABLE_ENOUGH)


def rank(offers: Sequence[Offer], need: Need, weights: ScoreWeights) -> tuple[ScoredOffer, ...]:
    """Best first; equal scores in order of id. Offers that do not carry a slice are left out."""
    priced = [(offer, price) for offer in offers if (price := price_per_slice(offer, need.slice)) is not None]
    if not priced:
        return ()
    cheapest = min(price for _, price in priced)
    fastest = max(offer.performance for offer, _ in priced)
    total = weights.cost + weights.performance + weights.reliability
    scored = []
    for offer, price in priced:
        cost = cheapest / price if price > 0 else 1.0
        performance, reliability = offer.performance / fastest, survival(offer, need.term.hours)
        score = weights.cost * cost + weights.performance * performance + weights.reliability * reliability
        scored.append(
            ScoredOffer(
                offer=offer,
                cost=cost,
                performance=performance,
                reliability=reliability,
                score=min(1.0, score / total),
            )
        )
    return tuple(sorted(scored, key=lambda one: (-one.score, one.offer.id)))
