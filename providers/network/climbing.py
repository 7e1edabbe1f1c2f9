"""A buyer's side of one auction: bid, raise where bids are seen, and wait for the round to close."""

from datetime import timedelta

from engine.clock import Clock
from engine.errors import NotFound, PriceMismatch, ProviderAnswerInvalid, ProviderUnavailable
from providers.network import wire
from providers.network.client import NetworkClient

_PATIENCE = timedelta(seconds=60)
_POLL_SECONDS = (0.1, 1.0)
_MOST_TRIES = 5
"""To enter a round, where others are faster."""
_MOST_RAISES = 200
"""A seller that raises its own price by a hair each time is not followed for ever."""
_PENDING = (wire.BidStatus.PENDING, wire.BidStatus.RAISED)


def find_auction(client: NetworkClient, auction_id: str) -> wire.WireAuction:
    """Raises NotFound."""
    found = next((auction for auction in client.auctions() if auction.auction_id == auction_id), None)
    if found is None:
        raise NotFound(f"no auction {auction_id}")
    return found


def bid_and_wait(
    client: NetworkClient,
    clock: Clock,
    auction_id: str,
    *,
    quantity: int,
    limit: wire.WireMoney,
    term: wire.WireTerm,
    key: str,
) -> wire.WireBid | None:
    """The bid as it was decided. Sealed: ``limit`` is bid. Open ascending: no more than it takes, up to ``limit``.

    None: an open round already stands above ``limit``. Raises ProviderUnavailable when nothing is decided in a minute.
    """
    bid = _enter(client, auction_id, quantity=quantity, limit=limit, term=term, key=key)
    if bid is None:
        return None
    give_up_at, raises = clock.now() + _PATIENCE, 0
    while bid.status in _PENDING:
        if clock.now() >= give_up_at:
            raise ProviderUnavailable(f"auction {auction_id} has not decided in {_PATIENCE.total_seconds():g} s")
        if bid.raised_by is not None:  # an earlier life of this round raised it
            bid = client.bid_result(auction_id, bid.raised_by)
            continue
        higher = _higher(client, auction_id, bid, limit) if raises < _MOST_RAISES else None
        if higher is not None:
            raises += 1
            bid = _raise(client, bid, higher, term, key=f"{key}:{raises}")
            continue
        _sleep_towards(bid, clock)
        bid = client.bid_result(auction_id, bid.bid_id)
    return bid


def _enter(
    client: NetworkClient, auction_id: str, *, quantity: int, limit: wire.WireMoney, term: wire.WireTerm, key: str
) -> wire.WireBid | None:
    """The first bid. An open round may move on between the look and the bid: then look again."""
    for _ in range(_MOST_TRIES):
        auction = find_auction(client, auction_id)
        seen = auction.rule is wire.WireAuctionRule.OPEN_ASCENDING
        price = _enough(auction, limit) if seen else limit
        if price is None:
            return None
        try:
            return client.bid(auction_id, quantity=quantity, unit_price=price, term=term, key=key)
        except PriceMismatch:
            if not seen:
                raise
    return None


def _enough(auction: wire.WireAuction, limit: wire.WireMoney) -> wire.WireMoney | None:
    standing = auction.standing_price
    if standing is None or standing.currency != limit.currency:
        raise ProviderAnswerInvalid(f"auction {auction.auction_id} is open, but says not what leads")
    return standing if standing.amount <= limit.amount else None


def _higher(client: NetworkClient, auction_id: str, bid: wire.WireBid, limit: wire.WireMoney) -> wire.WireMoney | None:
    """What would lead, where this bid does not lead for all it wants and the limit allows it."""
    if bid.leading is None or bid.leading >= bid.quantity:
        return None
    auction = find_auction(client, auction_id)
    if auction.closes_at != bid.decides_at:
        return None
    price = _enough(auction, limit)
    return price if price is not None and price.amount > bid.unit_price.amount else None


def _raise(
    client: NetworkClient, bid: wire.WireBid, price: wire.WireMoney, term: wire.WireTerm, *, key: str
) -> wire.WireBid:
    """The bid that stands after it: the old one where somebody was faster."""
    try:
        return client.bid(
            bid.auction_id, quantity=bid.quantity, unit_price=price, term=term, key=key, raises=bid.bid_id
        )
    except PriceMismatch:
        return client.bid_result(bid.auction_id, bid.bid_id)


def _sleep_towards(bid: wire.WireBid, clock: Clock) -> None:
    shortest, longest = _POLL_SECONDS
    if bid.leading is not None:
        longest = 2 * shortest  # whoever is outbid wants to know soon
    clock.sleep(min(max((bid.decides_at - clock.now()).total_seconds(), shortest), longest))
