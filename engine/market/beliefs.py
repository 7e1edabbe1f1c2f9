"""What is believed of every place, put upon its offers: units that are really free, and how often they are lost. Pure.

Everything after discovery reads an offer's ``available`` and ``reliability``; so a belief that is put there is kept by
ranking, negotiation and planning alike.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from engine.market.depth import believed_depth, free_units
from engine.market.discovery import MarketView
from engine.market.observations import Answer, Stay, history_of
from engine.market.reclaim_rate import corrected
from engine.market.scoring import survival
from engine.model.ids import CellId, NodeId
from engine.model.market import Offer, OwnHistory, Place, PurchaseOption, Quote
from engine.model.placement import Node, NodeState
from engine.model.plan import OfferRejection

_NOTHING = OwnHistory(reclaims=0, node_hours=0.0)
RUNS = (NodeState.EXPECTED, NodeState.JOINED, NodeState.DRAINING, NodeState.LEAVING)
_Group = tuple[CellId, str, PurchaseOption]
"""What is lost together: of one correlation group, spot is, and what was bought to keep is by itself."""


@dataclass(frozen=True)
class Beliefs:
    """As of ``now``. Places of which nothing is known are in none of these."""

    now: datetime
    answers: Mapping[Place, Sequence[Answer]]
    ours: Mapping[Place, int]
    own: Mapping[Place, OwnHistory]
    groups: Mapping[_Group, OwnHistory]
    denied_nodes: frozenset[NodeId] = frozenset()
    """Nodes whose creation was denied lately."""

    def of(self, offer: Offer) -> Offer:
        """The offer as it is believed to be."""
        if offer.instance_type not in self._types and offer.reliability.correlation_group not in self._together:
            return offer  # nearly all, in a large market
        changes: dict[str, object] = {}
        place = offer.place
        if place in self.answers:
            belief = believed_depth(
                self.answers[place], advertised=offer.available, ours=self.ours.get(place, 0), now=self.now
            )
            if belief is not None:
                changes = {"belief": belief, "available": free_units(belief)}
        group = self.groups.get((offer.cell, offer.reliability.correlation_group, offer.option))
        if group is not None:
            changes["reliability"] = corrected(offer, group, self.own.get(place, _NOTHING))
        return offer.model_copy(update=changes) if changes else offer

    def recalled(self, quote: Quote) -> Quote:
        """A quote that was bought on, with the survival that is believed now."""
        offer = quote.offer
        group = self.groups.get((offer.cell, offer.reliability.correlation_group, offer.option))
        if group is None:
            return quote
        reliability = corrected(offer, group, self.own.get(offer.place, _NOTHING))
        now = offer.model_copy(update={"reliability": reliability})
        before = survival(offer, quote.term.hours)
        ratio = survival(now, quote.term.hours) / before if before > 0 else 1.0
        return quote.model_copy(update={"offer": now, "survival": min(1.0, quote.survival * ratio)})

    @cached_property
    def _types(self) -> frozenset[str]:
        return frozenset(place.instance_type for place in self.answers)

    @cached_property
    def _together(self) -> frozenset[str]:
        return frozenset(correlation_group for _, correlation_group, _ in self.groups)


def beliefs_of(answers: Iterable[Answer], stays: Iterable[Stay], nodes: Iterable[Node], now: datetime) -> Beliefs:
    """``nodes``: of ours; those that run or are on their way count as units that we have."""
    by_place: dict[Place, list[Answer]] = {}
    for answer in answers:
        by_place.setdefault(answer.place, []).append(answer)
    own: dict[Place, list[Stay]] = {}
    groups: dict[_Group, list[Stay]] = {}
    for stay in stays:
        own.setdefault(stay.place, []).append(stay)
        groups.setdefault((stay.place.cell, stay.correlation_group, stay.place.option), []).append(stay)
    denied = nodes_denied(answer for found in by_place.values() for answer in found)
    return Beliefs(
        now=now,
        answers=by_place,
        ours=units_of_ours(nodes, denied),
        own={place: history_of(found) for place, found in own.items()},
        groups={group: history_of(found) for group, found in groups.items()},
        denied_nodes=denied,
    )


def nodes_denied(answers: Iterable[Answer]) -> frozenset[NodeId]:
    """Nodes whose creation was denied."""
    return frozenset(node for answer in answers for node in answer.denied_nodes)


def units_of_ours(nodes: Iterable[Node], denied: frozenset[NodeId]) -> Mapping[Place, int]:
    """Nodes that run or are on their way, by place."""
    found: dict[Place, int] = {}
    for node in nodes:
        if node.state in RUNS and (node.instance_id is not None or node.id not in denied):
            found[node.place] = found.get(node.place, 0) + 1
    return found


def with_beliefs(view: MarketView, beliefs: Beliefs) -> MarketView:
    """Every offer as it is believed to be. One of which nothing is left is refused by name, and not asked for."""
    if not beliefs.answers and not beliefs.groups:
        return view
    offers = tuple(beliefs.of(offer) for offer in view.offers)
    exhausted = tuple(
        OfferRejection(offer=offer.id, provider=offer.provider, reason=f"exhausted: {offer.belief}")
        for offer in offers
        if is_exhausted(offer)
    )
    return view.model_copy(update={"offers": offers, "rejections": (*view.rejections, *exhausted)})


def as_advertised(view: MarketView) -> MarketView | None:
    """The market with every unit that is advertised; None where it is no other. Corrected reliability stays."""
    if all(offer.belief is None for offer in view.offers):
        return None
    exhausted = {offer.id for offer in view.offers if is_exhausted(offer)}
    offers = tuple(
        offer
        if offer.belief is None
        else offer.model_copy(update={"available": offer.belief.advertised, "belief": None})
        for offer in view.offers
    )
    rejections = tuple(one for one in view.rejections if one.offer not in exhausted)
    return view.model_copy(update={"offers": offers, "rejections": rejections})


def is_exhausted(offer: Offer) -> bool:
    return offer.belief is not None and offer.available == 0
