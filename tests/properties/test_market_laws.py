"""Laws of the market: never above the ceiling, never sold twice, and an auction that is worth the name."""

import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.clock import ManualClock
from engine.errors import PriceMismatch
from engine.market.auction import AuctionStrategy, best_bid, worth_of
from engine.market.base import Declined
from engine.market.rfq import ROUNDS, RfqStrategy, reservation_price
from engine.market.scoring import ScoreWeights, rank
from engine.market.spot import SpotStrategy, ceiling_that_held, highest_in_each_window
from engine.model.capacity import Resources
from engine.model.market import Offer, PurchaseOption, Quote
from engine.model.money import Money
from engine.model.value import Interval
from providers.base import AuctionRule
from providers.network import wire
from providers.network.auction import Bid, close_round
from providers.network.book import Terms
from providers.network.exchange import Exchange
from providers.network.stock import AuctionRules, Listing, Refused
from providers.network.wire import WireAuctionRule
from tests.unit.engine.market.counterparties import (
    NOW,
    Auctioneer,
    Haggler,
    Honest,
    a_market,
    a_need,
    a_quote,
    an_offer,
)

prices = st.decimals(min_value="0.001", max_value="5", places=4)
histories = st.lists(st.tuples(st.floats(0.1, 500), prices), max_size=30)


def money(amount: Decimal) -> Money:
    return Money(amount=amount, currency="USD")


def an_offer_with(
    option: PurchaseOption, price: Decimal, history: list[tuple[float, Decimal]], name: str = "x"
) -> Offer:
    points = sorted(((hours, str(paid)) for hours, paid in history), reverse=True)
    return an_offer(name, option=option, price=str(price), history=points)


@given(
    price=prices,
    on_demand=prices,
    history=histories,
    asked=prices,
    hours=st.floats(0.5, 300),
    survival=st.floats(0, 1),
)
def test_a_spot_quote_is_under_its_ceiling_and_its_ceiling_under_on_demand(
    price: Decimal,
    on_demand: Decimal,
    history: list[tuple[float, Decimal]],
    asked: Decimal,
    hours: float,
    survival: float,
) -> None:
    class Asking(Honest):
        def quote(self, offer: Offer, quantity: int, term: Interval) -> Quote:
            return a_quote(offer, quantity, term, money(asked))

    spot = an_offer_with(PurchaseOption.SPOT, price, history)
    posted = an_offer_with(PurchaseOption.ON_DEMAND, on_demand, [], "posted")
    market = a_market(Asking(), offers=(spot, posted))
    try:
        (quote,) = SpotStrategy().negotiate(a_need(hours=hours, survival=survival), [spot], market)
    except Declined:
        assert price > on_demand
    except PriceMismatch:
        assert asked >= price
    else:
        assert quote.unit_price.amount <= quote.price_ceiling.amount <= on_demand
        assert price <= quote.price_ceiling.amount
        assert 0 <= quote.survival <= 1


@given(price=prices, history=histories.filter(bool), low=st.floats(0, 1), high=st.floats(0, 1))
def test_a_surer_ceiling_is_no_lower(
    price: Decimal, history: list[tuple[float, Decimal]], low: float, high: float
) -> None:
    spot = an_offer_with(PurchaseOption.SPOT, price, history)
    maxima = highest_in_each_window(spot, NOW, timedelta(hours=1))
    low, high = sorted((low, high))
    assert ceiling_that_held(spot, maxima, low, None) <= ceiling_that_held(spot, maxima, high, None)


@given(
    worth_price=prices,
    history=histories,
    reserve=prices,
    clearing=prices,
    asked=prices,
    rule=st.sampled_from(AuctionRule),
)
def test_an_auction_never_pays_more_than_its_bid_nor_bids_more_than_the_worth(
    worth_price: Decimal,
    history: list[tuple[float, Decimal]],
    reserve: Decimal,
    clearing: Decimal,
    asked: Decimal,
    rule: AuctionRule,
) -> None:
    lot = an_offer_with(PurchaseOption.AUCTION, reserve, history)
    posted = an_offer_with(PurchaseOption.ON_DEMAND, worth_price, [], "posted")
    worth = worth_of(lot, a_need(), [posted])
    auctioneer = Auctioneer(lambda _: (money(clearing), money(asked)), rule=rule, reserve=str(reserve))
    market = a_market(auctioneer, offers=(lot, posted))
    try:
        (quote,) = AuctionStrategy().negotiate(a_need(), [lot], market)
    except (Declined, PriceMismatch):
        pass
    else:
        assert quote.unit_price <= quote.price_ceiling
    for _, bid in auctioneer.bids:
        assert money(reserve) <= bid <= worth


@given(worth=prices, history=histories)
def test_bidding_under_another_rule_never_exceeds_the_worth(
    worth: Decimal, history: list[tuple[float, Decimal]]
) -> None:
    lot = an_offer_with(PurchaseOption.AUCTION, Decimal("0.001"), history)
    for rule in (*AuctionRule, None):
        assert best_bid(lot, money(worth), money(Decimal("0.001")), rule).amount <= worth


