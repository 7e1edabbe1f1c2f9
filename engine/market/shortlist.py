"""Which offers are worth asking about: of every market a few for each use that they have. Pure.

A market is a provider, region and purchase option; one that nobody asks is never cheap. What is bought for differs: the
cheapest units for one pool may not hold a slice of another, or be too slow for it, so the best are looked for use by
use. An offer of no use (policy, performance or its size forbid it) takes nobody's place.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest

import numpy as np

from engine.market.base import Need
from engine.market.beliefs import is_exhausted
from engine.market.discovery import MarketView
from engine.market.scoring import Columns, IntArray, ScoreWeights, rank
from engine.model.capacity import Resources
from engine.model.market import Offer, PurchaseOption

PER_USE = 6
"""Offers that are negotiated of one market for one use."""
_USES_IN_FULL = 4
"""So many times as many are negotiated of one market at most, whatever the number of uses; but one for each of them."""
_PER_TYPE = 2
"""Of one instance type, before other types have had their turn: in another zone it is the same unit again."""


@dataclass(frozen=True, eq=False)
class Use:
    """What units are bought for: one or several pools that are alike to every offer."""

    slice: Resources


Uses = Callable[[Offer], Sequence[Use]]
"""What an offer may be bought for; nothing where it may not be bought."""


def shortlist(
    view: MarketView,
    need: Need,
    weights: ScoreWeights | None = None,
    per_use: int = PER_USE,
    uses: Uses | None = None,
) -> tuple[Offer, ...]:
    """Best-scored first. Without ``uses`` whatever carries ``need.slice`` is of use."""
    weighed = weights or ScoreWeights()
    columns = Columns.of([offer for offer in view.offers if not is_exhausted(offer)])
    markets = _markets(columns.offers)
    found: dict[int, list[list[Offer]]] = {}
    for use, among in _by_use(columns.offers, uses or _one_use(need)).items():
        best = columns.scored(np.array(among), use.slice, need.term.hours, weighed).at
        for market, ranked in _split(best, markets):
            found.setdefault(market, []).append(varied((columns.offers[at] for at in ranked), per_use))
    chosen = [offer for lists in found.values() for offer in _in_turns(lists, per_use)]
    return tuple(scored.offer for scored in rank(chosen, need, weighed))


def varied(offers: Iterable[Offer], most: int) -> list[Offer]:
    """So many of one market, best first as they come; but two of a type at most until every type has had its turn.

    Spot is taken from as many correlation groups as there are, the best of each first: what is alike fails together.
    """
    groups: Counter[str] = Counter()
    types: Counter[str] = Counter()
    first: list[Offer] = []
    waiting: list[tuple[int, Offer]] = []
    for offer in offers:
        group = offer.reliability.correlation_group
        turn = groups[group] if offer.option is PurchaseOption.SPOT else 0
        groups[group] += 1
        if turn or types[offer.instance_type] == _PER_TYPE:
            waiting.append((turn, offer))
            continue
        types[offer.instance_type] += 1
        first.append(offer)
        if len(first) == most:
            return first
    last: list[Offer] = []
    for _, offer in sorted(waiting, key=lambda one: one[0]):
        (first if types[offer.instance_type] < _PER_TYPE else last).append(offer)
        types[offer.instance_type] += 1
    return (first + last)[:most]


def _one_use(need: Need) -> Uses:
    only = (Use(need.slice),)
    return lambda _: only


def _by_use(offers: Iterable[Offer], uses: Uses) -> dict[Use, list[int]]:
    found: dict[Use, list[int]] = {}
    for at, offer in enumerate(offers):
        for use in uses(offer):
            found.setdefault(use, []).append(at)
    return found


def _markets(offers: Iterable[Offer]) -> IntArray:
    """By offer, a number for its market."""
    known: dict[tuple[str, str, str], int] = {}
    numbers = (known.setdefault((one.provider, one.region, one.option.value), len(known)) for one in offers)
    return np.array(list(numbers), dtype=np.int64)


def _split(ranked: IntArray, markets: IntArray) -> Iterator[tuple[int, IntArray]]:
    """By market, in the same order."""
    of = markets[ranked]
    for market in np.unique(of).tolist():
        yield market, ranked[of == market]


def _in_turns(lists: Sequence[Sequence[Offer]], per_use: int) -> Iterator[Offer]:
    """Every use's best, then every use's second, each offer once."""
    turns = (offer for turn in zip_longest(*lists) for offer in turn if offer is not None)
    distinct = {offer.id: offer for offer in turns}
    return islice(distinct.values(), max(len(lists), _USES_IN_FULL * per_use))
