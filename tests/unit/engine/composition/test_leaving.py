from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from engine.clock import ManualClock
from engine.composition.leaving import Drains
from engine.errors import ProviderUnavailable
from engine.model.capacity import Resources
from engine.model.composite import CompositeRule
from engine.model.ids import CellId, NodeId, PoolId, ShardId
from engine.model.market import PurchaseOption
from engine.model.money import usd
from engine.model.placement import Binding, Node, Shard, ShardState
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


def test_a_long_drain_is_not_waited_for_beyond_a_bound(shard_map: ShardMap, clock: ManualClock) -> None:
    drains = Drains(shard_map, RULES, clock, Fleet(shard_map))
    drains.begin([replica(1)])
    drains.wait_for([NodeId("n1")], by=NOW + timedelta(seconds=5))
    assert clock.now() == NOW + timedelta(seconds=5)
    assert shard_map.get(ShardId("b")).state is ShardState.DRAINING
    drains.wait_for([NodeId("n1")], by=NOW)
    assert clock.now() == NOW + timedelta(seconds=5)


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


class Meanwhile(ShardMap):
    """Something happens right after the bindings have been read for the first time."""

    happens: Callable[[], None] | None = None

    def bindings(self, *, namespace: str | None = None, shard: ShardId | None = None) -> tuple[Binding, ...]:
        found = super().bindings(namespace=namespace, shard=shard)
        happens, self.happens = self.happens, None
        if happens is not None:
            happens()
        return found


@pytest.fixture
def meanwhile(shard_map: ShardMap, clock: ManualClock) -> Meanwhile:
    return Meanwhile(shard_map._database, clock)


def test_what_is_kept_while_drains_are_finished_stays_bound(meanwhile: Meanwhile, clock: ManualClock) -> None:
    drains = Drains(meanwhile, RULES, clock, Fleet(meanwhile))
    drains.begin([replica(1)], by=NOW)
    meanwhile.happens = lambda: meanwhile.keep(replica(1))
    assert drains.finish() == ()
    assert meanwhile.get(ShardId("b")).state is ShardState.BOUND


@pytest.mark.parametrize("rule", [CompositeRule(), CompositeRule(storage=PoolId("disks"))])
def test_what_another_thread_has_let_go_is_no_error(
    meanwhile: Meanwhile, clock: ManualClock, rule: CompositeRule
) -> None:
    fleet = Fleet(meanwhile)
    drains = Drains(meanwhile, {API: rule}, clock, fleet)
    drains.begin([replica(1)], by=NOW)
    meanwhile.happens = lambda: meanwhile.remove(ShardId("b"))
    assert (drains.finish(), fleet.released) == ((), [])


def test_a_silent_node_does_not_keep_the_others_bound(shard_map: ShardMap, clock: ManualClock) -> None:
    class Silent(Fleet):
        def release(self, shard: Shard) -> None:
            shard_map.set_state(shard.id, ShardState.RELEASED)
            raise ProviderUnavailable(f"node {shard.node} does not answer")

    drains = Drains(shard_map, {API: CompositeRule(storage=PoolId("disks"))}, clock, Silent(shard_map))
    drains.begin([replica(0), replica(1)], by=NOW)
    assert len(drains.finish()) == 2
    assert shard_map.bindings() == ()
    assert {shard.state for shard in shard_map.search()} == {ShardState.RELEASED}
    assert drains.finish() == ()


def test_a_drained_shard_that_has_just_moved_is_given_up_where_it_is_now(
    shard_map: ShardMap, clock: ManualClock
) -> None:
    class Moving(Fleet):
        def release(self, shard: Shard) -> None:
            if shard.epoch == 1:
                shard_map.move(shard.id, expected_epoch=1, to_node=shard.node)
            shard_map.set_state(shard.id, ShardState.RELEASED, expected_epoch=shard.epoch)
            super().release(shard)

    drains = Drains(shard_map, {API: CompositeRule(storage=PoolId("disks"))}, clock, Moving(shard_map))
    drains.begin([replica(0)], by=NOW)
    assert drains.finish() == ()
    assert [one.component for one in drains.finish()] == [replica(0)]
    assert [shard.id for shard in shard_map.search()] == ["b"]
