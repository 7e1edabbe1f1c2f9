"""Negotiations and auctions, each by the letter of its rule."""

from decimal import Decimal

from providers.network import wire
from providers.network.conformance.base import Cases, NotOffered, require
from providers.network.conformance.market_cases import check_signed
from providers.network.conformance.probe import Probe, new_key
from providers.network.wire import BidStatus, ProblemCode, WireAuctionRule
from providers.network.wire_talks import NegotiationState, Reply, ReverseState, WireNegotiation, WireReverseAuction

case = Cases()
_ODD = Decimal("1.000007")
"""Makes a price that nobody else bids."""


def _opened(probe: Probe) -> WireNegotiation:
    if probe.terms.negotiation_rounds < 1:
        raise NotOffered("prices are not talked about")
    body = {"offer_id": probe.posted().offer_id, "quantity": 1, "term": probe.term()}
    return probe.read(probe.post("/v1/negotiations", body, key=new_key()), WireNegotiation)


def _proposed(probe: Probe, talk: WireNegotiation, price: Decimal, key: str | None = None) -> WireNegotiation:
    path = f"/v1/negotiations/{talk.negotiation_id}/proposals"
    answer = probe.post(path, {"unit_price": probe.money(price)}, key=key or new_key())
    return probe.read(answer, WireNegotiation)


@case("negotiation", "opens with the posted price, firm and signed; commits to nothing")
def negotiation(probe: Probe) -> str:
    offer, talk = probe.posted(), _opened(probe)
    require(
        talk.reply is Reply.ASKED and talk.state is NegotiationState.OPEN, f"{talk.reply.value}, {talk.state.value}"
    )
    require(talk.quote.unit_price == offer.price, f"{talk.quote.unit_price.amount}, posted {offer.price.amount}")
    check_signed(probe, talk.quote)
    return f"asked {talk.quote.unit_price.amount}"


@case("a rejection is not final", "after an absurd proposal the network still hears, and takes, a fair one")
def rejection_is_not_final(probe: Probe) -> str:
    talk = _opened(probe)
    ask = talk.quote.unit_price.amount
    low = _proposed(probe, talk, ask / 100)
    require(low.reply in (Reply.REJECTED, Reply.COUNTERED), f"a hundredth was {low.reply.value}")
    require(low.state is NegotiationState.OPEN, f"it is {low.state.value} after one low proposal")
    fair = _proposed(probe, talk, ask)
    require(
        fair.reply is Reply.ACCEPTED and fair.state is NegotiationState.AGREED, f"its own price is {fair.reply.value}"
    )
    require(fair.quote.unit_price.amount <= ask, f"agreed at {fair.quote.unit_price.amount}, asked {ask}")
    check_signed(probe, fair.quote)
    return f"{low.reply.value}, then accepted"


@case("counter-offers", "never go up, and end: beyond the last round it is 410 negotiation_over")
def counter_offers(probe: Probe) -> str:
    talk = _opened(probe)
    best, proposal = talk.quote.unit_price.amount, talk.quote.unit_price.amount * Decimal("0.9")
    rounds = talk.rounds_left
    require(rounds <= 100, f"{rounds} rounds")
    for _ in range(rounds):
        talk = _proposed(probe, talk, proposal)
        require(talk.quote.unit_price.amount <= best, f"up from {best} to {talk.quote.unit_price.amount}")
        best = talk.quote.unit_price.amount
        if talk.state is not NegotiationState.OPEN:
            break
    answer = probe.post(
        f"/v1/negotiations/{talk.negotiation_id}/proposals", {"unit_price": probe.money(proposal)}, key=new_key()
    )
    return f"down to {best}, then {probe.problem(answer, 410, ProblemCode.NEGOTIATION_OVER)}"


@case("repeated proposal", "the same key is one proposal: it uses up one round")
def repeated_proposal(probe: Probe) -> str:
    talk, key = _opened(probe), new_key()
    price = talk.quote.unit_price.amount / 10
    first, second = _proposed(probe, talk, price, key), _proposed(probe, talk, price, key)
    require(first.rounds_left == second.rounds_left, f"{first.rounds_left} rounds left, then {second.rounds_left}")
    return f"{second.rounds_left} rounds left both times"


@case("wrong currency", "400 or 422 invalid_request for a proposal or a bid in another currency")
def wrong_currency(probe: Probe) -> str:
    try:
        talk = _opened(probe)
        path, fields = f"/v1/negotiations/{talk.negotiation_id}/proposals", {}
    except NotOffered:
        path = f"/v1/auctions/{probe.auction().auction_id}/bids"
        fields = {"quantity": 1, "term": probe.term()}
    body = {**fields, "unit_price": probe.money(Decimal(1), probe.other_currency())}
    return probe.problem(probe.post(path, body, key=new_key()), (400, 422), ProblemCode.INVALID_REQUEST)


@case("idempotent bid", "the same key is the same bid, whatever a repeat asks")
def idempotent_bid(probe: Probe) -> str:
    auction, key = probe.auction(), new_key()
    path = f"/v1/auctions/{auction.auction_id}/bids"
    price = auction.standing_price or auction.reserve_price
    body = {"quantity": 1, "unit_price": probe.money(max(price.amount, _LEAST)), "term": probe.term()}
    first = probe.read(probe.post(path, body, key=key), wire.WireBid)
    again = probe.read(
        probe.post(path, {**body, "unit_price": probe.money(max(price.amount, _LEAST) * 2)}, key=key), wire.WireBid
    )
    require(first.bid_id == again.bid_id, "a second bid")
    require(first.unit_price == again.unit_price, f"it now bids {again.unit_price.amount}")
    return "one bid"


_LEAST = Decimal("0.0001")


