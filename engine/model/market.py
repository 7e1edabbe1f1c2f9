"""What providers sell, and what came of asking for it."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from engine.model.capacity import Placement, Probability, Resources
from engine.model.ids import CellId, HoldId, NodeId, OfferId, QuoteId, ReservationId
from engine.model.money import Money
from engine.model.value import Interval, Utc, Value


class PurchaseOption(StrEnum):
    ON_DEMAND = "on_demand"
    SPOT = "spot"
    COMMITMENT = "commitment"
    AUCTION = "auction"


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where units come from: offers and nodes of one place share what was learned of it."""

    cell: CellId
    zone: str
    instance_type: str
    option: PurchaseOption


class OwnHistory(Value):
    """What became of nodes of ours: how many were taken back, over how many node-hours."""

    reclaims: Annotated[int, Field(ge=0)]
    node_hours: Annotated[float, Field(ge=0)]

    def __str__(self) -> str:
        return f"{self.reclaims} taken back in {self.node_hours:.0f} node-hours"


class Reliability(Value):
    """What is known about an offer's staying power."""

    interruption_per_month: Probability | None = None
    """Share of instances reclaimed within a month, as published or, with ``own``, as corrected by it; None: neither."""
    correlation_group: str
    """What tends to fail together: provider/region/zone/family."""
    published_per_month: Annotated[Probability | None, Field(exclude_if=lambda share: share is None)] = None
    """What the provider publishes, where ``interruption_per_month`` was corrected; None: nothing."""
    own: Annotated[OwnHistory | None, Field(exclude_if=lambda own: own is None)] = None
    """Of this place; None: nothing of ours ever ran there or beside it."""


class DepthBelief(Value):
    """How much a place is believed to have, after it denied something or took it back."""

    depth: Annotated[int, Field(ge=0)]
    """Units in all, those of ours that run there included."""
    ours: Annotated[int, Field(ge=0)] = 0
    advertised: Annotated[int, Field(ge=0)] | None = None
    """Units on offer as the provider tells; None: it does not."""
    told: str
    """What is believed because of: ``denied 2 of 3 at 10:40``."""

    def __str__(self) -> str:
        ours = f", {self.ours} of it ours" if self.ours else ""
        return f"{self.told}; believed depth {self.depth}{ours}"


class OfferQuery(Value):
    """What discovery is asked for: anything that carries at least one slice of ``at_least``."""

    at_least: Resources
    placement: Placement = Placement()
    options: tuple[PurchaseOption, ...] = tuple(PurchaseOption)


class PricePoint(Value):
    at: Utc
    price: Money


class Delivery(Value):
    """A unit that is paid for starts between these moments."""

    earliest: Utc
    latest: Utc

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.latest < self.earliest:
            raise ValueError("the delivery ends before it starts")
        return self


class Offer(Value):
    """Posted, no promise. Price per unit-hour of one whole unit (an instance)."""

    id: OfferId
    provider: str
    account: str
    region: str
    zone: str
    instance_type: str
    resources: Resources
    performance: Annotated[float, Field(gt=0)] = 1.0
    """Single-core score relative to the reference core."""
    option: PurchaseOption
    price: Money
    """Per unit-hour now; for an auction the reserve price (0 where none is published)."""
    list_price: Annotated[Money | None, Field(exclude_if=lambda price: price is None)] = None
    """What is posted, where ``price`` is a negotiated one; None: ``price`` is what is posted."""
    price_at: Utc
    """When the provider last stated this price."""
    price_history: tuple[PricePoint, ...] = ()
    available: Annotated[int, Field(ge=0)] | None = None
    """Units to be had: those on offer or, with ``belief``, those believed to be free; None: not published."""
    reliability: Reliability
    belief: Annotated[DepthBelief | None, Field(exclude_if=lambda belief: belief is None)] = None
    """None: nothing was denied there lately."""
    expires_at: Utc | None = None
    auction_id: str | None = None
    delivery: Annotated[Delivery | None, Field(exclude_if=lambda delivery: delivery is None)] = None
    """None: at once, as far as is known."""

    @property
    def cell(self) -> CellId:
        return CellId(f"{self.provider}/{self.account}/{self.region}")

    @property
    def place(self) -> Place:
        return Place(self.cell, self.zone, self.instance_type, self.option)


class Quote(Value):
    """A firm price until ``expires_at`` for ``quantity`` units of one offer."""

    id: QuoteId
    offer: Offer
    quantity: Annotated[int, Field(gt=0)]
    unit_price: Money
    """Expected price per unit-hour: what is paid now."""
    price_ceiling: Money
    """Never pay more than this per unit-hour (spot: the ceiling handed to the provider)."""
    term: Interval
    expires_at: Utc
    strategy: str
    """The negotiation strategy that obtained it."""
    survival: Probability = 1.0
    """Probability that one unit is still there at the end of the term."""
    proof: Annotated[str | None, Field(exclude_if=lambda proof: proof is None)] = None
    """The seller's signature over what it promised (compact JWS); None: it signs nothing."""


class Hold(Value):
    """Capacity kept for us, not yet paid: the first phase of two."""

    id: HoldId
    key: str
    """Idempotency key: the same key is the same hold."""
    quote: Quote
    expires_at: Utc
    provider_reference: str | None = None
    """The provider's own id for it; None where the provider knows no holds and the hold is ours alone."""


class Reservation(Value):
    """Paid capacity."""

    id: ReservationId
    hold_id: HoldId
    quote: Quote
    confirmed_at: Utc
    provider_reference: str | None = None


class ReclaimNotice(Value):
    """The provider takes a node back at ``at``."""

    node: NodeId
    provider: str
    seen_at: Utc
    at: Utc
    reason: str = "reclaimed"

    @property
    def notice(self) -> timedelta:
        return self.at - self.seen_at
