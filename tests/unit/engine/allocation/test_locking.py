"""No double sale, no leak, and a lapsed holder can do nothing any more."""

import random
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier

import pytest
from sqlalchemy import func, select

from engine.allocation.lease import Lease, LeaseState, Stock
from engine.allocation.locking import ResourceLocking
from engine.clock import ManualClock
from engine.errors import ConcurrentUpdate, InsufficientCapacity, NotFound, QuoteExpired, StaleEpoch
from engine.store.database import Database
from engine.store.holds import leases
from tests.unit.engine.planner.cases import offer, quote

STOCK = Stock(id="quote:aws:q-1", limit=10)


def _reserve(locking: ResourceLocking, key: str, units: int = 1, stock: Stock = STOCK) -> Lease:
    return locking.reserve(stock, units, key=key, group="g", holder="h")


def _active_units(store: Database, stock: str) -> int:
    with store.transaction() as connection:
        query = select(func.coalesce(func.sum(leases.c.units), 0)).where(
            leases.c.stock == stock, leases.c.state.in_(("held", "confirmed"))
        )
        return int(connection.execute(query).scalar_one())


def test_same_key_is_the_same_lease(locking: ResourceLocking) -> None:
    assert _reserve(locking, "a", 3) == _reserve(locking, "a", 3)
    assert locking.leases.taken(STOCK.id) == 3


def test_a_key_stands_for_one_request(locking: ResourceLocking) -> None:
    _reserve(locking, "a", 3)
    with pytest.raises(ConcurrentUpdate):
        _reserve(locking, "a", 4)


def test_no_more_than_there_is(locking: ResourceLocking) -> None:
    _reserve(locking, "a", 8)
    with pytest.raises(InsufficientCapacity, match="2 of 10 left"):
        _reserve(locking, "b", 3)
    partly = locking.reserve(STOCK, 3, key="c", group="g", holder="h", at_least=1)
    assert partly.units == 2


def test_holds_lapse_and_come_back(locking: ResourceLocking, clock: ManualClock) -> None:
    lapsed = _reserve(locking, "a", 10)
    clock.advance(timedelta(minutes=5))
    again = _reserve(locking, "b", 10)
    assert again.fencing > lapsed.fencing
    with pytest.raises(NotFound):
        locking.confirm(lapsed)
    assert locking.release(lapsed) is False
    assert locking.leases.taken(STOCK.id) == 10


def test_confirmed_leases_do_not_lapse(locking: ResourceLocking, clock: ManualClock) -> None:
    lease = locking.confirm(_reserve(locking, "a", 10))
    clock.advance(timedelta(days=30))
    assert locking.expire() == 0
    assert locking.confirm(lease).state is LeaseState.CONFIRMED
    with pytest.raises(InsufficientCapacity):
        _reserve(locking, "b")
    assert locking.release(lease) is True
    assert locking.release(lease) is False
    _reserve(locking, "b", 10)


def test_an_old_fencing_token_is_refused(locking: ResourceLocking, clock: ManualClock) -> None:
    old = _reserve(locking, "a")
    clock.advance(timedelta(minutes=6))
    new = _reserve(locking, "a")
    assert new.fencing > old.fencing
    for act in (locking.confirm, locking.release):
        with pytest.raises(StaleEpoch):
            act(old)
    assert locking.confirm(new).state is LeaseState.CONFIRMED


def test_the_sweep_gives_lapsed_units_back(locking: ResourceLocking, clock: ManualClock) -> None:
    for number in range(4):
        _reserve(locking, f"k{number}", 2)
    clock.advance(timedelta(hours=1))
    assert locking.expire() == 4
    assert locking.leases.taken(STOCK.id) == 0


def test_a_group_shows_what_has_lapsed_before_any_sweep(locking: ResourceLocking, clock: ManualClock) -> None:
    _reserve(locking, "a")
    locking.confirm(_reserve(locking, "b"))
    clock.advance(timedelta(minutes=5))
    assert [lease.state for lease in locking.of_group("g")] == [LeaseState.EXPIRED, LeaseState.CONFIRMED]
    assert locking.of_group("nobody") == ()


