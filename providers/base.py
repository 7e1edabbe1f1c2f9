"""The market side of a provider: values in, values out; knows nothing of Pulumi.

A provider implements ``Provider``; optional powers are the ``Supports…`` protocols, found with isinstance.
Errors: ``engine.errors.PROVIDER_PROBLEMS`` and their children, nothing else. Every outside call has a time-out and
bounded retries with jitter; every call that buys carries an idempotency key.
"""

from collections.abc import Collection, Generator, Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Protocol, runtime_checkable

from pydantic import Field, SecretStr

from engine.model.attestation import AttestedInstance
from engine.model.billing import BillDelivery
from engine.model.ids import NodeId, OfferId
from engine.model.market import Hold, Offer, OfferQuery, Quote, ReclaimNotice, Reservation
from engine.model.money import Money
from engine.model.plan import OfferRejection
from engine.model.value import Interval, Utc, Value


class ProviderSettings(Value):
    """One ``[[providers]]`` table of shardwright.toml, parsed."""

    name: str
    kind: str
    """Registry key: aws, gcp, azure, network."""
    account: str
    """AWS account id, Google project, Azure subscription, network tenant."""
    regions: tuple[str, ...]
    endpoint: str | None = None
    """Base URL; None: the provider's public endpoints."""
    ca_file: str | None = None
    """Certificate authority for ``endpoint`` where it is not a public one."""
    metadata_url: str | None = None
    """Instance metadata address that agents watch; None: the provider's well-known one."""
    attestation_keys: str | None = None
    """What its nodes' signed identity is checked against: a file (PEM certificates, or Google's keys as a JSON Web Key
    Set) or the https URL of such a key set; None: nodes join with a one-use token."""
    credentials: dict[str, SecretStr] = Field(default_factory=dict)
    """Resolved from the environment by the configuration loader (``credentials.KEY = {env = "NAME"}``)."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 10.0
    signing_keys: tuple[str, ...] = ()
    """RFC 7638 thumbprints of the keys that its prices must be signed with; empty: those of the first meeting."""


class InstanceRecord(Value):
    """What the provider itself says about an instance that carries our tag."""

    instance_id: str
    node: NodeId
    token: str
    """The ``shardwright-token`` tag: ``shard:<cell>:<node>:<generation>``."""
    region: str
    zone: str
    instance_type: str
    running: bool
    launched_at: Utc


class AuctionOutcome(Value):
    won: bool
    clearing_price: Money | None = None
    quote: Quote | None = None
    """Set when won: firm, to be held before it expires."""
    bid: Money | None = None
    """What was bid in the end; None: not told."""
    reason: str = ""


class OfferBook(Value):
    """Everything on the market, and what was posted but cannot be used, by name and reason."""

    offers: tuple[Offer, ...]
    rejections: tuple[OfferRejection, ...] = ()


class AuctionRule(StrEnum):
    FIRST_PRICE = "first_price"
    """A winner pays its own bid."""
    SECOND_PRICE = "second_price"
    """A winner pays the highest bid that lost."""
    OPEN_ASCENDING = "open_ascending"
    """Bids are seen and raised; a winner pays its own last bid."""


class AuctionTerms(Value):
    rule: AuctionRule
    reserve_price: Money
    closes_at: Utc
    """When the round that is open now closes."""


@runtime_checkable
class Provider(Protocol):
    name: str

    def offers(self, need: OfferQuery) -> Iterable[Offer]:
        """What is on the market now, priced. Read only; may be asked at any time."""
        ...

    def quote(self, offer: Offer, quantity: int, term: Interval) -> Quote:
        """A firm price for this many units. Raises InsufficientCapacity."""
        ...


@runtime_checkable
class SupportsHolds(Protocol):
    def hold(self, quote: Quote, *, key: str) -> Hold:
        """Keep the capacity. Same key, same hold. Raises QuoteExpired, InsufficientCapacity, PriceMismatch."""
        ...

    def confirm(self, hold: Hold) -> Reservation:
        """Pay. Idempotent. Raises NotFound when the hold has lapsed."""
        ...

    def release(self, hold_id: str) -> None:
        """Give up a hold or a reservation by the provider's own reference. Already gone = success."""
        ...


