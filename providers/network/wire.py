"""What travels over the Open Capacity API, version 1: types, offers, quotes, auctions, holds, reservations.

JSON; money and rates as text; times as RFC 3339 with a zone. Conversations (requests for quotes, reverse auctions) are
in ``wire_talks``, events and bills in ``wire_records``.

Requests refuse unknown fields. Answers ignore them, so that a network may add a field without breaking anybody.
"""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

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
Nonce = Annotated[str, Field(min_length=1, max_length=200)]
Lasting = Annotated[float, Field(ge=0.1, le=86_400, description="at most this many seconds; a network may give less")]
Proof = Annotated[
    str,
    Field(
        min_length=1,
        max_length=8_000,
        description="Compact JWS, Ed25519, over the claims as JSON; its kid names a key of /v1/keys.",
    ),
]
OptionName = Annotated[PurchaseOption, Field(strict=False)]


class Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)


class Asked(BaseModel):
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


class WireResources(Answer):
    """One unit: vCPUs, GiB, operations a second, Mbit/s."""

    vcpus: float
    memory_gib: float
    storage_iops: float = 0.0
    network_mbps: float = 0.0


class MeasuredPerformance(Answer):
    """What benchmarks on running units came to, on the scale of ``WireOffer.performance``."""

    score: Annotated[float, Field(gt=0)]
    samples: Annotated[int, Field(ge=1)]
    measured_at: Time


class ShardTypePlace(Answer):
    """Where a type is sold: how many units are free there now, and the lowest posted or reserve price."""

    region: str
    zone: str
    options: Annotated[tuple[OptionName, ...], Field(strict=False)]
    available: Annotated[int, Field(ge=0)]
    price_from: WireMoney


class WireShardType(Answer):
    """A kind of unit. Every offer of this ``instance_type`` has exactly these resources."""

    instance_type: str
    resources: WireResources
    performance: Annotated[float, Field(gt=0)]
    measured: MeasuredPerformance | None = None
    places: Annotated[tuple[ShardTypePlace, ...], Field(strict=False)]


class WirePricePoint(Answer):
    at: Time
    price: WireMoney


class DeliveryWindow(Answer):
    """A confirmed unit starts between these moments."""

    earliest: Time
    latest: Time


class WireOffer(Answer):
    """Posted, no promise. ``price`` is per unit-hour; for an auction it is the reserve price."""

    offer_id: Identifier
    region: str
    zone: str
    instance_type: str
    resources: WireResources
    performance: float
    """Nominal single-core score relative to the reference core (1.0)."""
    measured: MeasuredPerformance | None = None
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
    proof: Proof | None = None
    """The network's signature over ``OfferClaims``. A buyer refuses an offer without one."""


class OfferClaims(Answer):
    """What the signature of an offer vouches for."""

    issuer: str
    signed_at: Time
    offer_id: Identifier
    region: str
    zone: str
    instance_type: str
    resources: WireResources
    performance: float
    option: OptionName
    price: WireMoney
    price_at: Time
    expires_at: Time


class QuoteRequest(Asked):
    """A price for this many units, to be taken or left; who wants to talk about it opens a negotiation."""

    offer_id: Identifier
    quantity: Quantity
    term: WireTerm
    nonce: Nonce | None = None
    """Comes back in the signed claims, so that an old answer cannot pass for this one."""
    lasts_seconds: Lasting | None = None


class QuoteKind(StrEnum):
    ASK = "ask"
    """The posted price."""
    COUNTER = "counter"
    """The network's answer to a proposal below its ask."""
    AGREED = "agreed"
    """The buyer's own proposal, taken."""
    AUCTION = "auction"
    """Won; the units are kept until the quote expires."""
    REVERSE = "reverse"
    """The lowest ask of a reverse auction; the units are kept until the quote expires."""


