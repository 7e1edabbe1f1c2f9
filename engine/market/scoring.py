"""Cost, performance and reliability of offers on one scale, from the same evidence. Pure.

Each part lies in (0, 1]: cost is the cheapest price per slice over this one's, performance this score over the best,
reliability the probability that a unit outlives the term. The score is their mean under the user's weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median_low
from typing import Annotated, Self

import numpy as np
from pydantic import Field, model_validator

from engine.collection import collection_paused
from engine.market.base import Need
from engine.model.capacity import Resources
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


@dataclass(frozen=True, slots=True)
class ScoredOffer:
    """Each part and the score lie in (0, 1]."""

    offer: Offer
    cost: float
    performance: float
    reliability: float
    score: float


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
    return float((1 - lost_in_a_month(offer)) ** _months(hours))


def lost_in_a_month(offer: Offer) -> float:
    """Share of units taken back within a month: as it is known, else what is usual for the purchase option."""
    lost = offer.reliability.interruption_per_month
    return _UNPUBLISHED_INTERRUPTION.get(offer.option, _USUAL_INTERRUPTION) if lost is None else lost


def _months(hours: float) -> float:
    return max(hours, 0.0) / HOURS_PER_MONTH


def price_per_slice(offer: Offer, slice_: Resources) -> float | None:
    """Expected; None where not one slice fits."""
    slices = offer.resources.holds(slice_)
    return float(expected_price(offer).amount) / slices if slices else None


def risk_adjusted(price: float, alive: float) -> float:
    """What a price comes to when lost units have to be bought again."""
    return price / max(alive, _RELIABLE_ENOUGH)


@collection_paused()
def rank(offers: Sequence[Offer], need: Need, weights: ScoreWeights) -> tuple[ScoredOffer, ...]:
    """Best first; equal scores in order of id. Offers that do not carry a slice are left out.

    In columns: a market may have a hundred thousand offers, of few distinct sizes.
    """
    slices: dict[tuple[float, float, float, float], int] = {}
    fitting: list[Offer] = []
    prices: list[float] = []
    for offer in offers:
        size = offer.resources
        key = (size.vcpus, size.memory_gib, size.storage_iops, size.network_mbps)
        count = slices.get(key)
        if count is None:
            count = slices[key] = size.holds(need.slice)
        if count:
            fitting.append(offer)
            prices.append(float(expected_price(offer).amount) / count)
    if not fitting:
        return ()
    price, speed = np.array(prices), np.array([offer.performance for offer in fitting])
    with np.errstate(divide="ignore", invalid="ignore"):
        cost = np.where(price > 0, price.min() / price, 1.0)
    performance = speed / speed.max()
    reliability = (1 - np.array([lost_in_a_month(offer) for offer in fitting])) ** _months(need.term.hours)
    total = weights.cost + weights.performance + weights.reliability
    score = weights.cost * cost + weights.performance * performance + weights.reliability * reliability
    score = np.minimum(1.0, score / total)
    order = np.lexsort((np.array([offer.id for offer in fitting]), -score))
    rows = zip(cost.tolist(), performance.tolist(), reliability.tolist(), score.tolist(), strict=True)
    scored = [ScoredOffer(offer, *row) for offer, row in zip(fitting, rows, strict=True)]
    return tuple(scored[position] for position in order.tolist())
