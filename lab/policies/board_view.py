"""What a policy knows of its fleets: offers by option, demand seen so far, the shortfall it may leave."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from lab.wire import Init, InitOffer, Observe

Series = NDArray[np.float64]
MINUTES_A_DAY = 24 * 60


@dataclass(frozen=True)
class Sold:
    """An offer as one fleet can use it. ``price`` per unit-hour, floats: a policy ranks, the game counts."""

    id: str
    shards: int
    price: float
    cell: str
    group: str
    lead: int = 1
    term: int = 0

    @property
    def per_shard(self) -> float:
        return self.price / self.shards


@dataclass
class FleetView:
    """``allowed``: the share of its demand that may be short so that every class keeps its limit."""

    id: str
    pools: tuple[str, ...]
    on_demand: tuple[Sold, ...]
    """Cheapest per shard first; what arrives within a step."""
    commitments: tuple[Sold, ...]
    spot: tuple[Sold, ...]
    """At the prices seen last, cheapest per shard first; what arrives within two steps."""
    allowed: float
    demand: list[float] = field(default_factory=list)
    """Whole fleet, by step, oldest first: the history, then what was observed."""

    @property
    def series(self) -> Series:
        return np.asarray(self.demand)

    def priced(self, prices: Mapping[str, Decimal]) -> None:
        self.spot = _ranked(replace(each, price=float(prices.get(each.id, each.price))) for each in self.spot)

    def worth_asking(self) -> tuple[Sold, ...]:
        """Spot that is cheaper per shard than the cheapest on-demand offer."""
        limit = self.on_demand[0].per_shard if self.on_demand else float("inf")
        return tuple(each for each in self.spot if each.per_shard < limit)


class BoardView:
    """Every fleet of a game, kept up to date by ``see``."""

    def __init__(self, init: Init) -> None:
        self.steps_a_day = max(1, MINUTES_A_DAY // init.step_minutes)
        self.steps = init.steps
        self.step_hours = init.step_minutes / 60
        self.fleets = tuple(_view(init, fleet.id) for fleet in init.fleets)

    def see(self, observe: Observe) -> None:
        for fleet in self.fleets:
            if observe.demand:
                fleet.demand.append(float(sum(observe.demand.get(pool, 0) for pool in fleet.pools)))
            fleet.priced(observe.prices)


def _view(init: Init, name: str) -> FleetView:
    pools = [pool for pool in init.pools if pool.fleet == name]
    length = min((len(pool.history) for pool in pools), default=0)
    history = [float(sum(pool.history[len(pool.history) - length + at] for pool in pools)) for at in range(length)]
    usable = [offer for offer in init.offers if name in offer.shards_per_unit and offer.lead <= 2]
    quick = [offer for offer in usable if offer.lead == 1]
    return FleetView(
        id=name,
        pools=tuple(pool.id for pool in pools),
        on_demand=_ranked(_sold(offer, name) for offer in quick if offer.option == "on_demand"),
        commitments=_ranked(_sold(offer, name) for offer in quick if offer.option == "commitment"),
        spot=_ranked(_sold(offer, name) for offer in usable if offer.option == "spot"),
        allowed=_allowed(init, name),
        demand=history,
    )


def _sold(offer: InitOffer, fleet: str) -> Sold:
    price = offer.price
    if price is None:
        price = offer.price_history[-1][1] if offer.price_history else offer.on_demand_price
    shards = offer.shards_per_unit[fleet]
    return Sold(offer.id, shards, float(price), offer.cell, offer.group, offer.lead, offer.term or 0)


def _ranked(offers: Iterable[Sold]) -> tuple[Sold, ...]:
    return tuple(sorted(offers, key=lambda each: (each.per_shard, each.id)))


def _allowed(init: Init, name: str) -> float:
    """A fleet's worst class is short first: its limit, spread over the fleet's whole demand, or the overall limit."""
    by_class: dict[str, float] = {}
    for pool in init.pools:
        if pool.fleet == name:
            by_class[pool.risk] = by_class.get(pool.risk, 0.0) + sum(pool.history)
    whole = sum(by_class.values())
    if not whole:
        return init.max_shortfall
    worst = max(by_class, key=lambda risk: init.risk_classes[risk].rank)
    return min(init.max_shortfall, init.risk_classes[worst].max_shortfall * by_class[worst] / whole)


def units_held(observe: Observe, fleet: str, offers: Sequence[Sold]) -> dict[str, int]:
    """Of these offers, held or pending."""
    held, pending = observe.held.get(fleet, {}), observe.pending.get(fleet, {})
    return {each.id: held.get(each.id, 0) + pending.get(each.id, 0) for each in offers}
