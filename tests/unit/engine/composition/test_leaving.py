from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from engine.clock import ManualClock
from engine.composition.leaving import Drains
from engine.model.capacity import Resources
from engine.model.composite import CompositeRule
from engine.model.ids import CellId, NodeId, PoolId, ShardId
from engine.model.market import PurchaseOption
from engine.model.money import usd
from engine.model.placement import Node, ShardState
from engine.store.database import Database, metadata
from engine.store.shard_map import ShardMap
from tests.unit.engine.composition.cases import API, NOW, WEB, replica
from tests.unit.engine.small_round import Fleet

SIZE = Resources(vcpus=1, memory_gib=1)
RULES = {API: CompositeRule(replicas=2, drain=timedelta(seconds=30))}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def shard_map(tmp_path: Path, clock: ManualClock) -> Iterator[ShardMap]:
    """Two replicas on node n1."""
    database = Database(f"sqlite:///{tmp_path / 'store.db'}")
    metadata.create_all(database.engine)
    shard_map = ShardMap(database, clock)
    shard_map.put_node(
        Node(
            id=NodeId("n1"), cell=CellId("aws/1/r"), zone="z", instance_type="t", option=PurchaseOption.SPOT,
            hourly_price=usd("0.1"), resources=SIZE,
        )
    )  # fmt: skip
    for index, name in enumerate(("a", "b")):
        shard_map.add_shard(ShardId(name), shard_type="cpu.small", pool=WEB, node=NodeId("n1"), nominal=SIZE)
        shard_map.bind(replica(index), ShardId(name))
    yield shard_map
    database.dispose()


def test_a_replica_stays_bound_while_it_is_drained_and_is_ready_afterwards(
    shard_map: ShardMap, clock: ManualClock
) -> None:
    drains = Drains(shard_map, RULES, clock, Fleet(shard_map))
    drains.begin([replica(1)])
    clock.sleep(29)
    assert drains.finish() == ()
    assert shard_map.get(ShardId("b")).state is ShardState.DRAINING
    clock.sleep(1)
    assert [one.component for one in drains.finish()] == [replica(1)]
    assert shard_map.get(ShardId("b")).state is ShardState.READY
    assert drains.finish() == ()


def test_a_drain_that_is_begun_again_does_not_start_over(shard_map: ShardMap, clock: ManualClock) -> None:
    drains = Drains(shard_map, RULES, clock, Fleet(shard_map))
    drains.begin([replica(1)])
    clock.sleep(20)
    drains.begin([replica(1)])
    clock.sleep(10)
    assert len(drains.finish()) == 1


def test_a_deadline_cuts_a_drain_short(shard_map: ShardMap, clock: ManualClock) -> None:
    drains = Drains(shard_map, RULES, clock, Fleet(shard_map))
    drains.begin([replica(0)], by=NOW + timedelta(seconds=5))
    drains.begin([replica(1)], by=NOW - timedelta(seconds=5))
    drains.wait_for([NodeId("n1")])
    assert clock.now() == NOW + timedelta(seconds=5)
    assert shard_map.bindings() == ()


def test_what_is_wanted_again_serves_again(shard_map: ShardMap, clock: ManualClock) -> None:
    drains = Drains(shard_map, RULES, clock, Fleet(shard_map))
    drains.begin([replica(1)])
    shard_map.keep(replica(1))
    clock.sleep(60)
    assert drains.finish() == ()
    assert shard_map.get(ShardId("b")).state is ShardState.BOUND


def test_waiting_where_nothing_is_drained_costs_no_time(shard_map: ShardMap, clock: ManualClock) -> None:
    Drains(shard_map, RULES, clock, Fleet(shard_map)).wait_for([NodeId("n1")])
    assert clock.now() == NOW


def test_a_shard_with_storage_attached_is_given_up_rather_than_handed_on(
    shard_map: ShardMap, clock: ManualClock
) -> None:
    fleet = Fleet(shard_map)
    drains = Drains(shard_map, {API: CompositeRule(storage=PoolId("disks"))}, clock, fleet)
    drains.begin([replica(1)])
    clock.sleep(10)
    drains.finish()
    assert fleet.released == ["b"]
    assert [one.shard for one in shard_map.bindings()] == ["a"]