@case("low bid", "a sealed bid below the reserve price loses, with a reason")
def low_bid(probe: Probe) -> str:
    auction = probe.auction(WireAuctionRule.SEALED_FIRST_PRICE, WireAuctionRule.SEALED_SECOND_PRICE)
    if auction.reserve_price.amount <= _LEAST:
        raise NotOffered("no reserve price")
    decided = probe.decided(probe.bid(auction, auction.reserve_price.amount / 2))
    require(decided.status is BidStatus.LOST and decided.quote is None, f"it {decided.status.value}")
    require(bool(decided.reason), "no reason")
    return decided.reason


@case("second-price rule", "a winner pays the highest bid that lost (or the reserve price), not its own")
def second_price(probe: Probe) -> str:
    auction = probe.auction(WireAuctionRule.SEALED_SECOND_PRICE)
    require(auction.standing_price is None, "bids can be seen before it closes")
    bid = max(Decimal(1), auction.reserve_price.amount * 20) * _ODD
    quote = _won(probe, probe.decided(probe.bid(auction, bid)))
    price, cleared = quote.unit_price.amount, quote.cleared
    require(price < bid, f"bid {bid}, pays {price}")
    require(price == cleared, f"cleared at {cleared}, pays {price}")
    require(price >= auction.reserve_price.amount, f"below the reserve price: {price}")
    return f"bid {bid}, pays {price}"


@case("first-price rule", "a winner pays its own bid")
def first_price(probe: Probe) -> str:
    auction = probe.auction(WireAuctionRule.SEALED_FIRST_PRICE)
    bid = max(Decimal(1), auction.reserve_price.amount * 20) * _ODD
    price = _won(probe, probe.decided(probe.bid(auction, bid))).unit_price.amount
    require(price == bid, f"bid {bid}, pays {price}")
    return f"bid and pays {price}"


@case(
    "open ascending rule", "what leads is told; less is 409 bid_too_low; a raise takes its place and pays its own price"
)
def open_ascending(probe: Probe) -> str:
    auction = probe.auction(WireAuctionRule.OPEN_ASCENDING)
    leads = auction.standing_price
    require(leads is not None, "it does not say what leads")
    assert leads is not None
    first = probe.bid(auction, max(leads.amount, _LEAST))
    body = {"quantity": 1, "unit_price": probe.money(leads.amount / 2), "term": probe.term()}
    answer = probe.post(f"/v1/auctions/{auction.auction_id}/bids", body, key=new_key())
    seen = probe.problem(answer, 409, ProblemCode.BID_TOO_LOW)
    raised = probe.bid(auction, max(Decimal(1), leads.amount * 20) * _ODD, raises=first.bid_id)
    before = probe.read(probe.get(f"/v1/auctions/{auction.auction_id}/bids/{first.bid_id}"), wire.WireBid)
    require(before.status is BidStatus.RAISED, f"the first bid is {before.status.value}")
    require(raised.leading == 1, f"the raise leads for {raised.leading}")
    price = _won(probe, probe.decided(raised)).unit_price.amount
    require(price == raised.unit_price.amount, f"bid {raised.unit_price.amount}, pays {price}")
    return f"{seen}; raised, won and pays {price}"


@case("won quote", "its units are kept until it expires; it is signed")
def won_quote(probe: Probe) -> str:
    quote = probe.won()
    check_signed(probe, quote)
    answer = probe.post("/v1/holds", {"quote_id": quote.quote_id, "quantity": 1}, key=new_key())
    hold = probe.keep(probe.read(answer, wire.WireHold))
    require(hold.unit_price == quote.unit_price, f"won at {quote.unit_price.amount}, held at {hold.unit_price.amount}")
    return f"held at {hold.unit_price.amount}"


@case("reverse auction", "awarded at close to the lowest ask, no dearer than the ceiling, as a signed quote")
def reverse_auction(probe: Probe) -> str:
    if not probe.terms.reverse_auctions:
        raise NotOffered("no reverse auctions")
    offer = probe.posted()
    need = {"vcpus": offer.resources.vcpus, "memory_gib": offer.resources.memory_gib}
    body = {
        "at_least": need,
        "quantity": 1,
        "term": probe.term(),
        "ceiling": probe.money(offer.price.amount),
    }
    path, key = "/v1/reverse-auctions", new_key()
    opened = probe.read(probe.post(path, body, key=key), WireReverseAuction)
    require(
        probe.read(probe.post(path, body, key=key), WireReverseAuction).auction_id == opened.auction_id, "a second one"
    )
    probe.wait((opened.closes_at - probe.clock.now()).total_seconds() + 0.2)
    closed = probe.read(probe.get(f"{path}/{opened.auction_id}"), WireReverseAuction)
    require(closed.state is ReverseState.AWARDED and closed.quote is not None, f"{closed.state.value}: {closed.reason}")
    assert closed.quote is not None
    price = closed.quote.unit_price.amount
    require(price <= offer.price.amount, f"awarded at {price}, ceiling {offer.price.amount}")
    require(price == min(ask.unit_price.amount for ask in closed.asks), "not to the lowest ask")
    check_signed(probe, closed.quote)
    return f"awarded at {price}"


class _WonQuote(wire.WireQuote):
    cleared: Decimal | None


def _won(probe: Probe, decided: wire.WireBid) -> _WonQuote:
    """Raises NotOffered where even a very high bid lost."""
    if decided.quote is None:
        raise NotOffered(f"lost at {decided.unit_price.amount}: {decided.reason}")
    check_signed(probe, decided.quote)
    cleared = decided.clearing_price.amount if decided.clearing_price else None
    return _WonQuote(**dict(decided.quote), cleared=cleared)
