"""The purchases worth weighing: quotes that fit, without those that another one beats in everything."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import ceil

from engine.model.capacity import Resources
from engine.model.market import PurchaseOption, Quote
from engine.planner.need import Needs
from engine.planner.packing import Pattern, patterns
from engine.planner.policy import PlanPolicy
from engine.planner.screening import Screen, quote_refused

_MOST_GROUPS = 8
"""Correlation groups kept per provider and shape: beyond a few, spreading further buys almost nothing."""


@dataclass(frozen=True)
class Supply:
    """Shards that are alike to the programme: same provider, same fate, same pools."""

    provider: str
    spot: bool
    group: str | None
    """Correlation group of units that may be reclaimed; None: they stay."""
    pools: tuple[int, ...]
    _hash: int = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.provider, self.spot, self.group, self.pools)))

    def __hash__(self) -> int:
        """Taken once: pools may be a thousand."""
        return self._hash


@dataclass(frozen=True)
class Candidate:
    quote: Quote
    supply: Supply
    slots: tuple[int, ...]
    """Most slices of each shape on one unit (0 for shapes none of its pools wants)."""
    patterns: tuple[Pattern, ...]
    price: float
    score: float
    """Price weighed with performance and reliability; per unit-hour."""
    loss: float
    """Probability that a unit is reclaimed within the horizon."""
    most: int
    """Units beyond this are of no use."""


def loss_within(quote: Quote, hours: float) -> float:
    return float(1 - quote.survival ** (hours / max(quote.term.hours, 1e-9)))


def score_of(quote: Quote, policy: PlanPolicy) -> float:
    weights = policy.weights
    reliability = max(quote.survival, 1e-3) ** weights.reliability
    return float(quote.unit_price.amount) / float(quote.offer.performance**weights.performance * reliability)


@dataclass(frozen=True)
class _Usable:
    """What is to be known of a quote before it is worth a candidate."""

    quote: Quote
    supply: Supply
    slots: tuple[int, ...]
    price: float
    score: float
    loss: float
    most: int
    useful: int
    """Units beyond this are of no use."""


def find_candidates(
    policy: PlanPolicy, needs: Needs, screen: Screen, quotes: Sequence[Quote], now: datetime
) -> tuple[Candidate, ...]:
    """Cheapest first; equal prices in order of the quote's id, so that equal markets give equal plans."""
    usable = [found for found in _usable(policy, needs, screen, quotes, now) if found.most > 0]
    usable.sort(key=lambda one: (one.score, one.quote.id))
    shared: dict[tuple[Resources, tuple[bool, ...]], tuple[Pattern, ...]] = {}
    found = []
    for one in _few_groups(_undominated(usable)):
        key = (one.quote.offer.resources, _wanted(needs, one.supply.pools))
        if key not in shared:
            shared[key] = patterns(key[0], needs.shapes, key[1])
        found.append(
            Candidate(
                quote=one.quote,
                supply=one.supply,
                slots=tuple(max(counts) for counts in zip(*shared[key], strict=True)),
                patterns=shared[key],
                price=one.price,
                score=one.score,
                loss=one.loss,
                most=one.most,
            )
        )
    return tuple(found)


def _wanted(needs: Needs, pools: Sequence[int]) -> tuple[bool, ...]:
    shapes = {needs.pools[index].shape for index in pools}
    return tuple(index in shapes for index in range(len(needs.shapes)))


