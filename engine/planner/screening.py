"""Which pools an offer can serve, and in words why not."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from engine.model.capacity import Resources
from engine.model.ids import CellId
from engine.model.market import Offer, PurchaseOption, Quote
from engine.model.placement import Cell
from engine.planner.need import Needs
from engine.planner.packing import Room, room_of
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
    _slots: dict[Room, tuple[int, ...]] = field(default_factory=dict, compare=False, repr=False)
    _served: dict[tuple[int, ...], tuple[int, ...]] = field(default_factory=dict, compare=False, repr=False)

    def fit(self, offer: Offer) -> Fit:
        level = bisect_right(self._levels, offer.performance)
        spot = self._stores and offer.option is PurchaseOption.SPOT
        key = (offer.cell, offer.instance_type, room_of(offer.resources), level, offer.price.currency, spot)
        found = self._seen.get(key)
        if found is None:
            found = self._seen[key] = self._fit(offer)
        if found.pools:
            return Fit((), found.slots, "capacity: none available") if offer.available == 0 else found
        # What is said of a performance is of this offer's own.
        return self._fit(offer) if found.reason.startswith("performance") else found

    @cached_property
    def _stores(self) -> bool:
        """Whether any pool holds data, which must not be on what its provider may take back."""
        return any(kind.is_storage for kind in self.needs.kinds)

    @cached_property
    def _levels(self) -> list[float]:
        """Least performances that are asked for, ascending."""
        return sorted({kind.min_performance for kind in self.needs.kinds})

    def slots(self, resources: Resources) -> tuple[int, ...]:
        """How many slices of each shape one such unit carries, alone."""
        room = room_of(resources)
        if room not in self._slots:
            self._slots[room] = tuple(resources.holds(shape) for shape in self.needs.shapes)
        return self._slots[room]

    def _fit(self, offer: Offer) -> Fit:
        slots = self.slots(offer.resources)
        refused = self._refused(offer)
        if refused:
            return Fit((), slots, refused)
        if not self.needs.pools:
            return Fit((), slots, "not needed: no pool asks for anything")
        placed = [kind for kind in self.needs.kinds if kind.placement.allows(offer.provider, offer.region)]
        if not placed:
            return Fit((), slots, f"placement: no pool may live at {offer.provider} in {offer.region}")
        large = [kind for kind in placed if slots[kind.shape] > 0]
        if not large:
            return Fit((), slots, self._too_small(offer, sorted(kind.pools[0] for kind in placed)))
        if offer.option is PurchaseOption.SPOT:
            large = [kind for kind in large if not kind.is_storage]
            if not large:
                return Fit((), slots, "risk: data must not be on what its provider may take back")
        fast = [kind for kind in large if offer.performance >= kind.min_performance]
        if not fast:
            least = min(kind.min_performance for kind in large)
            return Fit((), slots, f"performance: {offer.performance:.2f} below the {least:.2f} that is asked for")
        pools = tuple(sorted(pool for kind in fast for pool in kind.pools))
        return Fit(self._served.setdefault(pools, pools), slots)

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
