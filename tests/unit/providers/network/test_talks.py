from datetime import timedelta
from decimal import Decimal

import pytest

from engine.clock import ManualClock
from providers.network import wire
from providers.network.book import Terms
from providers.network.exchange import Exchange
from providers.network.stock import Refused
from providers.network.wire import ProblemCode, QuoteKind
from providers.network.wire_talks import (
    NegotiationRequest,
    NegotiationState,
    Proposal,
    Reply,
    ReverseRequest,
    ReverseState,
    WireNegotiation,
    WireReverseAuction,
)
from tests.unit.providers.network.networks import (
    START,
    TENANT,
    TERM,
    a_listing,
    a_network,
    an_auction,
    free,
    money,
)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


def _refusal(code: ProblemCode) -> "pytest.RaisesExc[Refused]":
    return pytest.raises(Refused, match=rf"^{code.value}")


def _opened(network: Exchange, *, key: str = "k", quantity: int = 1) -> WireNegotiation:
    return network.talks.open(TENANT, NegotiationRequest(offer_id="lot", quantity=quantity, term=TERM), key=key)


def _proposed(network: Exchange, talk: WireNegotiation, price: str, key: str) -> WireNegotiation:
    return network.talks.propose(TENANT, talk.negotiation_id, Proposal(unit_price=money(price)), key=key)


# -- negotiations: the ask is 0.05, the lowest price 0.045, the steps of five rounds are 0.001


def test_it_opens_with_the_posted_price_and_commits_to_nothing(clock: ManualClock) -> None:
    network = a_network(clock)
    talk = _opened(network)
    assert (talk.state, talk.reply, talk.quote.unit_price.amount) == ("open", "asked", Decimal("0.05"))
    assert (talk.rounds_left, talk.quote.kind, free(network)) == (5, QuoteKind.ASK, 3)
    assert _opened(network) == talk, "same key, same conversation"
    with _refusal(ProblemCode.KEY_REUSED):
        _opened(network, quantity=2)


def test_a_low_proposal_is_countered_and_a_fair_one_accepted(clock: ManualClock) -> None:
    network = a_network(clock)
    talk = _opened(network)
    countered = _proposed(network, talk, "0.04", "1")
    assert (countered.reply, countered.quote.unit_price.amount) == (Reply.COUNTERED, Decimal("0.049"))
    agreed = _proposed(network, talk, "0.048", "2")
    assert (agreed.reply, agreed.state) == (Reply.ACCEPTED, NegotiationState.AGREED)
    assert (agreed.quote.kind, agreed.quote.unit_price.amount) == (QuoteKind.AGREED, Decimal("0.048"))
    hold = network.hold(TENANT, wire.HoldRequest(quote_id=agreed.quote.quote_id, quantity=1), key="h")
    assert hold.unit_price.amount == Decimal("0.048")
    with _refusal(ProblemCode.NEGOTIATION_OVER):
        _proposed(network, talk, "0.01", "3")


def test_a_rejection_is_not_final(clock: ManualClock) -> None:
    network = a_network(clock)
    talk = _opened(network)
    rejected = _proposed(network, talk, "0.001", "1")
    assert (rejected.reply, rejected.state) == (Reply.REJECTED, NegotiationState.OPEN)
    assert rejected.quote.unit_price.amount == Decimal("0.05"), "the best firm price so far stands"
    assert _proposed(network, talk, "0.048", "2").reply is Reply.ACCEPTED


def test_who_offers_more_than_the_ask_pays_the_ask(clock: ManualClock) -> None:
    network = a_network(clock)
    assert _proposed(network, _opened(network), "9", "1").quote.unit_price.amount == Decimal("0.05")


def test_a_repeated_proposal_is_answered_once(clock: ManualClock) -> None:
    network = a_network(clock)
    talk = _opened(network)
    first = _proposed(network, talk, "0.04", "1")
    assert _proposed(network, talk, "0.04", "1") == first
    assert _proposed(network, talk, "0.041", "1") == first
    other = _opened(network, key="other")
    with _refusal(ProblemCode.KEY_REUSED):
        _proposed(network, other, "0.04", "1")


def test_the_rounds_are_bounded_and_the_last_quote_stands(clock: ManualClock) -> None:
    network = a_network(clock)
    talk = _opened(network)
    answers = [_proposed(network, talk, "0.04", str(number)) for number in range(5)]
    assert [answer.quote.unit_price.amount for answer in answers] == [
        Decimal(price) for price in ("0.049", "0.048", "0.047", "0.046", "0.045")
    ]
    assert (answers[-1].state, answers[-1].rounds_left) == (NegotiationState.OVER, 0)
    with _refusal(ProblemCode.NEGOTIATION_OVER):
        _proposed(network, talk, "0.05", "6")
    assert network.hold(TENANT, wire.HoldRequest(quote_id=answers[-1].quote.quote_id, quantity=1), key="h")


def test_it_ends_by_itself_and_by_walking_away(clock: ManualClock) -> None:
    network = a_network(clock)
    talk = _opened(network)
    network.talks.end(TENANT, talk.negotiation_id)
    network.talks.end(TENANT, talk.negotiation_id)
    assert network.talks.read(TENANT, talk.negotiation_id).state is NegotiationState.OVER
    other = _opened(network, key="other")
    clock.advance(timedelta(minutes=5))
    assert network.talks.read(TENANT, other.negotiation_id).state is NegotiationState.OVER
    with _refusal(ProblemCode.NEGOTIATION_OVER):
        _proposed(network, other, "0.048", "1")


