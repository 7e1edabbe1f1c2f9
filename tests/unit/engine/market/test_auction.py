from collections.abc import Callable
from decimal import Decimal
from random import Random

import pytest

from engine.errors import PriceMismatch
from engine.market.auction import AuctionStrategy, best_bid, bid_key, worth_of
from engine.market.base import Declined
from engine.model.market import Offer, PricePoint, PurchaseOption, Quote, Reliability
from engine.model.money import Money, usd
from providers.base import AuctionOutcome, AuctionRule
from tests.unit.engine.market.counterparties import NOW, Auctioneer, Honest, a_market, a_need, a_quote, an_offer

CERTAIN = Reliability(correlation_group="g", interruption_per_month=0.0)
HISTORY = [(float(hours), price) for hours, price in zip(range(10, 0, -1), ["0.03"] * 8 + ["0.07"] * 2, strict=True)]
LOT = an_offer("lot", option=PurchaseOption.AUCTION, price="0.01", history=HISTORY, reliability=CERTAIN)
POSTED = an_offer("posted", price="0.10", provider="q", reliability=CERTAIN)


def _negotiate(auctioneer: Auctioneer, lot: Offer = LOT, others: tuple[Offer, ...] = (POSTED,)) -> Quote:
    market = a_market(auctioneer, Honest("q"), offers=(lot, *others))
    (quote,) = AuctionStrategy().negotiate(a_need(), [lot], market)
    return quote


def test_bids_the_worth_where_the_second_price_is_paid() -> None:
    honest = Auctioneer(lambda _: (usd("0.04"), usd("0.04")))
    quote = _negotiate(honest)
    assert [price for _, price in honest.bids] == [usd("0.10")]
    assert (quote.unit_price, quote.price_ceiling, quote.strategy) == (usd("0.04"), usd("0.10"), "auction")


def test_shades_by_the_learned_chance_of_winning_where_the_own_bid_is_paid() -> None:
    honest = Auctioneer(lambda bid: (bid, bid), rule=AuctionRule.FIRST_PRICE)
    quote = _negotiate(honest)
    # 8 of 10 rounds went at 0.03: (0.10 - 0.03) x 0.8 beats (0.10 - 0.07) x 1.
    assert quote.unit_price == usd("0.030001")
    assert best_bid(LOT, usd("0.50"), usd("0.01"), None) == usd("0.070001"), "worth more: win every round"


def test_without_a_history_half_way_between_reserve_and_worth() -> None:
    lot = LOT.model_copy(update={"price_history": ()})
    assert best_bid(lot, usd("0.10"), usd("0.02"), AuctionRule.FIRST_PRICE) == usd("0.06")


def test_worth_counts_slices_and_lost_units() -> None:
    big = LOT.model_copy(update={"resources": LOT.resources.model_copy(update={"vcpus": 8.0})})
    assert worth_of(big, a_need(), [POSTED]) == usd("0.40")
    shaky = an_offer(
        "shaky",
        price="0.05",
        option=PurchaseOption.SPOT,
        reliability=Reliability(correlation_group="g", interruption_per_month=0.75),
    )
    assert worth_of(LOT, a_need(hours=730), [POSTED, shaky]) == usd("0.10"), "0.05 with three in four lost"


def test_what_is_exhausted_is_no_alternative() -> None:
    gone = an_offer("gone", price="0.02", available=0, reliability=CERTAIN)
    assert worth_of(LOT, a_need(), [POSTED, gone]) == usd("0.10")


def test_passes_where_nothing_tells_the_worth_or_the_reserve_is_above_it() -> None:
    with pytest.raises(Declined, match="worth"):
        _negotiate(Auctioneer(lambda bid: (bid, bid)), others=())
    with pytest.raises(Declined, match=r"reserve price 0\.20"):
        _negotiate(Auctioneer(lambda bid: (bid, bid), reserve="0.20"))


