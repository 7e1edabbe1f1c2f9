"""The purchases worth weighing: quotes that fit, without those that another one beats in everything."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from math import ceil

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


def find_candidates(
    policy: PlanPolicy, needs: Needs, screen: Screen, quotes: Sequence[Quote], now: datetime
) -> tuple[Candidate, ...]:
    """Cheapest first; equal prices in order of the quote's id, so that equal markets give equal plans."""
    found = []
    shared: dict[tuple[object, ...], tuple[Pattern, ...]] = {}
    for quote in quotes:
        fit = screen.fit(quote.offer)
        if not fit.pools or quote_refused(quote, policy, now):
            continue
        wanted = _wanted(needs, fit.pools)
        key = (quote.offer.resources, wanted)
        if key not in shared:
            shared[key] = patterns(quote.offer.resources, needs.shapes, wanted)
        candidate = _candidate(policy, needs, quote, fit.pools, shared[key])
        if candidate.most > 0:
            found.append(candidate)
    found.sort(key=lambda candidate: (candidate.score, candidate.quote.id))
    return _few_groups(_undominated(needs, found))


def _wanted(needs: Needs, pools: Sequence[int]) -> tuple[bool, ...]:
    shapes = {needs.pools[index].shape for index in pools}
    return tuple(index in shapes for index in range(len(needs.shapes)))


def _candidate(
    policy: PlanPolicy, needs: Needs, quote: Quote, pools: tuple[int, ...], fillings: tuple[Pattern, ...]
) -> Candidate:
    loss = loss_within(quote, needs.hours)
    slots = tuple(max(counts) for counts in zip(*fillings, strict=True))
    supply = Supply(
        provider=quote.offer.provider,
        spot=quote.offer.option is PurchaseOption.SPOT,
        group=quote.offer.reliability.correlation_group if loss > 1e-9 else None,
        pools=pools,
    )
    useful = sum(
        ceil(2 * sum(needs.pools[i].most for i in pools if needs.pools[i].shape == shape) / count)
        for shape, count in enumerate(slots)
        if count
    )
    available = quote.offer.available
    return Candidate(
        quote=quote,
        supply=supply,
        slots=slots,
        patterns=fillings,
        price=float(quote.unit_price.amount),
        score=score_of(quote, policy),
        loss=loss,
        most=min(quote.quantity, useful, quote.quantity if available is None else available),
    )


def _beats(one: Candidate, other: Candidate) -> bool:
    """At least as good in everything that the programme can see; both are of one supply."""
    mine, its = one.quote.offer.resources, other.quote.offer.resources
    return (
        one.score <= other.score
        and one.price <= other.price
        and one.loss <= other.loss
        and mine.vcpus >= its.vcpus
        and mine.memory_gib >= its.memory_gib
        and mine.storage_iops >= its.storage_iops
        and mine.network_mbps >= its.network_mbps
    )


def _undominated(needs: Needs, ordered: Sequence[Candidate]) -> list[Candidate]:
    """Drop what enough better units of the same supply make superfluous. Changes no optimum."""
    kept: list[Candidate] = []
    by_supply: dict[Supply, list[Candidate]] = {}
    for candidate in ordered:
        rivals = by_supply.setdefault(candidate.supply, [])
        better = sum(rival.most for rival in rivals if _beats(rival, candidate))
        useful = sum(
            ceil(2 * sum(needs.pools[i].most for i in candidate.supply.pools if needs.pools[i].shape == s) / count)
            for s, count in enumerate(candidate.slots)
            if count
        )
        if better < useful:
            rivals.append(candidate)
            kept.append(candidate)
    return kept


def _few_groups(ordered: Sequence[Candidate]) -> tuple[Candidate, ...]:
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
    return tuple(c for c in ordered if c.supply.group is None or (c.supply.provider, c.supply.group) in kept)