def _usable(
    policy: PlanPolicy, needs: Needs, screen: Screen, quotes: Sequence[Quote], now: datetime
) -> Iterator[_Usable]:
    demands: dict[tuple[int, ...], list[int]] = {}
    sizes: dict[tuple[tuple[int, ...], tuple[int, ...]], tuple[tuple[int, ...], int]] = {}
    supplies: dict[tuple[str, bool, str | None, int], Supply] = {}
    for quote in quotes:
        offer = quote.offer
        fit = screen.fit(offer)
        if not fit.pools or quote_refused(quote, policy, now):
            continue
        loss = loss_within(quote, needs.hours)
        spot, group = offer.option is PurchaseOption.SPOT, offer.reliability.correlation_group if loss > 1e-9 else None
        key = (offer.provider, spot, group, id(fit.pools))  # the screen gives equal pools as one and the same tuple
        supply = supplies.get(key)
        if supply is None:
            supply = supplies[key] = Supply(offer.provider, spot, group, fit.pools)
        if supply.pools not in demands:
            demands[supply.pools] = _demands(needs, supply.pools)
        size = (supply.pools, fit.slots)
        if size not in sizes:
            slots = tuple(count if asked else 0 for count, asked in zip(fit.slots, demands[supply.pools], strict=True))
            asked = zip(demands[supply.pools], slots, strict=True)
            sizes[size] = (slots, sum(ceil(2 * most / count) for most, count in asked if count))
        slots, useful = sizes[size]
        available = quote.quantity if offer.available is None else min(offer.available, quote.quantity)
        yield _Usable(
            quote=quote,
            supply=supply,
            slots=slots,
            price=float(quote.unit_price.amount),
            score=score_of(quote, policy),
            loss=loss,
            most=min(available, useful),
            useful=useful,
        )


def _demands(needs: Needs, pools: Sequence[int]) -> list[int]:
    """By shape, the most shards that these pools can want."""
    most = [0] * len(needs.shapes)
    for pool in pools:
        most[needs.pools[pool].shape] += needs.pools[pool].most
    return most


def _beats(one: _Usable, other: _Usable) -> bool:
    """At least as good in everything that the programme can see; both are of one supply."""
    mine, its = one.quote.offer.resources, other.quote.offer.resources
    return (
        one.score <= other.score
        and one.price <= other.price
        and one.loss <= other.loss
        and (
            mine == its
            or (
                mine.vcpus >= its.vcpus
                and mine.memory_gib >= its.memory_gib
                and mine.storage_iops >= its.storage_iops
                and mine.network_mbps >= its.network_mbps
            )
        )
    )


def _undominated(ordered: Iterable[_Usable]) -> list[_Usable]:
    """Drop what enough better units of the same supply make superfluous. Changes no optimum. Those of the very same
    size are looked at first: in a large market they are most of what is dropped.
    """
    kept: list[_Usable] = []
    by_supply: dict[int, list[_Usable]] = {}
    by_size: dict[tuple[int, Resources], list[_Usable]] = {}
    for one in ordered:
        alike = by_size.setdefault((id(one.supply), one.quote.offer.resources), [])
        if _enough(alike, one):
            continue
        rivals = by_supply.setdefault(id(one.supply), [])
        if not _enough(rivals, one):
            alike.append(one)
            rivals.append(one)
            kept.append(one)
    return kept


def _enough(rivals: Iterable[_Usable], one: _Usable) -> bool:
    better = 0
    for rival in rivals:
        if _beats(rival, one):
            better += rival.most
            if better >= one.useful:
                return True
    return False


def _few_groups(ordered: Sequence[_Usable]) -> list[_Usable]:
    """Of the units that may be reclaimed, keep each provider's cheapest correlation groups, shape by shape."""
    chosen: dict[tuple[str, int], list[str]] = {}
    for shape in range(max((len(candidate.slots) for candidate in ordered), default=0)):
        carrying = [c for c in ordered if c.supply.group is not None and c.slots[shape] > 0]
        for candidate in sorted(carrying, key=lambda c: (c.score / c.slots[shape], c.quote.id)):
            groups = chosen.setdefault((candidate.supply.provider, shape), [])
            group = candidate.supply.group
            if group is not None and group not in groups and len(groups) < _MOST_GROUPS:
                groups.append(group)
    kept = {(provider, group) for (provider, _), groups in chosen.items() for group in groups}
    return [c for c in ordered if c.supply.group is None or (c.supply.provider, c.supply.group) in kept]