def test_a_lost_auction_says_what_it_cleared_at() -> None:
    with pytest.raises(Declined, match=r"cleared at 0\.12 USD: outbid"):
        _negotiate(Auctioneer(lambda _: (usd("0.12"), None)))


@pytest.mark.parametrize(
    ("rule", "clearing", "asked"),
    [
        (AuctionRule.SECOND_PRICE, "0.04", "0.05"),
        (AuctionRule.SECOND_PRICE, "0.04", "0.20"),
        (AuctionRule.FIRST_PRICE, "0.20", "0.20"),
    ],
)
def test_a_won_price_that_breaks_the_rule_stops_the_offer(rule: AuctionRule, clearing: str, asked: str) -> None:
    with pytest.raises(PriceMismatch):
        _negotiate(Auctioneer(lambda _: (usd(clearing), usd(asked)), rule=rule))


def test_a_win_without_a_quote_stops_the_offer() -> None:
    class Forgetful(Auctioneer):
        def bid(self, offer: Offer, *_: object, key: str) -> AuctionOutcome:
            return AuctionOutcome(won=True)

    with pytest.raises(PriceMismatch):
        _negotiate(Forgetful(lambda bid: (bid, bid)))


def test_fewer_units_than_wanted_may_be_won() -> None:
    class Scarce(Auctioneer):
        def bid(self, offer: Offer, quantity: int, price: Money, term: object, *, key: str) -> AuctionOutcome:
            quote = a_quote(offer, 1, a_need().term, usd("0.04"))
            return AuctionOutcome(won=True, clearing_price=usd("0.04"), quote=quote)

    assert _negotiate(Scarce(lambda bid: (bid, bid))).quantity == 1


def test_the_same_need_bids_under_the_same_key() -> None:
    honest = Auctioneer(lambda _: (usd("0.04"), usd("0.04")))
    _negotiate(honest)
    _negotiate(honest)
    assert honest.bids[0] == honest.bids[1]
    assert bid_key(a_need(key="round-2"), LOT) != bid_key(a_need(key="round-1"), LOT)


def test_a_provider_that_takes_no_bids() -> None:
    with pytest.raises(Declined, match="takes no bids"):
        AuctionStrategy().negotiate(a_need(), [LOT], a_market(Honest(), offers=(LOT, POSTED)))


def test_leaves_other_options_alone() -> None:
    assert AuctionStrategy().negotiate(a_need(), [POSTED], a_market(Honest("q"))) == []


def test_bids_are_whole_steps() -> None:
    worth = worth_of(LOT, a_need(), [an_offer("third", price="0.1", vcpus=3)])
    assert worth.amount == worth.amount.quantize(Decimal("0.000001"))


def test_goes_up_to_the_worth_where_bids_are_seen_and_pays_what_it_takes() -> None:
    offer = an_offer("lot", option=PurchaseOption.AUCTION, price="0.01")
    auctioneer = Auctioneer(lambda _: (usd("0.03"), usd("0.03")), rule=AuctionRule.OPEN_ASCENDING)
    market = a_market(auctioneer, offers=[offer, an_offer("posted")])
    (quote,) = AuctionStrategy().negotiate(a_need(), [offer], market)
    ((_, limit),) = auctioneer.bids
    assert quote.unit_price == usd("0.03")
    assert quote.price_ceiling == limit == worth_of(offer, a_need(), market.offers)


def _climbs(bid: str, asked: str | None = None) -> Callable[[Money], AuctionOutcome]:
    """An open round that ends with our bid standing at ``bid``."""

    def decide(_: Money) -> AuctionOutcome:
        quote = a_quote(LOT, 3, a_need().term, usd(asked or bid))
        return AuctionOutcome(won=True, clearing_price=usd(bid), quote=quote, bid=usd(bid))

    return decide


