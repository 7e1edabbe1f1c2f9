from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from engine.clock import ManualClock
from providers.sandbox.prices import PriceBoard, Walk

START = datetime(2026, 11, 23, 1, 30, tzinfo=UTC)
SPOT, LISTED = ("r1", "type", "spot"), ("r1", "type", "on_demand")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


def board(clock: ManualClock, seed: str = "7") -> PriceBoard:
    made = PriceBoard(clock)
    made.post(LISTED, Decimal("0.1"))
    made.start_walk(SPOT, Walk(base=Decimal("0.03"), seed=seed, ceiling=Decimal("0.031")))
    return made


def test_a_posted_price_stands_still(clock: ManualClock) -> None:
    prices = board(clock)
    clock.advance(timedelta(days=3))
    assert prices.now(LISTED) == Decimal("0.1")
    assert len(prices.changes(LISTED, START, clock.now())) == 1


def test_a_walk_has_a_past_moves_on_and_stays_under_its_ceiling(clock: ManualClock) -> None:
    prices = board(clock)
    past = prices.changes(SPOT, START - timedelta(hours=24), START)
    clock.advance(timedelta(hours=6))
    later = prices.changes(SPOT, START, clock.now())
    assert len(past) > 20
    assert len({price for _, price in later}) > 5
    assert all(Decimal(0) < price <= Decimal("0.031") for _, price in past + later)


def test_the_seed_decides_however_often_one_looks(clock: ManualClock) -> None:
    other_clock = ManualClock(START)
    watched, unwatched = board(clock), board(other_clock)
    for _ in range(50):
        clock.advance(timedelta(minutes=7))
        watched.now(SPOT)
    other_clock.advance(timedelta(minutes=350))
    since = START - timedelta(hours=24)
    assert watched.changes(SPOT, since, clock.now()) == unwatched.changes(SPOT, since, other_clock.now())
    assert board(clock, "8").now(SPOT) != watched.now(SPOT)


def test_a_change_ends_the_walk_and_joins_the_history(clock: ManualClock) -> None:
    prices = board(clock)
    prices.change(SPOT, Decimal("0.5"))
    clock.advance(timedelta(hours=5))
    assert prices.now(SPOT) == Decimal("0.5")
    assert prices.changes(SPOT, START - timedelta(hours=1), clock.now())[-1] == (START, Decimal("0.5"))
    assert prices.changed_at(SPOT) == START


def test_changes_begin_with_the_price_in_force(clock: ManualClock) -> None:
    prices = board(clock)
    for amount in ("0.2", "0.3"):
        clock.advance(timedelta(hours=1))
        prices.change(LISTED, Decimal(amount))
    found = prices.changes(LISTED, START + timedelta(minutes=90), clock.now() + timedelta(hours=1))
    assert [price for _, price in found] == [Decimal("0.2"), Decimal("0.3")]


def test_an_unknown_price_cannot_change(clock: ManualClock) -> None:
    with pytest.raises(KeyError):
        board(clock).change(("r2", "type", "spot"), Decimal(1))
