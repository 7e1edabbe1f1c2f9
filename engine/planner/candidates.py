"""The purchases worth weighing: quotes that fit, without those that another one beats in everything."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from math import ceil
from operator import ge

import numpy as np
from numpy.typing import NDArray

from engine.model.market import PurchaseOption, Quote
from engine.planner.need import Needs
from engine.planner.packing import Pattern, Room, patterns, room_of
from engine.planner.policy import PlanPolicy
from engine.planner.screening import Screen, quote_refused

FloatArray = NDArray[np.float64]
_MOST_GROUPS = 8
"""Correlation groups kept per provider and shape: beyond a few, spreading further buys almost nothing."""
_MOST_WEIGHED = 4000
"""Quotes up to which every one is weighed by itself."""
_FEW = 2
_FRONT_LASTING, _FRONT_GROUP = 0.3, 0.15
"""Share of the demand of a supply's pools that its candidates carry at least, where there are more."""


def lost_together(correlation_group: str, *, spot: bool) -> str:
    """Spot of one correlation group is reclaimed together; what was bought to keep is not reclaimed with it."""
    return correlation_group if spot else f"{correlation_group} (to keep)"


@dataclass(frozen=True)
class Supply:
    """Shards that are alike to the programme: same provider, same fate, same pools."""

    provider: str
    spot: bool
    group: str | None
    """What is lost together (``lost_together``); None: these units stay."""
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
    room: Room
    supply: Supply
    slots: tuple[int, ...]
    price: float
    score: float
    loss: float
    most: int
    useful: int
    """Units beyond this are of no use."""


@dataclass(frozen=True)
class Shelf:
    """Further units of one supply and size, dearer than those that are candidates: too many to be weighed one by one.
    The bound on what no plan costs less than counts them in.
    """

    supply: Supply
    patterns: tuple[Pattern, ...]
    scores: FloatArray
    most: FloatArray


@dataclass(frozen=True)
class Stock:
    candidates: tuple[Candidate, ...]
    """Cheapest first; equal prices in order of the quote's id, so that equal markets give equal plans."""
    reserve: tuple[Shelf, ...] = ()


def find_candidates(policy: PlanPolicy, needs: Needs, screen: Screen, quotes: Sequence[Quote], now: datetime) -> Stock:
    usable = [found for found in _usable(policy, needs, screen, quotes, now) if found.most > 0]
    usable.sort(key=lambda one: (one.score, one.quote.id))
    usable = _few_groups(needs, usable)
    front, rest = (usable, []) if len(usable) <= _MOST_WEIGHED else _front(needs, usable)
    filled = _Fillings(needs)
    return Stock(
        candidates=tuple(
            Candidate(
                quote=one.quote,
                supply=one.supply,
                slots=tuple(max(counts) for counts in zip(*filled(one), strict=True)),
                patterns=filled(one),
                price=one.price,
                score=one.score,
                loss=one.loss,
                most=one.most,
            )
            for one in _undominated(front)
        ),
        reserve=tuple(
            Shelf(
                supply=shelf[0].supply,
                patterns=filled(shelf[0]),
                scores=np.array([one.score for one in shelf]),
                most=np.array([float(one.most) for one in shelf]),
            )
            for shelf in rest
        ),
    )


class _Fillings:
    """Patterns by size of unit and wanted shapes, each made once."""

    def __init__(self, needs: Needs) -> None:
        self._needs = needs
        self._made: dict[tuple[Room, tuple[bool, ...]], tuple[Pattern, ...]] = {}
        self._asked: dict[int, tuple[bool, ...]] = {}

    def __call__(self, one: _Usable) -> tuple[Pattern, ...]:
        pools = one.supply.pools
        if id(pools) not in self._asked:
            self._asked[id(pools)] = _wanted(self._needs, pools)
        key = (one.room, self._asked[id(pools)])
        if key not in self._made:
            self._made[key] = patterns(one.quote.offer.resources, self._needs.shapes, key[1])
        return self._made[key]


def _front(needs: Needs, ordered: Sequence[_Usable]) -> tuple[list[_Usable], list[list[_Usable]]]:
    """Of every supply the cheapest units per shape that together carry a good part of what its pools can want, and the
    cheapest for a few shards, with which what is left over is served; and the rest, by supply and size.
    """
    demands: dict[int, list[int]] = {}
    by_supply: dict[int, list[_Usable]] = {}
    for one in ordered:
        by_supply.setdefault(id(one.supply), []).append(one)
    taken: set[str] = set()
    for units in by_supply.values():
        supply = units[0].supply
        if id(supply.pools) not in demands:
            demands[id(supply.pools)] = _demands(needs, supply.pools)
        part = _FRONT_LASTING if supply.group is None else _FRONT_GROUP
        for shape, demand in enumerate(demands[id(supply.pools)]):
            carried = 0
            carrying = [one for one in units if one.slots[shape]]
            for few in (1, 2, 4, 8):
                taken.update(one.quote.id for one in islice((one for one in carrying if one.slots[shape] >= few), _FEW))
            for one in sorted(carrying, key=lambda one: (one.score / one.slots[shape], one.quote.id)):
                if carried >= part * demand:
                    break
                carried += one.most * one.slots[shape]
                taken.add(one.quote.id)
    shelves: dict[tuple[int, Room], list[_Usable]] = {}
    for one in ordered:
        if one.quote.id not in taken:
            shelves.setdefault((id(one.supply), one.room), []).append(one)
    return [one for one in ordered if one.quote.id in taken], list(shelves.values())


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
        spot = offer.option is PurchaseOption.SPOT
        group = lost_together(offer.reliability.correlation_group, spot=spot) if loss > 1e-9 else None
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
            room=room_of(offer.resources),
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
    return (
        one.score <= other.score
        and one.price <= other.price
        and one.loss <= other.loss
        and (one.room == other.room or all(map(ge, one.room, other.room)))
    )


def _undominated(ordered: Iterable[_Usable]) -> list[_Usable]:
    """Drop what enough better units of the same supply make superfluous. Changes no optimum. Those of the very same
    size are looked at first: in a large market they are most of what is dropped.
    """
    kept: list[_Usable] = []
    by_supply: dict[int, list[_Usable]] = {}
    by_size: dict[tuple[int, Room], list[_Usable]] = {}
    for one in ordered:
        alike = by_size.setdefault((id(one.supply), one.room), [])
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


def _few_groups(needs: Needs, ordered: Sequence[_Usable]) -> list[_Usable]:
    """Of the units that may be lost, keep each provider's cheapest correlation groups, of spot and of what is kept,
    shape by shape, per shard of a unit that is filled as far as there is demand.
    """
    demands = _demands(needs, range(len(needs.pools)))
    best: dict[tuple[str, bool, int], dict[str, tuple[float, str]]] = {}
    for one in ordered:
        group = one.supply.group
        if group is None:
            continue
        for shape, slots in enumerate(one.slots):
            if slots:
                groups = best.setdefault((one.supply.provider, one.supply.spot, shape), {})
                rank = (one.score / max(1, min(slots, demands[shape])), one.quote.id)
                groups[group] = min(rank, groups.get(group, rank))
    kept = {
        (provider, group)
        for (provider, _, _), groups in best.items()
        for group in sorted(groups, key=lambda group: groups[group])[:_MOST_GROUPS]
    }
    return [one for one in ordered if one.supply.group is None or (one.supply.provider, one.supply.group) in kept]
