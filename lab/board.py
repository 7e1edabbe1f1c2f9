"""A case laid out for play: ids become positions, change points become one value per step, prices whole numbers."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from decimal import Decimal

from lab.amounts import Scale
from lab.case import Case, CommitmentOffer, OnDemandOffer, SpotOffer


class Board:
    """Everything of a case that the rules look up, including what no policy may see."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.steps = case.steps
        offers = case.offers
        self.offer_ids = tuple(offer.id for offer in offers)
        self.fleet_ids = tuple(fleet.id for fleet in case.fleets)
        self.offer_at = {name: place for place, name in enumerate(self.offer_ids)}
        self.fleet_at = {name: place for place, name in enumerate(self.fleet_ids)}
        self.is_spot = tuple(isinstance(offer, SpotOffer) for offer in offers)
        self.is_commitment = tuple(isinstance(offer, CommitmentOffer) for offer in offers)
        self.lead = tuple(offer.lead for offer in offers)
        self.min_steps = tuple(offer.min_steps for offer in offers)
        self.term = tuple(offer.term if isinstance(offer, CommitmentOffer) else 0 for offer in offers)
        self.shards = tuple(tuple(offer.shards_per_unit.get(fleet, 0) for offer in offers) for fleet in self.fleet_ids)
        """Shards of one unit by fleet and offer; 0: it cannot serve that fleet."""
        cells = dict.fromkeys(offer.cell for offer in offers)
        self.cell_ids = tuple(cells)
        """In the order of their first offer."""
        place = {name: at for at, name in enumerate(self.cell_ids)}
        self.cell = tuple(place[offer.cell] for offer in offers)
        self._of_money(case)
        self._of_demand(case)

    def _of_money(self, case: Case) -> None:
        fixed = [offer.price for offer in case.offers if not isinstance(offer, SpotOffer)]
        spot = [price for offer in case.offers if isinstance(offer, SpotOffer) for _, price in offer.prices]
        moves = [fleet.move_usd_per_shard for fleet in case.fleets]
        self.scale = Scale([*fixed, *spot, *moves], case.step_minutes)
        self.move_price = tuple(self.scale.whole(price) for price in moves)
        self.prices = tuple(self._prices(offer) for offer in case.offers)
        """Scaled, by offer and step."""
        self.depths = tuple(
            _at_each_step(offer.available, case.steps, 0) if isinstance(offer, SpotOffer) else ()
            for offer in case.offers
        )
        """Units that all fleets together can hold, by offer and step; spot only."""
        self.shown_prices = self._shown_prices(case)
        """Spot prices by offer id, by step."""

    def _prices(self, offer: OnDemandOffer | SpotOffer | CommitmentOffer) -> Sequence[int]:
        if isinstance(offer, SpotOffer):
            points = [(step, self.scale.whole(price)) for step, price in offer.prices]
            return _at_each_step(points, self.steps, 0)
        return (self.scale.whole(offer.price),) * self.steps

    def _shown_prices(self, case: Case) -> tuple[Mapping[str, Decimal], ...]:
        """One mapping for as long as no price changes."""
        spot = [offer for offer in case.offers if isinstance(offer, SpotOffer)]
        changes: dict[int, dict[str, Decimal]] = {}
        for offer in spot:
            for step, price in offer.prices:
                changes.setdefault(max(step, 0), {})[offer.id] = price
        shown: list[Mapping[str, Decimal]] = []
        now = {offer.id: offer.prices[0][1] for offer in spot}
        for step in range(case.steps):
            if step in changes:
                now = {**now, **changes[step]}
            shown.append(shown[-1] if shown and step not in changes else now)
        return tuple(shown)

    def _of_demand(self, case: Case) -> None:
        self.pool_ids = tuple(pool.id for pool in case.pools)
        self.demand = tuple(pool.demand for pool in case.pools)
        ranks = [case.risk_classes[pool.risk].rank for pool in case.pools]
        self.pools_of = tuple(
            tuple(sorted((at for at, pool in enumerate(case.pools) if pool.fleet == fleet), key=lambda at: ranks[at]))
            for fleet in self.fleet_ids
        )
        """Positions of each fleet's pools, best risk class first, then in the order of the list."""


def _at_each_step(points: Sequence[tuple[int, int]], steps: int, before: int) -> tuple[int, ...]:
    """The value of the last point at or before each step; ``before`` where there is none yet."""
    when = [step for step, _ in points]
    places = (bisect_right(when, step) for step in range(steps))
    return tuple(points[place - 1][1] if place else before for place in places)
