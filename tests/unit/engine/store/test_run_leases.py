from datetime import timedelta

import pytest

from engine.clock import ManualClock
from engine.model.capacity import Resources
from engine.model.ids import CellId, MoveId, NodeId, PoolId, ShardId
from engine.model.market import PurchaseOption
from engine.model.money import usd
from engine.model.placement import Node, ShardState
from engine.store.database import Database
from engine.store.run_leases import SKEW, RunLeases
from engine.store.shard_map import ShardMap

A, B, SHARD, LEASE = NodeId("a"), NodeId("b"), ShardId("s1"), timedelta(seconds=10)


@pytest.fixture
def shard_map(database: Database, clock: ManualClock) -> ShardMap:
    made = ShardMap(database, clock)
    for name in (A, B):
        made.put_node(
            Node(
                id=name, cell=CellId("p/a/r"), zone="z", instance_type="t", option=PurchaseOption.SPOT,
                hourly_price=usd("0.1"), resources=Resources(vcpus=1, memory_gib=1),
            )
        )  # fmt: skip
    nominal = Resources(vcpus=1, memory_gib=1)
    made.add_shard(SHARD, shard_type="cpu.small", pool=PoolId("p"), node=A, nominal=nominal)
    return made


@pytest.fixture
def leases(shard_map: ShardMap, database: Database, clock: ManualClock) -> RunLeases:
    return RunLeases(database, clock, LEASE)


def test_the_owner_is_granted_at_the_stores_epoch_alone(leases: RunLeases) -> None:
    assert leases.grant(A, [(SHARD, 1), (ShardId("unknown"), 1)]) == (SHARD,)
    for node, epoch in ((A, 0), (A, 2), (B, 1)):
        assert leases.grant(node, [(SHARD, epoch)]) == ()
    assert leases.grant(A, []) == ()


def test_after_a_move_only_the_new_node_is_granted(leases: RunLeases, shard_map: ShardMap) -> None:
    shard_map.move(SHARD, expected_epoch=1, to_node=B, move_id=MoveId("m"))
    assert leases.grant(A, [(SHARD, 1)]) == ()
    assert leases.grant(B, [(SHARD, 2)]) == (SHARD,)


def test_a_released_shard_is_nobodys(leases: RunLeases, shard_map: ShardMap) -> None:
    shard_map.set_state(SHARD, ShardState.RELEASED)
    assert leases.grant(A, [(SHARD, 1)]) == ()


def test_a_shard_is_free_when_its_newest_lease_has_run_out(leases: RunLeases, clock: ManualClock) -> None:
    start = clock.now()
    assert leases.free_at(SHARD, start) == start + LEASE + SKEW, "the command that made it run was its first grant"
    leases.grant(A, [(SHARD, 1)])
    clock.advance(timedelta(seconds=4))
    assert leases.free_at(SHARD, start) == start + LEASE + SKEW
    assert leases.free_at(SHARD, clock.now()) == clock.now() + LEASE + SKEW, "an older grant was another node's"
    leases.grant(A, [(SHARD, 1)])
    leases.grant(B, [(SHARD, 1)])
    assert leases.free_at(SHARD, start) == clock.now() + LEASE + SKEW
