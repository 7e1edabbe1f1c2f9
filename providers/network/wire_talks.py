"""Conversations over the Open Capacity API: requests for quotes with counter-offers, and reverse auctions."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from providers.network.wire import (
    Answer,
    Asked,
    Identifier,
    Quantity,
    Time,
    WireMoney,
    WireQuote,
    WireResources,
    WireTerm,
)


class NegotiationRequest(Asked):
    """Opens a conversation about the price; the first answer is the posted one, as a firm quote."""

    offer_id: Identifier
    quantity: Quantity
    term: WireTerm


class Proposal(Asked):
    """What the buyer would pay per unit-hour."""

    unit_price: WireMoney


class NegotiationState(StrEnum):
    OPEN = "open"
    """The buyer may propose (again)."""
    AGREED = "agreed"
    OVER = "over"
    """No more proposals are taken; the last firm quote stands until it expires."""


class Reply(StrEnum):
    ASKED = "asked"
    ACCEPTED = "accepted"
    COUNTERED = "countered"
    REJECTED = "rejected"
    """Not at that price, and no other one is named. Not final: while the negotiation is open, propose again."""


class WireNegotiation(Answer):
    """Nothing is bought by talking: hold ``quote`` before it expires, or leave it."""

    negotiation_id: Identifier
    offer_id: Identifier
    quantity: Quantity
    term: WireTerm
    state: Annotated[NegotiationState, Field(strict=False)]
    reply: Annotated[Reply, Field(strict=False)]
    quote: WireQuote
    """The best firm price so far."""
    rounds_left: Annotated[int, Field(ge=0)]
    expires_at: Time
    reason: str = ""


class ReverseRequest(Asked):
    """A need that sellers undercut each other for, at no more than ``ceiling`` per unit-hour."""

    at_least: WireResources
    quantity: Quantity
    term: WireTerm
    ceiling: WireMoney


class ReverseState(StrEnum):
    OPEN = "open"
    AWARDED = "awarded"
    FAILED = "failed"


class WireAsk(Answer):
    """What one seller asks now; it may still go down."""

    offer_id: Identifier
    unit_price: WireMoney


class WireReverseAuction(Answer):
    """Awarded to the lowest ask when it closes. Winning commits to nothing: hold the quote before it expires."""

    auction_id: Identifier
    state: Annotated[ReverseState, Field(strict=False)]
    ceiling: WireMoney
    quantity: Quantity
    term: WireTerm
    closes_at: Time
    asks: Annotated[tuple[WireAsk, ...], Field(strict=False)]
    """Cheapest first."""
    quote: WireQuote | None = None
    reason: str = ""
