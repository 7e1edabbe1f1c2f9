"""What travels over the Open Capacity API, version 1. JSON; money and rates as text; times as RFC 3339 with a zone.

Requests refuse unknown fields. Answers ignore them, so that a network may add a field without breaking anybody.
"""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, TypeAdapter, WithJsonSchema
from pydantic.alias_generators import to_pascal

from engine.model.market import PurchaseOption
from engine.model.value import Utc

API_VERSION = "1"
MAX_QUANTITY = 100_000


def _text_to_decimal(value: object) -> object:
    if isinstance(value, Decimal):
        return value
    if not isinstance(value, str):
        raise ValueError("an amount travels as text, never as a JSON number")
    try:
        return Decimal(value)
    except ArithmeticError as problem:
        raise ValueError("not a decimal number") from problem


def _text_to_time(value: object) -> object:
    if not isinstance(value, str | datetime):
        raise ValueError("a time travels as RFC 3339 text")
    return value


AmountText = Annotated[
    Decimal,
    BeforeValidator(_text_to_decimal),
    Field(allow_inf_nan=False),
    PlainSerializer(lambda amount: f"{amount:f}", return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": r"^-?\d+(\.\d+)?$", "examples": ["0.0312"]}),
]
"""A decimal written as text; may be negative, since what is refused and why is the reader's decision."""
Time = Annotated[Utc, BeforeValidator(_text_to_time), Field(strict=False)]
Quantity = Annotated[int, Field(ge=1, le=MAX_QUANTITY)]
CurrencyCode = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
Identifier = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9._:/@+-]+$")]
OptionName = Annotated[PurchaseOption, Field(strict=False)]


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class WireMoney(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    amount: AmountText
    currency: CurrencyCode


class WireTerm(BaseModel):
    """Half-open: start <= t < end."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    start: Time
    end: Time


class WireResources(_Answer):
    """One unit: vCPUs, GiB, operations a second, Mbit/s."""

    vcpus: float
    memory_gib: float
    storage_iops: float = 0.0
    network_mbps: float = 0.0


class WirePricePoint(_Answer):
    at: Time
    price: WireMoney


class DeliveryWindow(_Answer):
    """A confirmed unit starts between these moments."""

    earliest: Time
    latest: Time


class WireOffer(_Answer):
    """Posted, no promise. ``price`` is per unit-hour; for an auction it is the reserve price."""

    offer_id: Identifier
    region: str
    zone: str
    instance_type: str
    resources: WireResources
    performance: float
    """Single-core score relative to the reference core (1.0)."""
    option: OptionName
    price: WireMoney
    price_at: Time
    price_history: Annotated[tuple[WirePricePoint, ...], Field(strict=False)] = ()
    available: int | None = None
    interruption_per_month: float | None = None
    correlation_group: str
    delivery: DeliveryWindow
    expires_at: Time
    auction_id: Identifier | None = None


class QuoteRequest(_Request):
    """``limit_price``: what the buyer would pay per unit-hour; below the ask it may be answered with a counter."""

    offer_id: Identifier
    quantity: Quantity
    term: WireTerm
    limit_price: WireMoney | None = None


class QuoteKind(StrEnum):
    ASK = "ask"
    """The posted price."""
    COUNTER = "counter"
    """The network's answer to a limit price below its ask."""
    AUCTION = "auction"
    """Won; the units are kept until the quote expires."""


class WireQuote(_Answer):
    """Firm until ``expires_at``: never dearer than ``unit_price`` per unit-hour for the whole term."""

    quote_id: Identifier
    offer_id: Identifier
    quantity: Quantity
    unit_price: WireMoney
    term: WireTerm
    expires_at: Time
    kind: Annotated[QuoteKind, Field(strict=False)]


class WireAuctionRule(StrEnum):
    SEALED_FIRST_PRICE = "sealed_first_price"
    """A winner pays its own bid."""
    SEALED_SECOND_PRICE = "sealed_second_price"
    """Every winner pays the highest bid that lost (or the reserve price)."""


class WireRound(_Answer):
    closed_at: Time
    clearing_price: WireMoney


class WireAuction(_Answer):
    """A standing auction: a round closes every ``period_seconds``; a bid takes part in the round that is open."""

    auction_id: Identifier
    offer_id: Identifier
    rule: Annotated[WireAuctionRule, Field(strict=False)]
    reserve_price: WireMoney
    available: int
    period_seconds: float
    closes_at: Time
    recent: Annotated[tuple[WireRound, ...], Field(strict=False)] = ()


class BidRequest(_Request):
    """Up to ``quantity`` units at up to ``unit_price`` each; fewer may be won."""

    quantity: Quantity
    unit_price: WireMoney
    term: WireTerm


class BidStatus(StrEnum):
    PENDING = "pending"
    WON = "won"
    LOST = "lost"


class WireBid(_Answer):
    bid_id: Identifier
    auction_id: Identifier
    status: Annotated[BidStatus, Field(strict=False)]
    quantity: Quantity
    unit_price: WireMoney
    decides_at: Time
    clearing_price: WireMoney | None = None
    quote: WireQuote | None = None
    """Set when won; its quantity is what was won."""
    reason: str = ""


class HoldRequest(_Request):
    """``quantity`` may be less than the quote's; several holds may share one quote."""

    quote_id: Identifier
    quantity: Quantity


class HoldState(StrEnum):
    HELD = "held"
    """Kept for the buyer until ``expires_at``, free of charge."""
    PAID = "paid"
    """Units without a node are kept, and charged, until they start or are released."""
    RELEASED = "released"
    LAPSED = "lapsed"


class WireHold(_Answer):
    hold_id: Identifier
    quote_id: Identifier
    quantity: Quantity
    started: Annotated[int, Field(ge=0)]
    """Units that a node was started on so far."""
    unit_price: WireMoney
    state: Annotated[HoldState, Field(strict=False)]
    expires_at: Time
    paid_at: Time | None = None


class ConfirmRequest(_Request):
    """Start one unit of the hold as this node. The same node and token is the same reservation, whichever the hold."""

    node: Identifier
    token: Annotated[str, Field(min_length=1, max_length=400)]
    user_data: Annotated[str, Field(max_length=64 * 1024, repr=False)]
    tags: Annotated[dict[str, str], Field(max_length=20)] = Field(default_factory=dict)


class ReservationState(StrEnum):
    RUNNING = "running"
    ENDED = "ended"


class WireReservation(_Answer):
    """One running unit. User data is never read back."""

    reservation_id: Identifier
    hold_id: Identifier
    offer_id: Identifier
    node: str
    token: str
    region: str
    zone: str
    instance_type: str
    option: OptionName
    unit_price: WireMoney
    state: Annotated[ReservationState, Field(strict=False)]
    started_at: Time
    ended_at: Time | None = None
    address: str | None = None


class WireInstance(_Answer):
    """The machine behind a reservation; it has the reservation's id."""

    instance_id: Identifier
    node: str
    token: str
    region: str
    zone: str
    instance_type: str
    state: Annotated[ReservationState, Field(strict=False)]
    launched_at: Time


class PriceEvent(_Answer):
    """A posted price changed."""

    type: Literal["price"] = "price"
    event_id: Annotated[int, Field(ge=1)]
    at: Time
    offer_id: Identifier
    price: WireMoney


class ReclaimEvent(_Answer):
    """The network takes a unit back at ``reclaim_at``."""

    type: Literal["reclaim"] = "reclaim"
    event_id: Annotated[int, Field(ge=1)]
    at: Time
    reservation_id: Identifier
    node: str
    reclaim_at: Time
    reason: str


WireEvent = Annotated[PriceEvent | ReclaimEvent, Field(discriminator="type")]


class OfferList(_Answer):
    offers: Annotated[tuple[WireOffer, ...], Field(strict=False)]


class AuctionList(_Answer):
    auctions: Annotated[tuple[WireAuction, ...], Field(strict=False)]


class ReservationList(_Answer):
    reservations: Annotated[tuple[WireReservation, ...], Field(strict=False)]


class InstanceList(_Answer):
    instances: Annotated[tuple[WireInstance, ...], Field(strict=False)]


class EventList(_Answer):
    """In order of ``event_id``."""

    events: Annotated[tuple[WireEvent, ...], Field(strict=False)]


class WireInvoice(_Answer):
    """``total`` is what is asked for, in whole minor units; the rows sum to it exactly."""

    invoice_id: Identifier
    issuer: str
    period: WireTerm
    total: WireMoney


class FocusRow(BaseModel):
    """One charge; on the wire the field names are the FOCUS 1.2 columns, as the standard spells them."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", alias_generator=to_pascal, populate_by_name=True, strict=True
    )

    availability_zone: str | None = None
    billed_cost: AmountText
    billing_account_id: str
    billing_account_name: str
    billing_currency: CurrencyCode
    billing_period_end: Time
    billing_period_start: Time
    capacity_reservation_id: str | None = None
    capacity_reservation_status: str | None = None
    charge_category: str
    charge_class: str | None = None
    charge_description: str
    charge_frequency: str
    charge_period_end: Time
    charge_period_start: Time
    consumed_quantity: AmountText | None = None
    consumed_unit: str | None = None
    contracted_cost: AmountText
    contracted_unit_price: AmountText | None = None
    effective_cost: AmountText
    invoice_id: str
    invoice_issuer_name: str
    list_cost: AmountText
    list_unit_price: AmountText | None = None
    pricing_category: str | None = None
    pricing_quantity: AmountText | None = None
    pricing_unit: str | None = None
    provider_name: str
    publisher_name: str
    region_id: str | None = None
    region_name: str | None = None
    resource_id: str | None = None
    resource_name: str | None = None
    resource_type: str | None = None
    service_category: str
    service_name: str
    service_subcategory: str
    sku_id: str | None = None
    sku_price_id: str | None = None
    sub_account_id: str | None = None
    sub_account_name: str | None = None
    tags: dict[str, str] = Field(default_factory=dict)


class WireBill(_Answer):
    invoice: WireInvoice
    rows: Annotated[tuple[FocusRow, ...], Field(strict=False)]


class ProblemCode(StrEnum):
    INVALID_REQUEST = "invalid_request"
    UNAUTHORIZED = "unauthorized"
    NOT_FOUND = "not_found"
    INSUFFICIENT_CAPACITY = "insufficient_capacity"
    QUOTE_EXPIRED = "quote_expired"
    HOLD_LAPSED = "hold_lapsed"
    KEY_REUSED = "key_reused"
    NODE_TAKEN = "node_taken"
    RATE_LIMITED = "rate_limited"
    UNAVAILABLE = "unavailable"


class Problem(_Answer):
    """RFC 9457, media type application/problem+json."""

    type: str
    title: str
    status: int
    detail: str = ""
    code: Annotated[ProblemCode, Field(strict=False)]


EVENT: TypeAdapter[PriceEvent | ReclaimEvent] = TypeAdapter(WireEvent)
