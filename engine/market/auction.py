"""Bid in an auction from what a unit is worth, never above it.

The worth is what the best alternative outside auctions costs for as many slices, lost units counted. Where the rule is
second price, bidding the worth itself is best whatever others do, and so is going up to it by the smallest steps where
bids are seen: nobody pays more than it takes. Elsewhere (first price, or a rule that is not told) the bid is shaded: it
maximises (worth - bid) x probability of winning, which is learned from past clearing prices. Winning commits to
nothing: the won quote is to be held before it expires. The won price is read back; one that does not follow the rule
(the price that the round came to, or the own last bid) stops the offer.
"""

from collections.abc import Sequence
from decimal import ROUND_FLOOR, Decimal
from hashlib import sha256

from engine.errors import PriceMismatch
from engine.market.base import Declined, Market, Need, checked, units_wanted
from engine.market.scoring import price_per_slice, risk_adjusted, survival
from engine.model.market import Offer, PurchaseOption, Quote
from engine.model.money import Money
from providers.base import AuctionOutcome, AuctionRule, SupportsAuctions, SupportsAuctionTerms

_STEP = Decimal("0.000001")


class AuctionStrategy:
    name = "auction"

    def negotiate(self, need: Need, offers: Sequence[Offer], market: Market) -> Sequence[Quote]:
        return [self._bid(need, offer, market) for offer in offers if offer.option is PurchaseOption.AUCTION]

    def _bid(self, need: Need, offer: Offer, market: Market) -> Quote:
        provider = market.providers[offer.provider]
        if not isinstance(provider, SupportsAuctions):
            raise Declined(f"{offer.provider} takes no bids")
        units = units_wanted(need, offer)
        worth = worth_of(offer, need, market.offers)
        reserve, rule = offer.price, None
        if isinstance(provider, SupportsAuctionTerms):
            terms = provider.auction_terms(offer)
            reserve, rule = terms.reserve_price, terms.rule
        if worth.currency != reserve.currency or worth < reserve or worth.amount <= 0:
            raise Declined(f"reserve price {reserve}, worth {worth} at what the alternatives cost")
        bid = best_bid(offer, worth, reserve, rule)
        outcome = provider.bid(offer, units, bid, need.term, key=bid_key(need, offer))
        return checked(
            _read_back(outcome, offer, bid, rule),
            offer,
            units,
            strategy=self.name,
            ceiling=bid,
            survival=survival(offer, need.term.hours),
            clock=market.clock,
        )


def bid_key(need: Need, offer: Offer) -> str:
    """The same for the same need and offer, in any process."""
    return sha256(f"{need.key}\n{offer.id}".encode()).hexdigest()


def worth_of(offer: Offer, need: Need, offers: Sequence[Offer]) -> Money:
    """Per unit-hour. Raises Declined where there is nothing to compare with."""
    alternatives = [
        risk_adjusted(price, survival(other, need.term.hours))
        for other in offers
        if other.option is not PurchaseOption.AUCTION
        and other.available != 0
        and (need.spot_substitutes or other.option is not PurchaseOption.SPOT)
        and other.price.currency == offer.price.currency
        and (price := price_per_slice(other, need.slice)) is not None
    ]
    if not alternatives:
        raise Declined("nothing outside auctions to tell what a unit is worth")
    worth = min(alternatives) * offer.resources.holds(need.slice) * survival(offer, need.term.hours)
    return Money(amount=_down(Decimal(repr(worth))), currency=offer.price.currency)


def best_bid(offer: Offer, worth: Money, reserve: Money, rule: AuctionRule | None) -> Money:
    """At least the reserve price, at most the worth."""
    if rule in (AuctionRule.SECOND_PRICE, AuctionRule.OPEN_ASCENDING):
        return worth
    cleared = [point.price.amount for point in offer.price_history if point.price.currency == worth.currency]
    floor = max(reserve.amount, _STEP)
    if not cleared:
        return Money(amount=max(floor, _down((reserve.amount + worth.amount) / 2)), currency=worth.currency)
    candidates = {worth.amount, floor, *(price + _STEP for price in cleared if floor <= price + _STEP <= worth.amount)}

    def expected_gain(bid: Decimal) -> Decimal:
        return (worth.amount - bid) * (Decimal(sum(1 for price in cleared if price < bid)) / len(cleared))

    best = max(sorted(candidates), key=expected_gain)
    return Money(amount=min(best, worth.amount), currency=worth.currency)


def _read_back(outcome: AuctionOutcome, offer: Offer, bid: Money, rule: AuctionRule | None) -> Quote:
    if not outcome.won:
        cleared = f", cleared at {outcome.clearing_price}" if outcome.clearing_price else ""
        raise Declined(f"bid {bid} lost{cleared}: {outcome.reason or 'no reason given'}")
    if outcome.quote is None:
        raise PriceMismatch(f"{offer.id}: the auction was won, but no quote came with it")
    owed = _owed(outcome, bid, rule)
    if owed is not None and outcome.quote.unit_price != owed:
        raise PriceMismatch(f"{offer.id}: the auction came to {owed}, but the quote asks {outcome.quote.unit_price}")
    return outcome.quote


def _owed(outcome: AuctionOutcome, limit: Money, rule: AuctionRule | None) -> Money | None:
    """What a winner pays by the rule; None where that cannot be told. The ceiling is checked beside it.

    The own bid may be lower than ``limit``: where bids are seen, and where an earlier life of this round had bid.
    """
    if rule is AuctionRule.SECOND_PRICE:
        return outcome.clearing_price
    if rule is AuctionRule.FIRST_PRICE:
        return outcome.bid or limit
    return outcome.bid


def _down(amount: Decimal) -> Decimal:
    return amount.quantize(_STEP, rounding=ROUND_FLOOR)