@given(amounts=st.lists(prices, min_size=1, max_size=12), factor=st.decimals("0.1", "10", places=2))
def test_ranking_by_cost_is_scale_free(amounts: list[Decimal], factor: Decimal) -> None:
    def order(scale: Decimal) -> list[str]:
        offers = [an_offer(f"o{index:02d}", price=str(a * scale)) for index, a in enumerate(amounts)]
        return [scored.offer.id for scored in rank(offers, a_need(), ScoreWeights(performance=0, reliability=0))]

    assert order(Decimal(1)) == order(factor)


def _bid(name: str, quantity: int, price: Decimal) -> Bid:
    term = Interval(start=NOW, end=NOW + timedelta(hours=1))
    return Bid(name, "t", "lot", 0, quantity, price, term, NOW)


@given(
    rule=st.sampled_from(WireAuctionRule),
    supply=st.integers(0, 10),
    reserve=prices,
    rivals=st.lists(prices, max_size=15),
    ours=st.lists(st.tuples(st.integers(1, 4), prices), max_size=5),
)
def test_an_auction_sells_no_more_than_it_has_and_charges_no_winner_more_than_its_bid(
    rule: WireAuctionRule, supply: int, reserve: Decimal, rivals: list[Decimal], ours: list[tuple[int, Decimal]]
) -> None:
    bids = [_bid(f"b{index}", quantity, price) for index, (quantity, price) in enumerate(ours)]
    outcome = close_round(rule, supply, reserve, rivals, bids)
    assert sum(outcome.won.values()) <= supply
    assert outcome.clearing_price >= reserve
    for bid in bids:
        won = outcome.won.get(bid.bid_id, 0)
        assert won <= bid.quantity
        if won:
            assert reserve <= outcome.clearing_price <= bid.unit_price
        elif supply and bid.unit_price > outcome.clearing_price:
            raise AssertionError("the highest bids must win")


@given(
    supply=st.integers(1, 6),
    rivals=st.lists(prices, max_size=10),
    worth=prices,
    other=prices,
)
def test_bidding_the_worth_is_best_under_the_second_price_rule(
    supply: int, rivals: list[Decimal], worth: Decimal, other: Decimal
) -> None:
    def gain(price: Decimal) -> Decimal:
        outcome = close_round(
            WireAuctionRule.SEALED_SECOND_PRICE, supply, Decimal("0.001"), rivals, [_bid("b", 1, price)]
        )
        return worth - outcome.clearing_price if outcome.won else Decimal(0)

    assert gain(worth) >= gain(other)


START = datetime(2026, 3, 1, tzinfo=UTC)
TERM = wire.WireTerm(start=START, end=START + timedelta(days=1))


def _exchange(units: int, clock: ManualClock, *, auction: bool) -> Exchange:
    listing = Listing(
        offer_id="lot",
        region="r",
        zone="z",
        instance_type="t",
        resources=Resources(vcpus=2, memory_gib=4),
        performance=1.0,
        option=PurchaseOption.AUCTION if auction else PurchaseOption.ON_DEMAND,
        ask=Decimal("0.05"),
        units=units,
        correlation_group="g",
        auction=AuctionRules(WireAuctionRule.SEALED_SECOND_PRICE, 2.0) if auction else None,
    )
    return Exchange([listing], Terms("n"), clock=clock)


