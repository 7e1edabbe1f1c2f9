"""Which pools an offer can serve, and in words why not."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from engine.model.ids import CellId
from engine.model.market import Offer, Quote
from engine.model.placement import Cell
from engine.planner.need import Needs
from engine.planner.policy import PlanPolicy


@dataclass(frozen=True)
class Fit:
    pools: tuple[int, ...]
    """Indices of the pools that it can serve."""
    slots: tuple[int, ...]
    """How many slices of each shape one unit carries, alone."""
    reason: str = ""
    """Why it serves none."""


@dataclass(frozen=True)
class Screen:
    policy: PlanPolicy
    needs: Needs
    cells: dict[CellId, Cell]
    _seen: dict[tuple[object, ...], Fit] = field(default_factory=dict, compare=False, repr=False)

    def fit(self, offer: Offer) -> Fit:
        key = (offer.cell, offer.instance_type, offer.resources, offer.performance, offer.price.currency)
        if key not in self._seen:
            self._seen[key] = self._fit(offer)
        found = self._seen[key]
        if found.pools and offer.available == 0:
            return Fit((), found.slots, "capacity: none available")
        return found

    def _fit(self, offer: Offer) -> Fit:
        slots = tuple(offer.resources.holds(shape) for shape in self.needs.shapes)
        refused = self._refused(offer)
        if refused:
            return Fit((), slots, refused)
        pools = self.needs.pools
        if not pools:
            return Fit((), slots, "not needed: no pool asks for anything")
        placed = [i for i, pool in enumerate(pools) if pool.target.pool.placement.allows(offer.provider, offer.region)]
        if not placed:
            return Fit((), slots, f"placement: no pool may live at {offer.provider} in {offer.region}")
        large = [i for i in placed if slots[pools[i].shape] > 0]
        if not large:
            return Fit((), slots, self._too_small(offer, placed))
        fast = [i for i in large if offer.performance >= pools[i].target.pool.shard_type.min_performance]
        if not fast:
            least = min(pools[i].target.pool.shard_type.min_performance for i in large)
            return Fit((), slots, f"performance: {offer.performance:.2f} below the {least:.2f} that is asked for")
        return Fit(tuple(fast), slots)

    def _refused(self, offer: Offer) -> str:
        policy = self.policy
        if offer.cell not in self.cells:
            return f"policy: {offer.cell} is not a configured cell"
        if not policy.allows_region(offer.region):
            return f"policy: region {offer.region} is not allowed"
        if not policy.allows_instance_type(offer.instance_type):
            return f"policy: instance family of {offer.instance_type} is not allowed"
        if offer.price.currency != policy.currency:
            return f"policy: priced in {offer.price.currency}, plans are made in {policy.currency}"
        return ""

    def _too_small(self, offer: Offer, placed: Sequence[int]) -> str:
        smallest = min(
            (self.needs.pools[i].target.pool.shard_type for i in placed),
            key=lambda shard_type: shard_type.resources.vcpus,
        )
        asked, has = smallest.resources, offer.resources
        missing = [
            f"{name} {getattr(has, name):g} of {getattr(asked, name):g}"
            for name in ("vcpus", "memory_gib", "storage_iops", "network_mbps")
            if getattr(has, name) < getattr(asked, name)
        ]
        return f"too small: {', '.join(missing)} for one {smallest.name}"


def quote_refused(quote: Quote, policy: PlanPolicy, now: datetime) -> str:
    """Why a quote may not be bought on; empty when it may."""
    if quote.expires_at <= now:
        return f"no quote: it expired at {quote.expires_at:%H:%M:%S}"
    if quote.unit_price.currency != policy.currency:
        return f"policy: quoted in {quote.unit_price.currency}, plans are made in {policy.currency}"
    if quote.unit_price.amount < 0:
        return "policy: a negative price"
    if quote.price_ceiling < quote.unit_price:
        return f"policy: {quote.unit_price} is above the quote's own ceiling of {quote.price_ceiling}"
    return ""