class WireQuote(Answer):
    """Firm until ``expires_at``: never dearer than ``unit_price`` per unit-hour for the whole term."""

    quote_id: Identifier
    offer_id: Identifier
    quantity: Quantity
    unit_price: WireMoney
    term: WireTerm
    expires_at: Time
    kind: Annotated[QuoteKind, Field(strict=False)]
    proof: Proof | None = None
    """The network's signature over ``QuoteClaims``: with it the buyer can show what was promised."""


class QuoteClaims(Answer):
    """What the signature of a quote vouches for. ``buyer`` is the tenant it was given to."""

    issuer: str
    buyer: str
    signed_at: Time
    quote_id: Identifier
    offer_id: Identifier
    quantity: Quantity
    unit_price: WireMoney
    term: WireTerm
    expires_at: Time
    kind: Annotated[QuoteKind, Field(strict=False)]
    nonce: Nonce | None = None


class WireAuctionRule(StrEnum):
    SEALED_FIRST_PRICE = "sealed_first_price"
    """A winner pays its own bid."""
    SEALED_SECOND_PRICE = "sealed_second_price"
    """Every winner pays the highest bid that lost (or the reserve price)."""
    OPEN_ASCENDING = "open_ascending"
    """Bids are seen and may be raised until the round closes; a winner pays its own last bid."""


class WireRound(Answer):
    closed_at: Time
    clearing_price: WireMoney


class WireAuction(Answer):
    """A standing auction: a round closes every ``period_seconds``; a bid takes part in the round that is open."""

    auction_id: Identifier
    offer_id: Identifier
    rule: Annotated[WireAuctionRule, Field(strict=False)]
    reserve_price: WireMoney
    available: int
    period_seconds: float
    closes_at: Time
    standing_price: WireMoney | None = None
    """Open ascending: the lowest bid that would lead now. Sealed auctions tell nothing before they close."""
    recent: Annotated[tuple[WireRound, ...], Field(strict=False)] = ()


class BidRequest(Asked):
    """Up to ``quantity`` units at up to ``unit_price`` each; fewer may be won."""

    quantity: Quantity
    unit_price: WireMoney
    term: WireTerm
    raises: Identifier | None = None
    """Open ascending: the buyer's earlier bid of this round, which this higher one takes the place of."""


class BidStatus(StrEnum):
    PENDING = "pending"
    RAISED = "raised"
    """The buyer put a higher bid in its place."""
    WON = "won"
    LOST = "lost"


class WireBid(Answer):
    bid_id: Identifier
    auction_id: Identifier
    status: Annotated[BidStatus, Field(strict=False)]
    quantity: Quantity
    unit_price: WireMoney
    decides_at: Time
    leading: int | None = None
    """Open ascending, while pending: for how many units this bid leads now."""
    clearing_price: WireMoney | None = None
    quote: WireQuote | None = None
    """Set when won; its quantity is what was won."""
    reason: str = ""
    raised_by: Identifier | None = None
    """The bid that took this one's place."""


class HoldRequest(Asked):
    """``quantity`` may be less than the quote's; several holds may share one quote."""

    quote_id: Identifier
    quantity: Quantity
    lasts_seconds: Lasting | None = None


class ResizeHoldRequest(Asked):
    """How many units the hold is to have: no fewer than were started, no more than were quoted."""

    quantity: Quantity


class HoldState(StrEnum):
    HELD = "held"
    """Kept for the buyer until ``expires_at``, free of charge."""
    PAID = "paid"
    """Units without a node are kept, and charged, until they start or are released."""
    RELEASED = "released"
    LAPSED = "lapsed"


class WireHold(Answer):
    hold_id: Identifier
    quote_id: Identifier
    quantity: Quantity
    started: Annotated[int, Field(ge=0)]
    """Units that a node was started on so far."""
    unit_price: WireMoney
    state: Annotated[HoldState, Field(strict=False)]
    expires_at: Time
    paid_at: Time | None = None


