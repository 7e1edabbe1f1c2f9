"""How much capacity is worth buying when demand is a distribution and supply gets dearer with every shard."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from engine.planner.rolling.offers import StepOffer

Array = NDArray[np.float64]
PLENTY = 1e9
"""Shards that an offer without a limit stands for."""


@dataclass(frozen=True)
class SupplyCurve:
    """Ascending ``prices`` per shard and step, with the ``shards`` that each buys."""

    prices: Array
    shards: Array

    @cached_property
    def ends(self) -> Array:
        return self.shards.cumsum()

    @cached_property
    def _costs(self) -> Array:
        return np.concatenate([[0.0], (self.prices * self.shards).cumsum()])

    def marginal(self, capacity: Array) -> Array:
        """Price of the last shard of each capacity; 0 for none."""
        index = np.searchsorted(self.ends, capacity, side="left").clip(max=len(self.prices) - 1)
        return np.asarray(np.where(capacity > 0, self.prices[index], 0.0), dtype=np.float64)

    def cheaper_than(self, price: float) -> float:
        """Shards; what costs as much or more is never worth it, however sure the need."""
        count = int(np.searchsorted(self.prices, price, side="left"))
        return float(self.ends[count - 1]) if count else 0.0

    def cost(self, capacity: Array) -> Array:
        return np.asarray(np.interp(capacity, np.concatenate([[0.0], self.ends]), self._costs), dtype=np.float64)


def supply_curve(offers: Sequence[StepOffer], held_units: Sequence[int], move_cost: float) -> SupplyCurve:
    """Of what is held and what is believed to be free; commitments are not part of it."""
    rungs = sorted(
        (offer.cost(move_cost), min((held + offer.free_units) * offer.shards, PLENTY))
        for offer, held in zip(offers, held_units, strict=True)
        if not offer.term
    )
    return SupplyCurve(np.array([price for price, _ in rungs]), np.array([shards for _, shards in rungs]))


def capacities(demand: Array, shortfall_prices: Sequence[float], curve: SupplyCurve) -> Array:
    """Shape (prices, moments): for each row of ``demand`` (moments, samples ascending) the capacity at which one more
    shard costs more than it is expected to save, a missing shard being worth the price (newsvendor)."""
    count = demand.shape[1]
    above = 1 - (np.arange(count) + 1) / count
    marginal = curve.marginal(demand)
    rows = np.arange(len(demand))
    chosen = [
        np.minimum(demand[rows, (price * above[None] <= marginal).argmax(axis=1)], curve.cheaper_than(price))
        for price in shortfall_prices
    ]
    return np.asarray(np.ceil(np.maximum(np.stack(chosen), 0.0)), dtype=np.float64)
