"""Predict, discover, pick, reserve; else ask for more, then give up cleanly."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier, Lock

import pytest

from engine.allocation.allocate import AllocationRequest, Source, allocate_shards, pick
from engine.allocation.lease import Stock
from engine.allocation.locking import ResourceLocking
from engine.clock import ManualClock
from engine.errors import InsufficientCapacity
from engine.model.capacity import Pool
from engine.model.ids import NodeId, PoolId
from engine.model.money import usd
from tests.unit.engine.planner.cases import pool as some_pool

POOL = some_pool()


class Forecast:
    def __init__(self, expected: int = 0) -> None:
        self._expected = expected

    def expected(self, pool: PoolId) -> int:
        return self._expected


class Nodes:
    """Free slots of running nodes, and a market that can be asked for more of them."""

    def __init__(self, *sources: Source, arriving: Sequence[Source] = ()) -> None:
        self.known = list(sources)
        self.arriving = list(arriving)
        self.asked: dict[str, int] = {}
        self._lock = Lock()

    def sources(self, pool: Pool, shards: int) -> Sequence[Source]:
        return tuple(self.known)

    def request_more(self, pool: Pool, shards: int, *, key: str) -> bool:
        with self._lock:
            self.asked[key] = shards
            if not self.arriving:
                return False
            self.known.append(self.arriving.pop(0))
            return True


def _slots(name: str, count: int, price: str = "0", per_unit: int = 1, survival: float = 1.0) -> Source:
    return Source(
        stock=Stock(id=f"node:{name}", limit=count),
        price_per_shard_hour=usd(price),
        shards_per_unit=per_unit,
        survival=survival,
        node=NodeId(name),
    )


def _request(count: int = 1, key: str = "r1") -> AllocationRequest:
    return AllocationRequest(pool=POOL, count=count, holder="team", key=key)


def test_cheapest_surviving_shard_hour_first() -> None:
    dear, shaky, free = _slots("c", 1, "0.04"), _slots("b", 1, "0.03", survival=0.5), _slots("a", 1)
    assert pick([shaky, dear, free]) == [free, dear, shaky]


def test_takes_from_several_nodes(locking: ResourceLocking) -> None:
    nodes = Nodes(_slots("a", 2), _slots("b", 5, "0.01"))
    got = allocate_shards(_request(4), predict=Forecast(), discover=nodes, locking=locking, scale_out=nodes)
    assert [(lease.stock, lease.units) for lease in got.leases] == [("node:a", 2), ("node:b", 2)]
    assert got.scaled_out == 0


def test_the_same_request_gets_the_same_shards(locking: ResourceLocking) -> None:
    nodes = Nodes(_slots("a", 3))
    first = allocate_shards(_request(2), predict=Forecast(), discover=nodes, locking=locking, scale_out=nodes)
    again = allocate_shards(_request(2), predict=Forecast(), discover=nodes, locking=locking, scale_out=nodes)
    assert first == again
    assert locking.leases.taken("node:a") == 2


def test_scales_out_by_what_the_forecast_says(locking: ResourceLocking) -> None:
    nodes = Nodes(_slots("a", 1), arriving=[_slots("new", 2, "0.05", per_unit=2)])
    got = allocate_shards(_request(3), predict=Forecast(4), discover=nodes, locking=locking, scale_out=nodes)
    assert got.scaled_out == 1
    assert got.shards == 3
    assert list(nodes.asked.values()) == [2 + 4], "what is missing and what the next requests will want"


def test_gives_up_with_everything_given_back(locking: ResourceLocking) -> None:
    nodes = Nodes(_slots("a", 2))
    with pytest.raises(InsufficientCapacity, match=r"3 shard\(s\) of pool web wanted, 2 could be had"):
        allocate_shards(_request(3), predict=Forecast(), discover=nodes, locking=locking, scale_out=nodes)
    assert locking.leases.taken("node:a") == 0


def test_goes_on_where_a_crash_left_it(locking: ResourceLocking, clock: ManualClock) -> None:
    """Part of the request was held when the process died; some of it has lapsed since."""
    nodes = Nodes(_slots("a", 1), _slots("b", 1))
    for number, name in enumerate("ab"):
        ttl = timedelta(minutes=1 + 10 * number)
        locking.reserve(nodes.known[number].stock, 1, key=f"r1#{number}", group="r1", holder="team", ttl=ttl)
        assert locking.leases.taken(f"node:{name}") == 1
    clock.advance(timedelta(minutes=2))
    got = allocate_shards(_request(2), predict=Forecast(), discover=nodes, locking=locking, scale_out=nodes)
    assert sorted(lease.stock for lease in got.leases) == ["node:a", "node:b"]
    assert locking.leases.taken("node:a") == locking.leases.taken("node:b") == 1


@pytest.mark.parametrize("threads", [16, 64])
def test_many_requests_over_one_scarce_stock(locking: ResourceLocking, threads: int) -> None:
    nodes = Nodes(_slots("a", 7), _slots("b", 6, "0.01", per_unit=2))
    start = Barrier(threads)

    def caller(number: int) -> int:
        start.wait()
        try:
            request = _request(1, f"r{number}")
            made = allocate_shards(request, predict=Forecast(), discover=nodes, locking=locking, scale_out=nodes)
        except InsufficientCapacity:
            return 0
        return sum(lease.units for lease in made.leases)

    with ThreadPoolExecutor(threads) as executor:
        units = sum(executor.map(caller, range(threads)))
    assert units == 13, "every unit is sold, and none twice"
    assert locking.leases.taken("node:a") == 7
    assert locking.leases.taken("node:b") == 6