def test_a_lapsed_key_granted_anew_counts_once(locking: ResourceLocking, clock: ManualClock) -> None:
    """Although there was room enough without a sweep."""
    _reserve(locking, "a", 3)
    clock.advance(timedelta(minutes=5))
    _reserve(locking, "a", 2)
    assert locking.leases.taken(STOCK.id) == 2


def test_a_key_that_moved_to_another_stock_is_given_back_there(locking: ResourceLocking, clock: ManualClock) -> None:
    old = _reserve(locking, "a", 3)
    clock.advance(timedelta(minutes=5))
    elsewhere = Stock(id="quote:aws:q-2", limit=10)
    _reserve(locking, "b", stock=elsewhere)
    moved = _reserve(locking, "a", 2, stock=elsewhere)
    with pytest.raises(StaleEpoch):
        locking.release(old)
    assert locking.release(moved) is True
    assert locking.leases.taken(elsewhere.id) == 1
    locking.expire()
    assert locking.leases.taken(STOCK.id) == 0


def test_quotes_limit_what_is_held_on_them(locking: ResourceLocking, clock: ManualClock) -> None:
    firm = quote(offer("o", "0.1"), quantity=2)
    for key in "ab":
        lease = locking.reserve_quote(firm, 1, key=key, group="g", holder="h")
        assert lease.expires_at <= firm.expires_at
    with pytest.raises(InsufficientCapacity):
        locking.reserve_quote(firm, 1, key="c", group="g", holder="h")
    clock.advance(timedelta(minutes=10))
    with pytest.raises(QuoteExpired):
        locking.reserve_quote(firm, 1, key="d", group="g", holder="h")


@pytest.mark.parametrize("threads", [16, 64])
def test_many_callers_over_a_scarce_stock(
    locking: ResourceLocking, store: Database, clock: ManualClock, threads: int
) -> None:
    """Reserve, confirm, release, abandon, at once and in any order: never oversold, and every unit comes back."""
    start = Barrier(threads)

    def caller(number: int) -> list[tuple[str, int]]:
        rng, kept = random.Random(number), []
        start.wait()
        for step in range(6):
            try:
                lease = _reserve(locking, f"{number}/{step}", rng.randint(1, 3))
            except InsufficientCapacity:
                continue
            choice = rng.random()
            if choice < 0.4:
                locking.release(lease)
            elif choice < 0.6:
                kept.append((locking.confirm(lease).key, lease.units))
        return kept

    with ThreadPoolExecutor(threads) as pool:
        confirmed = [sale for sales in pool.map(caller, range(threads)) for sale in sales]
    sold = sum(units for _, units in confirmed)
    assert sold <= STOCK.limit
    assert _active_units(store, STOCK.id) == locking.leases.taken(STOCK.id) <= STOCK.limit
    clock.advance(timedelta(hours=1))
    locking.expire()
    assert locking.leases.taken(STOCK.id) == sold == _active_units(store, STOCK.id)
    for key, _ in confirmed:
        lease = locking.leases.get(key)
        assert lease is not None
        locking.release(lease)
    assert locking.leases.taken(STOCK.id) == 0


def test_one_key_from_many_threads_is_one_lease(locking: ResourceLocking) -> None:
    start = Barrier(16)

    def caller(_: int) -> int:
        start.wait()
        return _reserve(locking, "same").fencing

    with ThreadPoolExecutor(16) as pool:
        assert len(set(pool.map(caller, range(16)))) == 1
    assert locking.leases.taken(STOCK.id) == 1


def test_fencing_tokens_rise_with_every_grant(locking: ResourceLocking) -> None:
    plenty = Stock(id="plenty", limit=1000)
    with ThreadPoolExecutor(16) as pool:
        tokens = list(pool.map(lambda n: _reserve(locking, str(n), stock=plenty).fencing, range(100)))
    assert sorted(tokens) == list(range(1, 101))
