"""What a network remembers of its business (quotes, holds, units) and how each is shown on the wire."""

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from engine.model.value import Interval
from providers.network import wire
from providers.network.auction import Bid
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
        if self.firm.kind is QuoteKind.AUCTION and self.firm.expires_at > now:
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
    idle_spans: list[tuple[datetime, datetime]] = field(default_factory=list)
    """Units that were paid for without a node, each from when to when; those that still are come on top."""

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

    def ended_at(self, now: datetime) -> datetime | None:
        """When it ended, if it has; a reclaim ends it without anybody asking."""
        ends = [moment for moment in (self.stopped_at, self.reclaim and self.reclaim.at) if moment and moment <= now]
        return min(ends, default=None)


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


def idle_spans(hold: Hold, paid_at: datetime, now: datetime) -> list[Span]:
    idle = 0 if hold.released else hold.quantity - hold.started
    periods = [*hold.idle_spans, *[(paid_at, now)] * idle]
    price, lot = hold.quote.firm.unit_price.amount, hold.quote.lot
    listed = list_price(lot, price, paid_at)
    return [
        Span(f"{hold.hold_id}.{number}", lot.listing, listed, price, start, end, False)
        for number, (start, end) in enumerate(periods)
        if end > start
    ]


def bid_view(bid: Bid, quote: Quote | None, currency: str) -> wire.WireBid:
    decided = wire.BidStatus.WON if bid.won else wire.BidStatus.LOST
    cleared = bid.clearing_price
    return wire.WireBid(
        bid_id=bid.bid_id,
        auction_id=bid.auction_id,
        status=decided if bid.decided else wire.BidStatus.PENDING,
        quantity=bid.quantity,
        unit_price=wire.WireMoney(amount=bid.unit_price, currency=currency),
        decides_at=bid.decides_at,
        clearing_price=None if cleared is None else wire.WireMoney(amount=cleared, currency=currency),
        quote=quote.firm if quote else None,
        reason=bid.reason,
    )


def hold_view(hold: Hold, now: datetime) -> wire.WireHold:
    return wire.WireHold(
        hold_id=hold.hold_id,
        quote_id=hold.quote.firm.quote_id,
        quantity=hold.quantity,
        started=hold.started,
        unit_price=hold.quote.firm.unit_price,
        state=hold.state(now),
        expires_at=hold.expires_at,
        paid_at=hold.paid_at,
    )


def reservation_view(unit: Unit, now: datetime, currency: str) -> wire.WireReservation:
    ended_at = unit.ended_at(now)
    listing = unit.listing
    return wire.WireReservation(
        reservation_id=unit.reservation_id,
        hold_id=unit.hold_id,
        offer_id=listing.offer_id,
        node=unit.node,
        token=unit.token,
        region=listing.region,
        zone=listing.zone,
        instance_type=listing.instance_type,
        option=listing.option,
        unit_price=wire.WireMoney(amount=unit.unit_price, currency=currency),
        state=wire.ReservationState.ENDED if ended_at else wire.ReservationState.RUNNING,
        started_at=unit.started_at,
        ended_at=ended_at,
    )


def instance_view(unit: Unit) -> wire.WireInstance:
    return wire.WireInstance(
        instance_id=unit.reservation_id,
        node=unit.node,
        token=unit.token,
        region=unit.listing.region,
        zone=unit.listing.zone,
        instance_type=unit.listing.instance_type,
        state=wire.ReservationState.RUNNING,
        launched_at=unit.started_at,
    )