@settings(max_examples=15, deadline=None)
@given(units=st.integers(1, 6), buyers=st.integers(2, 12), quantity=st.integers(1, 3))
def test_no_unit_is_sold_twice_whoever_asks_at_once(units: int, buyers: int, quantity: int) -> None:
    clock = ManualClock(START)
    exchange = _exchange(units, clock, auction=False)
    gate, started = threading.Barrier(buyers), []

    def buy(number: int) -> None:
        gate.wait()
        for attempt in range(3):
            tenant = f"tenant-{number}"
            try:
                quote = exchange.quote(tenant, wire.QuoteRequest(offer_id="lot", quantity=quantity, term=TERM))
                request = wire.HoldRequest(quote_id=quote.quote_id, quantity=quantity)
                hold = exchange.hold(tenant, request, key=f"h{number}.{attempt}")
                for unit in range(quantity):
                    node = wire.ConfirmRequest(node=f"n{number}.{attempt}.{unit}", token="t", user_data="")
                    reservation = exchange.confirm(tenant, hold.hold_id, node, key=f"c{number}.{attempt}.{unit}")
                    started.append(reservation.reservation_id)
            except Refused:
                continue

    threads = [threading.Thread(target=buy, args=(number,)) for number in range(buyers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    running = [unit for unit in exchange.units() if unit.ended_at(clock.now()) is None]
    assert len(started) == len(set(started)) == len(running)
    assert len(running) <= units
    assert exchange.offers(Resources(vcpus=0, memory_gib=0))[0].available == units - len(running)
    assert len(running) >= min(units // quantity, buyers) * quantity, "what was free was sold"


@settings(max_examples=25, deadline=None)
@given(
    units=st.integers(1, 5),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["hold", "confirm", "pay", "resize", "release", "end", "bid", "wait"]), st.integers(0, 400)
        ),
        max_size=40,
    ),
    auction=st.booleans(),
)
def test_units_are_conserved_whatever_happens_in_whatever_order(
    units: int, steps: list[tuple[str, int]], auction: bool
) -> None:
    clock = ManualClock(START)
    exchange = _exchange(units, clock, auction=auction)
    holds: list[str] = []
    for number, (verb, value) in enumerate(steps):
        with suppress(Refused):
            _act(exchange, clock, holds, verb, value, number)
        offer = exchange.offers(Resources(vcpus=0, memory_gib=0))[0]
        running = len(exchange.reservations("t"))
        kept = sum(
            hold.quantity - hold.started
            for hold in (exchange.hold_state("t", hold_id) for hold_id in holds)
            if hold.state is wire.HoldState.PAID or (hold.state is wire.HoldState.HELD)
        )
        assert offer.available is not None
        assert 0 <= offer.available <= units - running - kept
        if not auction:
            assert offer.available == units - running - kept
    clock.advance(timedelta(days=1))
    for hold_id in holds:
        exchange.release("t", hold_id)
    for reservation in exchange.reservations("t"):
        exchange.end("t", reservation.reservation_id)
    assert exchange.offers(Resources(vcpus=0, memory_gib=0))[0].available == units, "nothing leaks"


def _act(exchange: Exchange, clock: ManualClock, holds: list[str], verb: str, value: int, number: int) -> None:
    chosen = holds[value % len(holds)] if holds else "none"
    if verb == "wait":
        clock.advance(timedelta(seconds=value))
    elif verb == "hold":
        quote = exchange.quote("t", wire.QuoteRequest(offer_id="lot", quantity=1 + value % 2, term=TERM))
        request = wire.HoldRequest(quote_id=quote.quote_id, quantity=quote.quantity)
        holds.append(exchange.hold("t", request, key=f"h{number}").hold_id)
    elif verb == "bid":
        price = wire.WireMoney(amount=Decimal("0.06"), currency="USD")
        entered = exchange.bidding.bid(
            "t", "lot", wire.BidRequest(quantity=1, unit_price=price, term=TERM), key=f"b{number}"
        )
        clock.advance(timedelta(seconds=3))
        won = exchange.bidding.result("t", "lot", entered.bid_id).quote
        if won is not None:
            request = wire.HoldRequest(quote_id=won.quote_id, quantity=1)
            holds.append(exchange.hold("t", request, key=f"h{number}").hold_id)
    elif verb == "confirm":
        node = wire.ConfirmRequest(node=f"n{value % 7}", token="t", user_data="")
        exchange.confirm("t", chosen, node, key=f"c{number}")
    elif verb == "pay":
        exchange.pay("t", chosen)
    elif verb == "resize":
        exchange.resize_hold("t", chosen, wire.ResizeHoldRequest(quantity=1 + value % 3), key=f"s{number}")
    elif verb == "release":
        exchange.release("t", chosen)
    else:
        running = exchange.reservations("t")
        if running:
            exchange.end("t", running[value % len(running)].reservation_id)


@settings(max_examples=60, deadline=None)
@given(
    answers=st.lists(st.one_of(st.none(), st.floats(0.3, 1.3)), min_size=1, max_size=8),
    listens=st.integers(1, 12),
    alternative=st.one_of(st.none(), st.floats(0.02, 0.3)),
)
def test_whoever_it_talks_to_it_never_pays_more_than_the_posted_price_and_stops(
    answers: list[float | None], listens: int, alternative: float | None
) -> None:
    """``answers``: by round, the share of the ask that the counterparty wants next; None: a rejection."""

    def counter(number: int, ask: Decimal, _: Decimal) -> Decimal | None:
        share = answers[(number - 1) % len(answers)]
        return None if share is None else ask * Decimal(repr(round(share, 6)))

    haggler, offer = Haggler(counter, rounds=listens), an_offer()
    others = [] if alternative is None else [an_offer("q", provider="q", price=f"{alternative:.6f}")]
    market = a_market(haggler, offers=[offer, *others])
    reservation = reservation_price(offer, a_need(), market.offers)
    with suppress(Declined):
        (quote,) = RfqStrategy().negotiate(a_need(), [offer], market)
        assert quote.unit_price <= quote.price_ceiling <= offer.price
    proposals = [price for _, _, price in haggler.heard]
    assert 1 <= len(proposals) <= min(ROUNDS, listens)
    assert proposals == sorted(proposals)
    assert all(price <= reservation for price in proposals)
