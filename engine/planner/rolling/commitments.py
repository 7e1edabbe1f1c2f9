"""How much to commit to: the base that would otherwise be bought dearer, over the steps that are left."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.planner.rolling.offers import StepOffer
from engine.planner.rolling.sizing import Array, SupplyCurve

LEVELS = (0.85, 1.0, 1.15)
"""Demand of the term may lie this much below or above that of the past: each counts alike."""
MOST_UNITS = 1_000_000


@dataclass(frozen=True)
class Committed:
    shards: int
    steps_left: int


@dataclass(frozen=True)
class Commitment:
    offer: str
    units: int


def commitments_for(
    offers: Sequence[StepOffer],
    capacity: Array,
    curve: SupplyCurve,
    running: Sequence[Committed],
    *,
    steps_left: int,
) -> tuple[Commitment, ...]:
    """``capacity`` (moments,) that would have been bought at each moment of the past.

    A unit is worth, at each moment, the price of the last shard that it makes unnecessary, and nothing where less is
    needed. What reaches beyond ``steps_left`` is paid for and of no use. The cheapest terms are filled first.
    """
    needed = np.concatenate([capacity * level for level in LEVELS])
    existing, bought = list(running), []

    def price(offer: StepOffer) -> float:
        return offer.price * offer.term / min(offer.term, steps_left)

    for offer in sorted((o for o in offers if o.term), key=lambda o: (price(o), o.id)):
        lasting = sum(c.shards for c in existing if c.steps_left >= 0.5 * min(offer.term, steps_left))
        units = _units_worth(offer, price(offer), needed, curve, lasting)
        if units:
            bought.append(Commitment(offer.id, units))
            existing.append(Committed(units * offer.shards, offer.term))
    return tuple(bought)


def _units_worth(offer: StepOffer, price: float, needed: Array, curve: SupplyCurve, lasting: int) -> int:
    """By bisection: what one more unit saves falls with every unit."""

    def saves(units: int) -> float:
        return float(curve.marginal(needed - lasting - (units + 0.5) * offer.shards).mean())

    if saves(0) <= price:
        return 0
    low, high = 0, 1
    while high < MOST_UNITS and saves(high) > price:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if saves(middle) > price else (low, middle)
    return min(high, MOST_UNITS)
