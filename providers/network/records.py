"""What a network remembers of its business: quotes, holds, units, and the metered spans that they come to."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from engine.model.value import Interval
from providers.network import wire
from providers.network.stock import Listing, Lot
from providers.network.wire import HoldState, QuoteKind


@dataclass
class Quote:
    tenant: str
    lot: Lot
    firm: wire.WireQuote
    taken: int = 0

    def put_back(self, units: int, now: datetime) -> None:
        """Units that were held are only quoted again; those of a won quote are kept until it expires."""
        self.taken -= units
        if self.firm.kind in (QuoteKind.AUCTION, QuoteKind.REVERSE) and self.firm.expires_at > now:
            self.lot.give_back(self.firm.quote_id)
            self.lot.claim(self.firm.quote_id, self.firm.quantity - self.taken, self.firm.expires_at, now)


@dataclass
class Hold:
    tenant: str
    hold_id: str
    quote: Quote
    quantity: int
    expires_at: datetime
    started: int = 0
    paid_at: datetime | None = None
    released: bool = False
    idle_since: list[datetime] = field(default_factory=list)
    """Of every unit that is paid for without a node, since when."""
    idle_spans: list[tuple[datetime, datetime]] = field(default_factory=list)
    """Units that were paid for without a node, each from when to when."""

    @property
    def waiting(self) -> int:
        """Units without a node."""
        return self.quantity - self.started

    def pay(self, now: datetime) -> None:
        self.paid_at = now
        self.idle_since = [now] * self.waiting

    def resize(self, quantity: int, now: datetime) -> None:
        more = quantity - self.quantity
        self.quantity = quantity
        if self.paid_at is not None:
            self.idle_since += [now] * max(0, more)
            self._no_longer_idle(max(0, -more), now)

    def start_one(self, now: datetime) -> None:
        self.started += 1
        self._no_longer_idle(1, now)

    def release(self, now: datetime) -> None:
        self.released = True
        self._no_longer_idle(len(self.idle_since), now)

    def _no_longer_idle(self, units: int, now: datetime) -> None:
        for _ in range(min(units, len(self.idle_since))):
            self.idle_spans.append((self.idle_since.pop(0), now))

    def state(self, now: datetime) -> HoldState:
        if self.released:
            return HoldState.RELEASED
        if self.paid_at is not None:
            return HoldState.PAID
        return HoldState.LAPSED if self.expires_at <= now and self.started < self.quantity else HoldState.HELD


@dataclass(frozen=True)
class Reclaim:
    """The network takes a unit back: told at ``seen_at``, gone at ``at``."""

    seen_at: datetime
    at: datetime
    reason: str


@dataclass
class Unit:
    """One reservation: a unit that runs, or ran, as a node."""

    reservation_id: str
    tenant: str
    hold_id: str
    listing: Listing
    node: str
    token: str
    user_data: str = field(repr=False)
    tags: dict[str, str]
    unit_price: Decimal
    started_at: datetime
    stopped_at: datetime | None = None
    reclaim: Reclaim | None = None
    resized_at: datetime | None = None
    """Since when it has been what it is now; None: from its start."""
    was: list["Stretch"] = field(default_factory=list)

    def resize(self, listing: Listing, unit_price: Decimal, now: datetime) -> None:
        self.was.append(Stretch(self.listing, self.unit_price, self.resized_at or self.started_at, now))
        self.listing, self.unit_price, self.resized_at = listing, unit_price, now

    def stretches(self, now: datetime) -> list["Stretch"]:
        last = Stretch(self.listing, self.unit_price, self.resized_at or self.started_at, self.ended_at(now) or now)
        return [*self.was, last]

    def ended_at(self, now: datetime) -> datetime | None:
        """When it ended, if it has; a reclaim ends it without anybody asking."""
        ends = [moment for moment in (self.stopped_at, self.reclaim and self.reclaim.at) if moment and moment <= now]
        return min(ends, default=None)


@dataclass(frozen=True)
class Stretch:
    """Time that a unit ran as one thing at one price."""

    listing: Listing
    unit_price: Decimal
    start: datetime
    end: datetime


@dataclass(frozen=True)
class Span:
    """Metered time of one unit at one price: ``used`` by a node, or paid for and idle."""

    resource_id: str
    listing: Listing
    list_price: Decimal
    unit_price: Decimal
    start: datetime
    end: datetime
    used: bool
    tags: tuple[tuple[str, str], ...] = ()

    def within(self, period: Interval) -> Interval | None:
        start, end = max(self.start, period.start), min(self.end, period.end)
        return Interval(start=start, end=end) if start < end else None


def list_price(lot: Lot, paid: Decimal, at: datetime) -> Decimal:
    """The ask when it was sold; an auction has no list price but what was paid."""
    if lot.listing.auction is not None:
        return paid
    return [price for since, price in lot.prices if since <= at][-1]


def used_spans(unit: Unit, lots: Mapping[str, Lot], now: datetime) -> list[Span]:
    tags = tuple(sorted(unit.tags.items()))
    spans = []
    for stretch in unit.stretches(now):
        listed = list_price(lots[stretch.listing.offer_id], stretch.unit_price, stretch.start)
        spans.append(
            Span(
                unit.reservation_id, stretch.listing, listed, stretch.unit_price, stretch.start, stretch.end, True, tags
            )
        )
    return spans


def idle_spans(hold: Hold, paid_at: datetime, now: datetime) -> list[Span]:
    periods = [*hold.idle_spans, *((since, now) for since in hold.idle_since)]
    price, lot = hold.quote.firm.unit_price.amount, hold.quote.lot
    listed = list_price(lot, price, paid_at)
    return [
        Span(f"{hold.hold_id}.{number}", lot.listing, listed, price, start, end, False)
        for number, (start, end) in enumerate(periods)
        if end > start
    ]
