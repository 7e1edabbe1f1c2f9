"""Reverse auctions: a buyer posts a need, sellers undercut each other until it closes; the lowest ask is awarded.

Every lot at a posted price that carries the need is a seller; it goes down to its lowest price if it must. What a
seller asks falls evenly from its ask to where the undercutting ends: just below the runner-up's lowest price, and never
below its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal

from engine.model.value import Interval
from providers.network import wire
from providers.network.records import Quote
from providers.network.stock import Lot
from providers.network.wire_talks import ReverseState, WireAsk, WireReverseAuction

_STEP = Decimal("0.000001")


@dataclass(frozen=True)
class Seller:
    offer_id: str
    ask: Decimal
    lowest: Decimal


@dataclass
class ReverseAuction:
    auction_id: str
    tenant: str
    quantity: int
    term: Interval
    ceiling: Decimal
    opened_at: datetime
    closes_at: datetime
    sellers: tuple[Seller, ...]
    state: ReverseState = ReverseState.OPEN
    quote: Quote | None = None
    reason: str = ""

    def view(self, now: datetime, currency: str) -> WireReverseAuction:
        def money(amount: Decimal) -> wire.WireMoney:
            return wire.WireMoney(amount=amount, currency=currency)

        standing = self.asks(min(now, self.closes_at))
        return WireReverseAuction(
            auction_id=self.auction_id,
            state=self.state,
            ceiling=money(self.ceiling),
            quantity=self.quantity,
            term=wire.WireTerm(start=self.term.start, end=self.term.end),
            closes_at=self.closes_at,
            asks=tuple(WireAsk(offer_id=offer_id, unit_price=money(price)) for offer_id, price in standing),
            quote=self.quote.firm if self.quote else None,
            reason=self.reason,
        )

    def asks(self, at: datetime) -> list[tuple[str, Decimal]]:
        """(offer id, price per unit-hour), cheapest first."""
        share = (at - self.opened_at) / (self.closes_at - self.opened_at)
        done = Decimal(repr(min(1.0, max(0.0, share))))
        final = final_asks(self.sellers, self.ceiling)
        shown = [
            (one.offer_id, (one.ask - (one.ask - final[one.offer_id]) * done).quantize(_STEP, rounding=ROUND_HALF_EVEN))
            for one in self.sellers
        ]
        return sorted(shown, key=lambda one: (one[1], one[0]))


def seller_of(lot: Lot) -> Seller:
    lowest = (lot.ask * lot.listing.lowest_share_of_ask).quantize(_STEP, rounding=ROUND_HALF_EVEN)
    return Seller(lot.listing.offer_id, lot.ask, lowest)


def final_asks(sellers: Sequence[Seller], ceiling: Decimal) -> dict[str, Decimal]:
    """Where each seller ends. Losers end at their lowest price, the winner as high as still wins. Pure."""
    ordered = sorted(sellers, key=lambda one: (one.lowest, one.offer_id))
    final = {one.offer_id: one.lowest for one in ordered}
    if ordered:
        winner, others = ordered[0], ordered[1:]
        beaten = others[0].lowest - _STEP if others else winner.ask
        final[winner.offer_id] = max(winner.lowest, min(winner.ask, beaten, ceiling))
    return final