def test_a_price_that_does_not_move(clock: ManualClock) -> None:
    network = a_network(clock, [a_listing(lowest_share_of_ask="1")])
    assert _proposed(network, _opened(network), "0.049", "1").reply is Reply.REJECTED


@pytest.mark.parametrize(
    ("price", "code"),
    [(money("0"), ProblemCode.INVALID_REQUEST), (money("0.04", "EUR"), ProblemCode.INVALID_REQUEST)],
)
def test_a_proposal_that_cannot_be(clock: ManualClock, price: wire.WireMoney, code: ProblemCode) -> None:
    network = a_network(clock)
    talk = _opened(network)
    with _refusal(code):
        network.talks.propose(TENANT, talk.negotiation_id, Proposal(unit_price=price), key="1")


def test_what_is_not_talked_about(clock: ManualClock) -> None:
    with _refusal(ProblemCode.INVALID_REQUEST):
        _opened(a_network(clock, [an_auction()]))
    with _refusal(ProblemCode.INSUFFICIENT_CAPACITY):
        _opened(a_network(clock), quantity=4)
    with _refusal(ProblemCode.NEGOTIATION_OVER):
        _opened(Exchange([a_listing()], Terms("silent", negotiation_rounds=0), clock=clock))
    network = a_network(clock)
    with _refusal(ProblemCode.NOT_FOUND):
        network.talks.read("other", _opened(network).negotiation_id)


# -- reverse auctions


def _need(*, quantity: int = 1, ceiling: str = "0.06", vcpus: float = 2) -> ReverseRequest:
    least = wire.WireResources(vcpus=vcpus, memory_gib=4)
    return ReverseRequest(at_least=least, quantity=quantity, term=TERM, ceiling=money(ceiling))


def _reverse(network: Exchange, request: ReverseRequest, *, key: str = "k") -> WireReverseAuction:
    return network.talks.open_reverse(TENANT, request, key=key)


def test_sellers_undercut_each_other_and_the_lowest_ask_is_awarded(clock: ManualClock) -> None:
    network = a_network(clock, [a_listing(), a_listing("rival", ask="0.048", lowest_share_of_ask="0.98")])
    opened = _reverse(network, _need(quantity=2))
    assert (opened.state, [ask.offer_id for ask in opened.asks]) == (ReverseState.OPEN, ["rival", "lot"])
    assert opened.quote is None
    clock.advance(timedelta(seconds=1))
    falling = network.talks.reverse(TENANT, opened.auction_id)
    assert all(now.unit_price.amount < Decimal("0.05") for now in falling.asks)
    clock.advance(timedelta(seconds=1))
    closed = network.talks.reverse(TENANT, opened.auction_id)
    assert closed.state is ReverseState.AWARDED
    assert closed.quote is not None
    assert (closed.quote.offer_id, closed.quote.kind) == ("lot", QuoteKind.REVERSE)
    assert closed.quote.unit_price.amount == Decimal("0.047039"), "one step below the rival's lowest price"
    assert free(network) == 1, "kept for the winner"
    hold = network.hold(TENANT, wire.HoldRequest(quote_id=closed.quote.quote_id, quantity=2), key="h")
    assert (free(network), hold.quantity) == (1, 2)
    network.release(TENANT, hold.hold_id)
    clock.advance(timedelta(minutes=5))
    assert free(network) == 3


def test_a_single_seller_gets_its_ask_or_the_ceiling(clock: ManualClock) -> None:
    for ceiling, price in (("0.06", "0.05"), ("0.047", "0.047")):
        network = a_network(clock)
        opened = _reverse(network, _need(ceiling=ceiling))
        clock.advance(timedelta(seconds=2))
        quote = network.talks.reverse(TENANT, opened.auction_id).quote
        assert quote is not None
        assert quote.unit_price.amount == Decimal(price)


def test_a_reverse_auction_that_nobody_wins(clock: ManualClock) -> None:
    network = a_network(clock)
    low = _reverse(network, _need(ceiling="0.01"), key="low")
    sold = _reverse(network, _need(quantity=3), key="sold")
    held_quote = network.quote(TENANT, wire.QuoteRequest(offer_id="lot", quantity=1, term=TERM))
    network.hold(TENANT, wire.HoldRequest(quote_id=held_quote.quote_id, quantity=1), key="h")
    clock.advance(timedelta(seconds=2))
    answers = [network.talks.reverse(TENANT, one.auction_id) for one in (low, sold)]
    assert [answer.state for answer in answers] == [ReverseState.FAILED] * 2
    assert "ceiling" in answers[0].reason
    assert "sold before" in answers[1].reason


def test_a_reverse_auction_that_cannot_be(clock: ManualClock) -> None:
    network = a_network(clock)
    with _refusal(ProblemCode.INSUFFICIENT_CAPACITY):
        _reverse(network, _need(vcpus=64))
    with _refusal(ProblemCode.INSUFFICIENT_CAPACITY):
        _reverse(a_network(clock, [an_auction()]), _need())
    first = _reverse(network, _need())
    assert _reverse(network, _need()).auction_id == first.auction_id
    with _refusal(ProblemCode.KEY_REUSED):
        _reverse(network, _need(quantity=2))
    with _refusal(ProblemCode.NOT_FOUND):
        network.talks.reverse("other", first.auction_id)