@runtime_checkable
class SupportsAuctions(Protocol):
    def bid(self, offer: Offer, quantity: int, price: Money, term: Interval, *, key: str) -> AuctionOutcome:
        """Take part in ``offer.auction_id`` and wait (bounded) for its result. Same key, same bid.

        ``price`` is bid where bids are sealed; where they are seen, no more than it takes, up to ``price``.
        """
        ...


class RfqReply(StrEnum):
    ACCEPTED = "accepted"
    COUNTERED = "countered"
    REJECTED = "rejected"
    """Not at that price, and no other was named; not the end of it."""


class RfqAnswer(Value):
    reply: RfqReply
    quote: Quote
    """The best firm price of the conversation so far; when accepted, at the price that was proposed or better."""
    final: bool = False
    """No further proposal will be heard."""
    reason: str = ""


@runtime_checkable
class SupportsRfq(Protocol):
    def propose(
        self, offer: Offer, quantity: int, price: Money, term: Interval, *, key: str, round_number: int
    ) -> RfqAnswer:
        """One proposal in the conversation ``key`` (opened by its first one). Same key and round, same answer.

        Commits to nothing: a quote is bought by holding it. Raises InsufficientCapacity.
        """
        ...


@runtime_checkable
class SupportsOfferBook(Protocol):
    def offer_book(self, need: OfferQuery) -> OfferBook:
        """As ``Provider.offers``, together with the offers that could not be read."""
        ...


@runtime_checkable
class SupportsAuctionTerms(Protocol):
    def auction_terms(self, offer: Offer) -> AuctionTerms:
        """The rules of ``offer.auction_id``. Raises NotFound."""
        ...


class Attestor(Protocol):
    """Checks what a provider signed about one of its instances."""

    def attested(self, evidence: str, challenge: str) -> AttestedInstance:
        """``evidence`` as the instance read it at its metadata address, asked for with ``challenge`` where the
        provider takes one. Raises AuthenticationFailed, whose ``why`` says what is wrong with it.
        """
        ...


@runtime_checkable
class SupportsInventory(Protocol):
    def instances(self) -> Sequence[InstanceRecord]:
        """Every instance of this account and these regions that carries our tag, pending ones included."""
        ...

    def terminate(self, instance_id: str) -> None:
        """Already gone = success."""
        ...


@runtime_checkable
class SupportsReclaimNotices(Protocol):
    def reclaim_notices(self, since: datetime) -> Iterable[ReclaimNotice]:
        """Notices that the provider publishes through its own API (others are seen by the agents)."""
        ...


class EventKind(StrEnum):
    RECLAIM = "reclaim"
    PRICE = "price"
    CAPACITY = "capacity"
    GAP = "gap"
    """Events up to this one are lost."""


class ProviderEvent(Value):
    """Something that a provider told as it happened."""

    id: str
    """What a later stream resumes behind."""
    kind: EventKind
    notice: ReclaimNotice | None = None
    """Set for a reclaim."""
    offer: OfferId | None = None
    """Whose price or capacity changed."""


@runtime_checkable
class SupportsEventStream(Protocol):
    def tells_events(self) -> bool:
        """Whether this provider says that it has a stream of events. One question to it."""
        ...

    def event_stream(self, after: str | None, *, wait_seconds: float) -> Generator[ProviderEvent, None, None]:
        """What happened behind the event ``after`` (None: all that is kept) and what happens in ``wait_seconds``.

        Blocks between events, never longer than a dead connection takes to be noticed. Raises ProviderUnavailable
        when the stream breaks or falls silent, ProviderAnswerInvalid on rubbish.
        """
        ...


class KeyMemory(Protocol):
    """Which keys each provider's signatures are taken from, kept between processes. Keys go by their thumbprints."""

    def meet(self, provider: str, keys: Collection[str]) -> frozenset[str]:
        """What is trusted of that provider. At the first meeting it is ``keys``, which are recorded."""
        ...


@runtime_checkable
class SupportsSigningKeys(Protocol):
    def remember_keys_in(self, memory: KeyMemory) -> None:
        """From now on only keys that ``memory`` trusts count, unless the configuration pins some."""
        ...

    def signing_keys(self) -> Sequence[str]:
        """The thumbprints of the keys that it publishes now."""
        ...


@runtime_checkable
class SupportsBills(Protocol):
    def bill(self, period: Interval) -> BillDelivery:
        """The newest delivery for a billing period."""
        ...
