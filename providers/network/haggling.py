"""Talking about a posted price: the network's side of a request for quotes with counter-offers.

The network goes down from its ask to its lowest price in even steps, one a round. It takes a proposal that is no worse
than its own next step, answers a low one with that step as a firm counter-offer, and rejects an absurd one, which ends
nothing: while rounds are left the buyer may propose again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal

from providers.network import wire
from providers.network.records import Quote
from providers.network.stock import Lot, Refused
from providers.network.wire import ProblemCode, QuoteKind
from providers.network.wire_talks import NegotiationState, Reply, WireNegotiation

_STEP = Decimal("0.000001")
_ABSURD_SHARE = Decimal("0.7")
"""Of the lowest price: who proposes less gets no counter-offer."""
_LASTS = timedelta(minutes=5)

GiveQuote = Callable[[Decimal, QuoteKind], Quote]


@dataclass
class Talk:
    """One conversation; ``quote`` is the best firm price so far."""

    negotiation_id: str
    tenant: str
    lot: Lot
    ask: Decimal
    quote: Quote
    rounds: int
    expires_at: datetime
    round: int = 0
    state: NegotiationState = NegotiationState.OPEN
    reply: Reply = Reply.ASKED
    reason: str = ""

    def propose(self, price: Decimal, now: datetime, give_quote: GiveQuote) -> None:
        """Raises Refused when the conversation is over."""
        if not self.open_at(now):
            raise Refused(ProblemCode.NEGOTIATION_OVER, f"negotiation {self.negotiation_id} is over")
        if price <= 0:
            raise Refused(ProblemCode.INVALID_REQUEST, "a proposal must be above 0")
        self.round += 1
        lowest = self.ask * self.lot.listing.lowest_share_of_ask
        step = (self.ask - (self.ask - lowest) * self.round / self.rounds).quantize(_STEP, rounding=ROUND_HALF_EVEN)
        standing = self.quote.firm.unit_price.amount
        if price >= min(step, standing):
            self._answer(Reply.ACCEPTED, "")
            self.quote = give_quote(min(price, standing), QuoteKind.AGREED)
            self.state = NegotiationState.AGREED
        elif price < lowest * _ABSURD_SHARE:
            self._answer(Reply.REJECTED, "far below what this is sold for")
        elif step < standing:
            self._answer(Reply.COUNTERED, "")
            self.quote = give_quote(step, QuoteKind.COUNTER)
        else:
            self._answer(Reply.REJECTED, "the price does not go down")
        if self.state is NegotiationState.OPEN and self.round >= self.rounds:
            self.state = NegotiationState.OVER

    def open_at(self, now: datetime) -> bool:
        return self.state is NegotiationState.OPEN and now < self.expires_at

    def end(self) -> None:
        """The buyer walks away. Idempotent."""
        if self.state is NegotiationState.OPEN:
            self.state = NegotiationState.OVER

    def _answer(self, reply: Reply, reason: str) -> None:
        self.reply, self.reason = reply, reason

    def view(self, now: datetime) -> WireNegotiation:
        over = self.state is NegotiationState.OPEN and not self.open_at(now)
        firm = self.quote.firm
        return WireNegotiation(
            negotiation_id=self.negotiation_id,
            offer_id=firm.offer_id,
            quantity=firm.quantity,
            term=wire.WireTerm(start=firm.term.start, end=firm.term.end),
            state=NegotiationState.OVER if over else self.state,
            reply=self.reply,
            quote=firm,
            rounds_left=self.rounds - self.round if self.open_at(now) else 0,
            expires_at=self.expires_at,
            reason=self.reason,
        )


def opened(negotiation_id: str, tenant: str, lot: Lot, ask: Quote, rounds: int, now: datetime) -> Talk:
    return Talk(negotiation_id, tenant, lot, ask.firm.unit_price.amount, ask, rounds, now + _LASTS)
