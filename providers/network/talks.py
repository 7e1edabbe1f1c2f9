"""The conversations of a network with its buyers: negotiations and reverse auctions. Safe for threads."""

from datetime import datetime
from decimal import Decimal

from engine.model.capacity import Resources
from engine.model.value import Interval
from providers.network.book import Book, checked_term
from providers.network.haggling import Talk, opened
from providers.network.records import Quote
from providers.network.reverse import ReverseAuction, Seller, seller_of
from providers.network.stock import Lot, Refused
from providers.network.wire import ProblemCode, QuoteKind
from providers.network.wire_talks import (
    NegotiationRequest,
    Proposal,
    ReverseRequest,
    ReverseState,
    WireNegotiation,
    WireReverseAuction,
)


class Talks:
    """Every call takes the tenant that asks and runs under the book's lock."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._talks: dict[str, Talk] = {}
        self._reverse: dict[str, ReverseAuction] = {}
        book.due.append(self._settle)

    # --- negotiations -----------------------------------------------------------------------------------------------

    def open(self, tenant: str, request: NegotiationRequest, *, key: str) -> WireNegotiation:
        """Same key, same conversation, as it stands now."""
        with self._book.lock:
            # A round that is resumed asks for a term that starts later: the conversation is the same.
            now, asked = self._book.now(), f"{request.offer_id}\n{request.quantity}"
            known = self._book.replayed(tenant, "negotiate", key, asked)
            if known is not None:
                return self._talks[known].view(now)
            lot = self._book.posted_lot(request.offer_id)
            if self._book.terms.negotiation_rounds < 1:
                raise Refused(ProblemCode.NEGOTIATION_OVER, "this network does not talk about its prices")
            term = checked_term(request.term, now)
            self._book.check_free(lot, request.quantity, now)
            ask = self._book.give_quote(tenant, lot, request.quantity, lot.ask, term, QuoteKind.ASK, now)
            talk = opened(self._book.new_id("talk"), tenant, lot, ask, self._book.terms.negotiation_rounds, now)
            self._talks[talk.negotiation_id] = talk
            self._book.remember(tenant, "negotiate", key, asked, talk.negotiation_id)
            return talk.view(now)

    def propose(self, tenant: str, negotiation_id: str, proposal: Proposal, *, key: str) -> WireNegotiation:
        """Same key, same proposal: it is answered once, and the first one stands, whatever a repeat proposes."""
        with self._book.lock:
            now = self._book.now()
            talk = self._talk(tenant, negotiation_id)
            if self._book.replayed(tenant, "propose", key, negotiation_id) is None:
                price = self._book.amount(proposal.unit_price, "a proposal")
                talk.propose(price, now, lambda amount, kind: self._quote(talk, amount, kind, now))
                self._book.remember(tenant, "propose", key, negotiation_id, negotiation_id)
            return talk.view(now)

    def read(self, tenant: str, negotiation_id: str) -> WireNegotiation:
        with self._book.lock:
            now = self._book.now()
            return self._talk(tenant, negotiation_id).view(now)

    def end(self, tenant: str, negotiation_id: str) -> None:
        """The buyer walks away; quotes that were given stand until they expire. Idempotent."""
        with self._book.lock:
            self._talk(tenant, negotiation_id).end()

    def _talk(self, tenant: str, negotiation_id: str) -> Talk:
        talk = self._talks.get(negotiation_id)
        if talk is None or talk.tenant != tenant:
            raise Refused(ProblemCode.NOT_FOUND, f"no negotiation {negotiation_id}")
        return talk

    def _quote(self, talk: Talk, price: Decimal, kind: QuoteKind, now: datetime) -> Quote:
        asked = talk.quote.firm
        term = Interval(start=asked.term.start, end=asked.term.end)
        return self._book.give_quote(talk.tenant, talk.lot, asked.quantity, price, term, kind, now)

    # --- reverse auctions -------------------------------------------------------------------------------------------

    def open_reverse(self, tenant: str, request: ReverseRequest, *, key: str) -> WireReverseAuction:
        """Same key, same auction, as it stands now."""
        with self._book.lock:
            now, asked = self._book.now(), request.model_dump_json()
            known = self._book.replayed(tenant, "reverse", key, asked)
            if known is None:
                auction = self._new_reverse(tenant, request, now)
                known = auction.auction_id
                self._reverse[known] = auction
                self._book.remember(tenant, "reverse", key, asked, known)
            return self._reverse[known].view(now, self._book.terms.currency)

    def reverse(self, tenant: str, auction_id: str) -> WireReverseAuction:
        with self._book.lock:
            now = self._book.now()
            auction = self._reverse.get(auction_id)
            if auction is None or auction.tenant != tenant:
                raise Refused(ProblemCode.NOT_FOUND, f"no reverse auction {auction_id}")
            return auction.view(now, self._book.terms.currency)

    def _new_reverse(self, tenant: str, request: ReverseRequest, now: datetime) -> ReverseAuction:
        term, ceiling = checked_term(request.term, now), self._book.amount(request.ceiling, "a ceiling")
        least = Resources(
            vcpus=request.at_least.vcpus,
            memory_gib=request.at_least.memory_gib,
            storage_iops=request.at_least.storage_iops,
            network_mbps=request.at_least.network_mbps,
        )
        sellers = self._sellers(least, request.quantity, now)
        if not sellers:
            raise Refused(ProblemCode.INSUFFICIENT_CAPACITY, f"no seller carries this and has {request.quantity} free")
        return ReverseAuction(
            auction_id=self._book.new_id("reverse"),
            tenant=tenant,
            quantity=request.quantity,
            term=term,
            ceiling=ceiling,
            opened_at=now,
            closes_at=now + self._book.terms.reverse_lasts,
            sellers=tuple(sellers),
        )

    def _sellers(self, least: Resources, quantity: int, now: datetime) -> list[Seller]:
        if self._book.sold_out():
            return []
        return [
            seller_of(lot)
            for lot in self._book.lots.values()
            if lot.listing.auction is None and carries(lot.listing.resources, least) and lot.free(now) >= quantity
        ]

    def _settle(self, now: datetime) -> None:
        for auction in self._reverse.values():
            if auction.state is ReverseState.OPEN and auction.closes_at <= now:
                self._award(auction)

    def _award(self, auction: ReverseAuction) -> None:
        """To the lowest ask whose seller still has the units: they are kept for the buyer until the quote expires."""
        at = auction.closes_at
        auction.state, auction.reason = ReverseState.FAILED, "no ask came down to the ceiling"
        for offer_id, price in auction.asks(at):
            lot = self._book.lots[offer_id]
            if price > auction.ceiling:
                return
            if self._book.sold_out() or lot.free(at) < auction.quantity:
                auction.reason = "the units were sold before it closed"
                continue
            self._give(auction, lot, price, at)
            return

    def _give(self, auction: ReverseAuction, lot: Lot, price: Decimal, at: datetime) -> None:
        won = self._book.give_quote(auction.tenant, lot, auction.quantity, price, auction.term, QuoteKind.REVERSE, at)
        lot.claim(won.firm.quote_id, auction.quantity, won.firm.expires_at, at)
        auction.state, auction.quote, auction.reason = ReverseState.AWARDED, won, ""


def carries(unit: Resources, at_least: Resources) -> bool:
    return (
        unit.vcpus >= at_least.vcpus
        and unit.memory_gib >= at_least.memory_gib
        and unit.storage_iops >= at_least.storage_iops
        and unit.network_mbps >= at_least.network_mbps
    )