class House(Auctioneer):
    """Decides by itself, and tells what was bid."""

    def __init__(self, decide: Callable[[Money], AuctionOutcome], rule: AuctionRule) -> None:
        super().__init__(lambda bid: (bid, bid), rule=rule)
        self.decide = decide

    def bid(self, offer: Offer, quantity: int, price: Money, term: object, *, key: str) -> AuctionOutcome:
        self.bids.append((key, price))
        return self.decide(price)


@pytest.mark.parametrize(
    ("rule", "stood", "asked", "said"),
    [
        (AuctionRule.OPEN_ASCENDING, "0.04", "0.05", "came to 0.04 USD, but the quote asks 0.05 USD"),
        (AuctionRule.OPEN_ASCENDING, "0.04", "0.03", "came to 0.04 USD"),
        (AuctionRule.OPEN_ASCENDING, "0.20", "0.20", "at most 0.10"),
        (AuctionRule.FIRST_PRICE, "0.02", "0.025", "came to 0.02 USD"),
        (AuctionRule.FIRST_PRICE, "0.20", "0.20", "at most 0.03"),
    ],
)
def test_a_house_that_asks_another_price_than_the_last_bid(
    rule: AuctionRule, stood: str, asked: str, said: str
) -> None:
    with pytest.raises(PriceMismatch, match=said):
        _negotiate(House(_climbs(stood, asked), rule))


def test_an_honest_open_house_is_paid_the_last_bid() -> None:
    quote = _negotiate(House(_climbs("0.04"), AuctionRule.OPEN_ASCENDING))
    assert (quote.unit_price, quote.price_ceiling) == (usd("0.04"), usd("0.10"))


def test_the_first_bid_of_a_resumed_round_stands_and_is_what_is_paid() -> None:
    """An earlier life had bid a little less under the same key."""
    quote = _negotiate(House(_climbs("0.029"), AuctionRule.FIRST_PRICE))
    assert quote.unit_price == usd("0.029")


def _earned(rival: Callable[[Random], list[str]], worth: str, *, rounds: int = 400) -> tuple[Decimal, Decimal]:
    """What the bid earns a round at first price against such rivals, and the bid."""
    chance = Random(3)
    past = [max(rival(chance)) for _ in range(96)]
    lot = LOT.model_copy(update={"price_history": tuple(PricePoint(at=NOW, price=usd(price)) for price in past)})
    bid = best_bid(lot, usd(worth), usd("0.01"), AuctionRule.FIRST_PRICE).amount
    assert bid <= Decimal(worth)
    won = sum(1 for _ in range(rounds) if Decimal(max(rival(chance))) < bid)
    return (Decimal(worth) - bid) * won / rounds, bid


def _steady(chance: Random) -> list[str]:
    return ["0.030"]


def _crowd(chance: Random) -> list[str]:
    return [f"{chance.uniform(0.02, 0.06):.4f}" for _ in range(4)]


def _seldom_in_a_hurry(chance: Random) -> list[str]:
    return ["0.095" if chance.random() < 0.1 else f"{chance.uniform(0.02, 0.03):.4f}"]


def _absent(chance: Random) -> list[str]:
    return ["0.01"]


@pytest.mark.parametrize(
    ("rival", "at_least", "highest_bid"),
    [
        (_steady, "0.069", "0.031"),
        (_crowd, "0.035", "0.061"),
        (_seldom_in_a_hurry, "0.060", "0.031"),
        (_absent, "0.089", "0.011"),
    ],
)
def test_at_first_price_it_learns_what_each_rival_leaves_it(
    rival: Callable[[Random], list[str]], at_least: str, highest_bid: str
) -> None:
    gain, bid = _earned(rival, "0.10")
    assert gain >= Decimal(at_least)
    assert bid <= Decimal(highest_bid), "no more than it takes"


def test_it_does_not_chase_a_rival_that_pays_more_than_the_worth() -> None:
    gain, bid = _earned(lambda _: ["0.15"], "0.10")
    assert gain == 0
    assert bid <= Decimal("0.10")
