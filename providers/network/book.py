"""What every part of a network shares: its terms, stock, quotes, signature, events, and the keys of past purchases."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from uuid import uuid4

from engine.clock import Clock
from engine.model.value import Interval
from providers.network import wire
from providers.network.events import EventLog
from providers.network.records import Quote
from providers.network.signing import Signer
from providers.network.stock import Listing, Lot, Refused, lots
from providers.network.wire import ProblemCode, QuoteKind


@dataclass(frozen=True)
class Terms:
    """How a network does business. ``meter_speed`` metered hours pass in one real hour."""

    name: str
    currency: str = "USD"
    offer_lasts: timedelta = timedelta(minutes=5)
    quote_lasts: timedelta = timedelta(minutes=5)
    hold_lasts: timedelta = timedelta(minutes=15)
    reverse_lasts: timedelta = timedelta(seconds=2)
    """How long the sellers of a reverse auction undercut each other."""
    negotiation_rounds: int = 5
    meter_speed: Decimal = Decimal(1)


def uuid() -> str:
    return uuid4().hex


def available() -> bool:
    return False


class Book:
    """Called under ``lock`` alone; ``now`` first runs ``due``, what falls due by itself."""

    def __init__(
        self,
        listings: Sequence[Listing],
        terms: Terms,
        *,
        clock: Clock,
        sold_out: Callable[[], bool] = available,
        new_id: Callable[[], str] = uuid,
        signer: Signer | None = None,
    ) -> None:
        self.terms, self.sold_out, self._clock, self._new_id = terms, sold_out, clock, new_id
        self.signer = signer or Signer(terms.name)
        self.lock = threading.RLock()
        self.lots = lots(listings, clock.now())
        self.quotes: dict[str, Quote] = {}
        self.events = EventLog()
        self.due: list[Callable[[datetime], None]] = []
        self._keys: dict[tuple[str, str, str], tuple[str, str]] = {}

    def now(self) -> datetime:
        moment = self._clock.now()
        for settle in self.due:
            settle(moment)
        return moment

    def new_id(self, kind: str) -> str:
        return f"{kind}-{self._new_id()}"

    # --- purchases that were made -----------------------------------------------------------------------------------

    def replayed(self, tenant: str, verb: str, key: str, asked: str) -> str | None:
        """What this key bought before, if anything. Raises Refused when the key was used for something else."""
        known = self._keys.get((tenant, verb, key))
        if known is None:
            return None
        if known[0] != _fingerprint(asked):
            raise Refused(ProblemCode.KEY_REUSED, "this idempotency key was used for another request")
        return known[1]

    def made_with(self, tenant: str, verb: str, key: str) -> str | None:
        """As ``replayed``, whatever was asked."""
        known = self._keys.get((tenant, verb, key))
        return None if known is None else known[1]

    def remember(self, tenant: str, verb: str, key: str, asked: str, made: str) -> None:
        self._keys[tenant, verb, key] = (_fingerprint(asked), made)

    # --- money and stock --------------------------------------------------------------------------------------------

    def money(self, amount: Decimal) -> wire.WireMoney:
        return wire.WireMoney(amount=amount, currency=self.terms.currency)

    def amount(self, money: wire.WireMoney, what: str) -> Decimal:
        """In this network's currency and above 0. Raises Refused."""
        if money.currency != self.terms.currency:
            raise Refused(ProblemCode.INVALID_REQUEST, f"this network trades in {self.terms.currency}")
        if money.amount <= 0:
            raise Refused(ProblemCode.INVALID_REQUEST, f"{what} must be above 0")
        return money.amount

    def lot(self, offer_id: str) -> Lot:
        if offer_id not in self.lots:
            raise Refused(ProblemCode.NOT_FOUND, f"no offer {offer_id}")
        return self.lots[offer_id]

    def posted_lot(self, offer_id: str) -> Lot:
        """Of an offer at a posted price. Raises Refused for an auction."""
        lot = self.lot(offer_id)
        if lot.listing.auction is not None:
            raise Refused(ProblemCode.INVALID_REQUEST, f"{offer_id} is sold by auction: bid for it")
        return lot

    def check_free(self, lot: Lot, quantity: int, now: datetime) -> None:
        free = 0 if self.sold_out() else lot.free(now)
        if free < quantity:
            raise Refused(
                ProblemCode.INSUFFICIENT_CAPACITY, f"{quantity} of {lot.listing.offer_id} wanted, {free} free"
            )

    def give_quote(
        self,
        tenant: str,
        lot: Lot,
        quantity: int,
        price: Decimal,
        term: Interval,
        kind: QuoteKind,
        at: datetime,
        *,
        nonce: str | None = None,
        lasts: timedelta | None = None,
    ) -> Quote:
        """Firm and signed. ``lasts``: less than this network gives, if the buyer wants less."""
        quote = wire.WireQuote(
            quote_id=self.new_id("quote"),
            offer_id=lot.listing.offer_id,
            quantity=quantity,
            unit_price=self.money(price),
            term=wire.WireTerm(start=term.start, end=term.end),
            expires_at=at + min(self.terms.quote_lasts, lasts or self.terms.quote_lasts),
            kind=kind,
        )
        signed = self.signer.sign_quote(quote, at, buyer=tenant, nonce=nonce)
        self.quotes[quote.quote_id] = Quote(tenant, lot, signed)
        return self.quotes[quote.quote_id]


def checked_term(term: wire.WireTerm, now: datetime) -> Interval:
    if term.end <= term.start or term.end <= now:
        raise Refused(ProblemCode.INVALID_REQUEST, "the term must end after its start and after now")
    return Interval(start=term.start, end=term.end)


def _fingerprint(asked: str) -> str:
    return sha256(asked.encode()).hexdigest()
