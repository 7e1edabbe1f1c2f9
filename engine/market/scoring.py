"""Cost, performance and reliability of offers on one scale, from the same evidence. Pure.

Each part lies in (0, 1]: cost is the cheapest price per slice over this one's, performance this score over the best,
reliability the probability that a unit outlives the term. The score is their mean under the user's weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median_low
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
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

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

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


@dataclass(frozen=True)
class Columns:
    """What many offers are scored by, read once: a market may have a hundred thousand, of few distinct sizes."""

    offers: Sequence[Offer]
    by_id: IntArray
    """Place of each offer in the order of ids."""
    sizes: tuple[Resources, ...]
    size: IntArray
    price: FloatArray
    speed: FloatArray
    lost: FloatArray

    @classmethod
    @collection_paused()
    def of(cls, offers: Sequence[Offer]) -> "Columns":
        sizes: dict[tuple[float, float, float, float], int] = {}
        size, distinct = [], []
        for offer in offers:
            of = offer.resources
            key = (of.vcpus, of.memory_gib, of.storage_iops, of.network_mbps)
            if key not in sizes:
                sizes[key] = len(sizes)
                distinct.append(of)
            size.append(sizes[key])
        return cls(
            offers=offers,
            by_id=np.argsort(np.argsort(np.array([offer.id for offer in offers]))),
            sizes=tuple(distinct),
            size=np.array(size, dtype=np.int64),
            price=np.array([float(expected_price(offer).amount) for offer in offers]),
            speed=np.array([offer.performance for offer in offers]),
            lost=np.array([lost_in_a_month(offer) for offer in offers]),
        )

    def scored(self, among: IntArray, slice_: Resources, hours: float, weights: ScoreWeights) -> "Scores":
        """Best first; equal scores in order of id. Offers that do not carry a slice are left out."""
        held = np.array([size.holds(slice_) for size in self.sizes], dtype=np.int64)[self.size[among]]
        at = among[held > 0]
        if not len(at):
            return Scores(at, *(np.empty(0) for _ in range(4)))
        price, speed = self.price[at] / held[held > 0], self.speed[at]
        with np.errstate(divide="ignore", invalid="ignore"):
            cost = np.where(price > 0, price.min() / price, 1.0)
        performance = speed / speed.max()
        reliability = (1 - self.lost[at]) ** _months(hours)
        total = weights.cost + weights.performance + weights.reliability
        score = weights.cost * cost + weights.performance * performance + weights.reliability * reliability
        score = np.minimum(1.0, score / total)
        order = np.lexsort((self.by_id[at], -score))
        return Scores(at[order], cost[order], performance[order], reliability[order], score[order])


@dataclass(frozen=True)
class Scores:
    """``at``: which offers of the columns."""

    at: IntArray
    cost: FloatArray
    performance: FloatArray
    reliability: FloatArray
    score: FloatArray


@collection_paused()
def rank(offers: Sequence[Offer], need: Need, weights: ScoreWeights) -> tuple[ScoredOffer, ...]:
    """Best first; equal scores in order of id. Offers that do not carry a slice are left out."""
    found = Columns.of(offers).scored(np.arange(len(offers)), need.slice, need.term.hours, weights)
    parts = (found.cost, found.performance, found.reliability, found.score)
    rows = zip(*(part.tolist() for part in parts), strict=True)
    return tuple(ScoredOffer(offers[at], *row) for at, row in zip(found.at.tolist(), rows, strict=True))
