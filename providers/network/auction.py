"""Standing auctions: a round closes every period; units go to the highest bids at or above the reserve.

Second price here means uniform price: every winner pays the highest bid that lost, which for one unit is the classic
rule. Ties go to the earlier bid, and rivals are taken to have come first. In an open ascending round bids are seen and
may be raised; a rival raises its own by one increment as often as it must, up to what the unit is worth to it.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from engine.model.value import Interval
from providers.network.stock import DEFAULT_INCREMENT, AuctionRules, Lot
from providers.network.wire import WireAuctionRule

Rivals = Callable[[str, int], Sequence[Decimal]]
"""(offer id, round number) -> what other buyers bid in that round, one price per unit wanted. Must be repeatable."""

_HISTORY_HOURS = 96
_REMEMBERED_ROUNDS = 2000


def nobody(offer_id: str, round_number: int) -> Sequence[Decimal]:
    return ()


@dataclass
class Bid:
    bid_id: str
    tenant: str
    auction_id: str
    round_number: int
    quantity: int
    unit_price: Decimal
    term: Interval
    decides_at: datetime
    decided: bool = False
    won: int = 0
    clearing_price: Decimal | None = None
    quote_id: str | None = None
    reason: str = ""
    raised_by: str | None = None


@dataclass(frozen=True)
class Standing:
    """An open ascending round as everybody sees it: the least bid that would lead, and units led for by bid id."""

    next_price: Decimal
    price: Decimal
    """What the last unit goes for as things stand; the reserve price where a unit is left over."""
    leads: dict[str, int]


@dataclass(frozen=True)
class Outcome:
    """What one round came to; ``won`` counts units by bid id."""

    clearing_price: Decimal
    won: dict[str, int]


def close_round(
    rule: WireAuctionRule,
    supply: int,
    reserve: Decimal,
    rivals: Sequence[Decimal],
    bids: Sequence[Bid],
    increment: Decimal = DEFAULT_INCREMENT,
) -> Outcome:
    """Pure. The clearing price is what a second-price winner pays, or the lowest winning bid of another round."""
    if rule is WireAuctionRule.OPEN_ASCENDING:
        standing = stand(supply, reserve, increment, rivals, bids)
        return Outcome(standing.price, standing.leads)
    winners, losers = _split(supply, reserve, rivals, bids)
    if rule is WireAuctionRule.SEALED_FIRST_PRICE:
        return Outcome(winners[-1][0] if winners else reserve, _units(winners))
    return Outcome(losers[0][0] if losers else reserve, _units(winners))


def stand(
    supply: int, reserve: Decimal, increment: Decimal, rivals: Sequence[Decimal], bids: Sequence[Bid]
) -> Standing:
    """Pure. A rival that leads shows no more than it must: one increment above the highest bid that does not lead."""
    winners, losers = _split(supply, reserve, rivals, bids)
    beaten = losers[0][0] + increment if losers else reserve
    shown = [price if bid_id is not None else min(price, beaten) for price, _, bid_id in winners]
    price = min(shown, default=reserve) if len(winners) == supply else reserve
    full = bool(winners) and len(winners) == supply
    return Standing(price + increment if full else reserve, price, _units(winners))


_Entry = tuple[Decimal, int, str | None]


def _split(
    supply: int, reserve: Decimal, rivals: Sequence[Decimal], bids: Sequence[Bid]
) -> tuple[list[_Entry], list[_Entry]]:
    entries: list[_Entry] = [(price, -1, None) for price in rivals]
    for order, bid in enumerate(bids):
        entries += [(bid.unit_price, order, bid.bid_id)] * bid.quantity
    entries = sorted((entry for entry in entries if entry[0] >= reserve), key=lambda entry: (-entry[0], entry[1]))
    return entries[:supply], entries[supply:]


def _units(winners: Sequence[_Entry]) -> dict[str, int]:
    won: dict[str, int] = {}
    for _, _, bid_id in winners:
        if bid_id is not None:
            won[bid_id] = won.get(bid_id, 0) + 1
    return won


class AuctionHouse:
    """Not safe for threads by itself: the exchange calls it under its lock, and settles before it does anything else.

    ``award(bid, units, unit_price, at)`` sets the units aside and returns the id of the firm quote for them.
    """

    def __init__(
        self, lots: dict[str, Lot], rivals: Rivals, award: Callable[[Bid, int, Decimal, datetime], str]
    ) -> None:
        self._lots, self._rivals, self._award = lots, rivals, award
        self._open: dict[tuple[str, int], list[Bid]] = {}
        self._cleared: OrderedDict[tuple[str, int], Decimal] = OrderedDict()

    def enter(self, bid: Bid) -> None:
        self._open.setdefault((bid.auction_id, bid.round_number), []).append(bid)

    def standing(self, offer_id: str, now: datetime, *, without: Bid | None = None) -> Standing:
        """The round that is open now; ``without`` a bid that is about to be raised."""
        lot = self._lots[offer_id]
        rules = _rules(lot)
        number = rules.round_at(now)
        bids = [bid for bid in self._open.get((offer_id, number), []) if bid is not without]
        return stand(lot.free(now), lot.ask, rules.increment, self._rivals(offer_id, number), bids)

    def take_back(self, bid: Bid) -> None:
        """A bid that was raised no longer takes part."""
        self._open[bid.auction_id, bid.round_number].remove(bid)

    def settle(self, now: datetime) -> None:
        """Close every round whose time has come, in the order of their closing."""
        due = [(bids[0].decides_at, key) for key, bids in self._open.items() if bids and bids[0].decides_at <= now]
        for closed_at, key in sorted(due):
            self._close(key, self._open.pop(key), closed_at)

    def _close(self, key: tuple[str, int], bids: list[Bid], closed_at: datetime) -> None:
        offer_id, round_number = key
        lot = self._lots[offer_id]
        rules = _rules(lot)
        supply = lot.free(closed_at)
        rivals = self._rivals(offer_id, round_number)
        outcome = close_round(rules.rule, supply, lot.ask, rivals, bids, rules.increment)
        for bid in bids:
            bid.decided, bid.clearing_price, bid.won = True, outcome.clearing_price, outcome.won.get(bid.bid_id, 0)
            if bid.won:
                second_price = rules.rule is WireAuctionRule.SEALED_SECOND_PRICE
                price = outcome.clearing_price if second_price else bid.unit_price
                bid.quote_id = self._award(bid, bid.won, price, closed_at)
            else:
                bid.reason = _why_lost(bid, supply, lot.ask, outcome.clearing_price)
        self._remember(key, outcome.clearing_price)

    def clearing_price(self, offer_id: str, round_number: int) -> Decimal:
        """Of a closed round; where none of ours took part, what the rivals alone made of it."""
        key = (offer_id, round_number)
        if key not in self._cleared:
            lot = self._lots[offer_id]
            rules, rivals = _rules(lot), self._rivals(offer_id, round_number)
            outcome = close_round(rules.rule, lot.listing.units, lot.ask, rivals, (), rules.increment)
            self._remember(key, outcome.clearing_price)
        return self._cleared[key]

    def hourly_prices(self, offer_id: str, now: datetime) -> list[tuple[datetime, Decimal]]:
        """Clearing prices on the hour over the last days, oldest first: what a bidder can learn from."""
        rules = _rules(self._lots[offer_id])
        last_hour = now.replace(minute=0, second=0, microsecond=0)
        hours = (last_hour - timedelta(hours=back) for back in range(_HISTORY_HOURS - 1, -1, -1))
        return [(hour, self.clearing_price(offer_id, rules.round_at(hour) - 1)) for hour in hours]

    def recent(self, offer_id: str, now: datetime, rounds: int = 5) -> list[tuple[datetime, Decimal]]:
        rules = _rules(self._lots[offer_id])
        current = rules.round_at(now)
        return [
            (rules.closes_at(number, now), self.clearing_price(offer_id, number))
            for number in range(current - rounds, current)
        ]

    def _remember(self, key: tuple[str, int], price: Decimal) -> None:
        self._cleared[key] = price
        while len(self._cleared) > _REMEMBERED_ROUNDS:
            self._cleared.popitem(last=False)


def _rules(lot: Lot) -> AuctionRules:
    rules = lot.listing.auction
    if rules is None:
        raise KeyError(lot.listing.offer_id)
    return rules


def _why_lost(bid: Bid, supply: int, reserve: Decimal, clearing_price: Decimal) -> str:
    if supply == 0:
        return "no unit was free in this round"
    if bid.unit_price < reserve:
        return f"below the reserve price of {reserve}"
    return f"outbid: the round cleared at {clearing_price}"