class ConfirmRequest(Asked):
    """Start one unit of the hold as this node. The same node and token is the same reservation, whichever the hold."""

    node: Identifier
    token: Annotated[str, Field(min_length=1, max_length=400)]
    user_data: Annotated[str, Field(max_length=64 * 1024, repr=False)]
    tags: Annotated[dict[str, str], Field(max_length=20)] = Field(default_factory=dict)


class ReservationState(StrEnum):
    RUNNING = "running"
    ENDED = "ended"


class WireReservation(Answer):
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


class ResizeRequest(Asked):
    """Turn a running unit into one of another offer in the same zone, at no more than ``limit_price`` an hour."""

    offer_id: Identifier
    limit_price: WireMoney


class WireInstance(Answer):
    """The machine behind a reservation; it has the reservation's id."""

    instance_id: Identifier
    node: str
    token: str
    region: str
    zone: str
    instance_type: str
    state: Annotated[ReservationState, Field(strict=False)]
    launched_at: Time


class RatePolicy(Answer):
    """``per_second`` requests on average and ``burst`` at once, per tenant; beyond it the answer is 429."""

    per_second: Annotated[float, Field(gt=0)]
    burst: Annotated[int, Field(ge=1)]


class WireTerms(Answer):
    """How a network does business. ``*_lasts_seconds``: unless the buyer asks for less."""

    api_version: str
    name: str
    currency: CurrencyCode
    quote_lasts_seconds: Annotated[float, Field(gt=0)]
    hold_lasts_seconds: Annotated[float, Field(gt=0)]
    rate_limit: RatePolicy
    negotiation_rounds: Annotated[int, Field(ge=0)]
    """Proposals that a negotiation takes; 0: prices are not talked about."""
    auction_rules: Annotated[tuple[Annotated[WireAuctionRule, Field(strict=False)], ...], Field(strict=False)]
    reverse_auctions: bool
    event_stream: bool = False
    """Whether /v1/events/stream tells what happens as it happens; else a buyer asks /v1/events again and again."""


class VerificationKey(Answer):
    """RFC 8037: an Ed25519 public key. ``kid`` is its RFC 7638 thumbprint."""

    kty: str
    crv: str
    x: str
    kid: str
    use: str = "sig"
    alg: str = "Ed25519"


class KeyList(Answer):
    """A JSON Web Key Set. Keys that signed something not yet expired stay on it."""

    keys: Annotated[tuple[VerificationKey, ...], Field(strict=False)]


class ShardTypeList(Answer):
    shard_types: Annotated[tuple[WireShardType, ...], Field(strict=False)]


class OfferList(Answer):
    offers: Annotated[tuple[WireOffer, ...], Field(strict=False)]


class AuctionList(Answer):
    auctions: Annotated[tuple[WireAuction, ...], Field(strict=False)]


class ReservationList(Answer):
    reservations: Annotated[tuple[WireReservation, ...], Field(strict=False)]


class InstanceList(Answer):
    instances: Annotated[tuple[WireInstance, ...], Field(strict=False)]


class ProblemCode(StrEnum):
    INVALID_REQUEST = "invalid_request"
    UNAUTHORIZED = "unauthorized"
    NOT_FOUND = "not_found"
    INSUFFICIENT_CAPACITY = "insufficient_capacity"
    QUOTE_EXPIRED = "quote_expired"
    HOLD_LAPSED = "hold_lapsed"
    KEY_REUSED = "key_reused"
    NODE_TAKEN = "node_taken"
    BID_TOO_LOW = "bid_too_low"
    PRICE_ABOVE_LIMIT = "price_above_limit"
    NEGOTIATION_OVER = "negotiation_over"
    RATE_LIMITED = "rate_limited"
    UNAVAILABLE = "unavailable"


class Problem(Answer):
    """RFC 9457, media type application/problem+json."""

    type: str
    title: str
    status: int
    detail: str = ""
    code: Annotated[ProblemCode, Field(strict=False)]
