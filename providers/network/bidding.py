"""The auctions of a network as its buyers see them: bids, raises, results. Safe for threads."""

from datetime import datetime
from decimal import Decimal

from providers.network import wire
from providers.network.auction import AuctionHouse, Bid, Rivals
from providers.network.book import Book, checked_term
from providers.network.stock import AuctionRules, Lot, Refused
from providers.network.views import auction_view, bid_view
from providers.network.wire import ProblemCode, QuoteKind, WireAuctionRule


class Bidding:
    """Every call runs under the book's lock, after the rounds that are due were closed."""

    def __init__(self, book: Book, rivals: Rivals) -> None:
        self._book = book
        self._house = AuctionHouse(book.lots, rivals, self._award)
        self._bids: dict[str, Bid] = {}
        book.due.append(self._house.settle)

    def auctions(self) -> list[wire.WireAuction]:
        with self._book.lock:
            now = self._book.now()
            lots = self._book.lots.values()
            return [self._auction(lot, lot.listing.auction, now) for lot in lots if lot.listing.auction]

    def bid(self, tenant: str, auction_id: str, request: wire.BidRequest, *, key: str) -> wire.WireBid:
        """Enters the round that is open. Same key, same bid: the first one stands, whatever a repeat asks."""
        with self._book.lock:
            now = self._book.now()
            known = self._book.replayed(tenant, "bid", key, auction_id)
            if known is not None:
                return self._view(self._bids[known], now)
            rules = self._book.lot(auction_id).listing.auction
            if rules is None:
                raise Refused(ProblemCode.NOT_FOUND, f"no auction {auction_id}")
            term = checked_term(request.term, now)
            price = self._book.amount(request.unit_price, "a bid")
            raised = self._raised(tenant, auction_id, request, rules, now)
            round_number = rules.round_at(now)
            bid = Bid(
                bid_id=self._book.new_id("bid"),
                tenant=tenant,
                auction_id=auction_id,
                round_number=round_number,
                quantity=request.quantity,
                unit_price=price,
                term=term,
                decides_at=rules.closes_at(round_number, now),
            )
            if raised is not None:
                self._house.take_back(raised)
                raised.raised_by = bid.bid_id
            self._bids[bid.bid_id] = bid
            self._house.enter(bid)
            self._book.remember(tenant, "bid", key, auction_id, bid.bid_id)
            return self._view(bid, now)

    def result(self, tenant: str, auction_id: str, bid_id: str) -> wire.WireBid:
        with self._book.lock:
            now = self._book.now()
            return self._view(self._bid(tenant, auction_id, bid_id), now)

    def hourly_prices(self, offer_id: str, now: datetime) -> list[tuple[datetime, Decimal]]:
        return self._house.hourly_prices(offer_id, now)

    def _raised(
        self, tenant: str, auction_id: str, request: wire.BidRequest, rules: AuctionRules, now: datetime
    ) -> Bid | None:
        """The bid that this one takes the place of. Raises Refused where it may not, or where it would not lead."""
        if rules.rule is not WireAuctionRule.OPEN_ASCENDING:
            if request.raises is not None:
                raise Refused(ProblemCode.INVALID_REQUEST, "a sealed bid cannot be raised")
            return None
        earlier = None if request.raises is None else self._bid(tenant, auction_id, request.raises)
        if earlier is not None:
            if earlier.raised_by or earlier.round_number != rules.round_at(now):
                raise Refused(ProblemCode.INVALID_REQUEST, f"bid {earlier.bid_id} takes part in no open round")
            if request.unit_price.amount <= earlier.unit_price or request.quantity < earlier.quantity:
                raise Refused(ProblemCode.BID_TOO_LOW, "a raise asks for as much at a higher price")
        least = self._house.standing(auction_id, now, without=earlier).next_price
        if request.unit_price.amount < least:
            raise Refused(ProblemCode.BID_TOO_LOW, f"{least} leads now")
        return earlier

    def _bid(self, tenant: str, auction_id: str, bid_id: str) -> Bid:
        bid = self._bids.get(bid_id)
        if bid is None or bid.tenant != tenant or bid.auction_id != auction_id:
            raise Refused(ProblemCode.NOT_FOUND, f"no bid {bid_id}")
        return bid

    def _award(self, bid: Bid, units: int, unit_price: Decimal, at: datetime) -> str:
        """A won quote keeps its units until it expires."""
        lot = self._book.lots[bid.auction_id]
        won = self._book.give_quote(bid.tenant, lot, units, unit_price, bid.term, QuoteKind.AUCTION, at)
        lot.claim(won.firm.quote_id, units, won.firm.expires_at, at)
        return won.firm.quote_id

    def _view(self, bid: Bid, now: datetime) -> wire.WireBid:
        leading = None
        if not bid.decided and _rule(self._book.lots[bid.auction_id]) is WireAuctionRule.OPEN_ASCENDING:
            leading = self._house.standing(bid.auction_id, now).leads.get(bid.bid_id, 0)
        quote = self._book.quotes[bid.quote_id] if bid.quote_id else None
        return bid_view(bid, quote, self._book.terms.currency, leading)

    def _auction(self, lot: Lot, rules: AuctionRules, now: datetime) -> wire.WireAuction:
        offer_id = lot.listing.offer_id
        seen = rules.rule is WireAuctionRule.OPEN_ASCENDING
        return auction_view(
            lot,
            rules,
            self._house.recent(offer_id, now),
            now,
            currency=self._book.terms.currency,
            standing_price=self._house.standing(offer_id, now).next_price if seen else None,
        )


def _rule(lot: Lot) -> WireAuctionRule | None:
    return lot.listing.auction.rule if lot.listing.auction else None
