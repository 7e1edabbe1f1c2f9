from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal

import pytest

from engine.model.value import Interval
from providers.network.auction import AuctionHouse, Bid, close_round
from providers.network.stock import lots
from providers.network.wire import WireAuctionRule
from tests.unit.providers.network.networks import START, an_auction

FIRST, SECOND = WireAuctionRule.SEALED_FIRST_PRICE, WireAuctionRule.SEALED_SECOND_PRICE
RESERVE = Decimal("0.01")


def bid(name: str, price: str, quantity: int = 1, round_number: int = 0) -> Bid:
    term = Interval(start=START, end=START + timedelta(hours=1))
    decides_at = START + timedelta(seconds=2 * (round_number + 1))
    return Bid(name, "t", "lot", round_number, quantity, Decimal(price), term, decides_at)


@pytest.mark.parametrize(
    ("rule", "supply", "rivals", "bids", "won", "clearing"),
    [
        (SECOND, 1, ["0.04", "0.03"], [("a", "0.05", 1)], {"a": 1}, "0.04"),
        (SECOND, 2, ["0.04", "0.03"], [("a", "0.05", 1)], {"a": 1}, "0.03"),
        (SECOND, 3, ["0.04"], [("a", "0.05", 2)], {"a": 2}, "0.01"),
        (SECOND, 2, ["0.04", "0.04"], [("a", "0.04", 1)], {}, "0.04"),
        (SECOND, 2, ["0.03"], [("a", "0.05", 2), ("b", "0.04", 1)], {"a": 2}, "0.04"),
        (SECOND, 0, [], [("a", "0.05", 1)], {}, "0.05"),
        (SECOND, 1, [], [("a", "0.005", 1)], {}, "0.01"),
        (FIRST, 1, ["0.04"], [("a", "0.05", 1)], {"a": 1}, "0.05"),
        (FIRST, 2, ["0.04"], [("a", "0.05", 1)], {"a": 1}, "0.04"),
        (FIRST, 2, [], [], {}, "0.01"),
    ],
)
def test_closing_a_round(
    rule: WireAuctionRule,
    supply: int,
    rivals: Sequence[str],
    bids: Sequence[tuple[str, str, int]],
    won: dict[str, int],
    clearing: str,
) -> None:
    outcome = close_round(rule, supply, RESERVE, [Decimal(price) for price in rivals], [bid(*entry) for entry in bids])
    assert (outcome.won, outcome.clearing_price) == (won, Decimal(clearing))


class Awards:
    def __init__(self) -> None:
        self.made: list[tuple[str, int, Decimal]] = []

    def __call__(self, winner: Bid, units: int, price: Decimal, at: object) -> str:
        self.made.append((winner.bid_id, units, price))
        return f"quote-{winner.bid_id}"


def test_rounds_close_in_order_once_their_time_has_come() -> None:
    awards = Awards()
    house = AuctionHouse(lots([an_auction()], START), lambda *_: [Decimal("0.02")] * 3, awards)
    late, early = bid("late", "0.05", round_number=1), bid("early", "0.05")
    house.enter(late)
    house.enter(early)
    house.settle(START + timedelta(seconds=1))
    assert not early.decided
    house.settle(START + timedelta(seconds=10))
    assert [made[0] for made in awards.made] == ["early", "late"]
    assert (early.quote_id, early.clearing_price) == ("quote-early", Decimal("0.02"))
    house.settle(START + timedelta(seconds=20))
    assert len(awards.made) == 2


def test_a_first_price_winner_pays_its_bid() -> None:
    awards = Awards()
    house = AuctionHouse(lots([an_auction(FIRST)], START), lambda *_: [], awards)
    house.enter(bid("a", "0.05", 2))
    house.settle(START + timedelta(seconds=2))
    assert awards.made == [("a", 2, Decimal("0.05"))]


def test_a_loser_is_told_why() -> None:
    house = AuctionHouse(lots([an_auction(units=1)], START), lambda *_: [Decimal("0.04")], Awards())
    low, outbid = bid("low", "0.001"), bid("outbid", "0.03")
    house.enter(low)
    house.enter(outbid)
    house.settle(START + timedelta(seconds=2))
    assert "reserve price of 0.01" in low.reason
    assert "cleared at 0.03" in outbid.reason


def test_the_past_is_repeatable_and_learns_from_real_rounds() -> None:
    def rivals(_: str, number: int) -> list[Decimal]:
        return [Decimal("0.02") + Decimal(number % 5) / 1000] * 4

    first, second = (AuctionHouse(lots([an_auction()], START), rivals, Awards()) for _ in range(2))
    assert first.hourly_prices("lot", START) == second.hourly_prices("lot", START)
    hours = [at for at, _ in first.hourly_prices("lot", START)]
    assert hours == sorted(hours)
    assert hours[-1] <= START
    assert len(first.recent("lot", START)) == 5
