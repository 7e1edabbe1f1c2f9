from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from engine.clock import ManualClock
from engine.model.capacity import Resources
from engine.model.composite import HealthState
from engine.model.ids import CellId, NodeId, PoolId, ShardId
from engine.model.market import PurchaseOption
from engine.model.money import usd
from engine.model.placement import Node
from engine.store.database import Database, metadata
from engine.store.shard_health import HealthBook, Reported
from engine.store.shard_map import ShardMap

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SIZE = Resources(vcpus=1, memory_gib=1)
N1, N2, S1 = NodeId("n1"), NodeId("n2"), ShardId("s1")


class World:
    def __init__(self, database: Database) -> None:
        self.clock = ManualClock(NOW)
        self.map, self.book = ShardMap(database, self.clock), HealthBook(database, self.clock)
        for name in (N1, N2):
            self.map.put_node(
                Node(
                    id=name, cell=CellId("aws/1/r"), zone="z", instance_type="t", option=PurchaseOption.SPOT,
                    hourly_price=usd("0.1"), resources=SIZE,
                )
            )  # fmt: skip
        self.map.add_shard(S1, shard_type="cpu.small", pool=PoolId("web"), node=N1, nominal=SIZE)

    def report(self, state: HealthState, *, node: NodeId = N1, epoch: int = 1) -> int:
        return len(self.book.report(node, [Reported(shard=S1, epoch=epoch, state=state, reason="why")]))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    database = Database(f"sqlite:///{tmp_path / 'store.db'}")
    metadata.create_all(database.engine)
    yield World(database)
    database.dispose()


def test_a_state_keeps_its_beginning_until_it_changes(world: World) -> None:
    assert world.report(HealthState.HEALTHY) == 1
    world.clock.sleep(60)
    assert world.report(HealthState.HEALTHY) == 0
    known = world.book.all()[S1]
    assert (known.since, known.reported_at, known.reason) == (NOW, NOW + timedelta(minutes=1), "why")
    assert world.report(HealthState.UNHEALTHY) == 1
    assert world.book.all()[S1].since == NOW + timedelta(minutes=1)


def test_only_the_owner_may_speak_and_only_at_its_epoch(world: World) -> None:
    world.report(HealthState.HEALTHY)
    assert world.report(HealthState.UNHEALTHY, node=N2) == 0
    assert world.report(HealthState.UNHEALTHY, epoch=0) == 0
    assert world.book.report(N1, [Reported(shard=ShardId("x"), epoch=1, state=HealthState.HEALTHY)]) == ()
    assert world.book.report(N1, []) == ()
    assert world.book.all()[S1].state is HealthState.HEALTHY
    world.map.move(S1, expected_epoch=1, to_node=N2)
    assert world.report(HealthState.UNHEALTHY) == 0
    assert world.report(HealthState.UNHEALTHY, node=N2, epoch=2) == 1


def test_what_is_gone_is_forgotten(world: World) -> None:
    world.report(HealthState.HEALTHY)
    world.map.remove(S1)
    assert world.book.all() == {}
    world.book.forget()
    world.map.add_shard(S1, shard_type="cpu.small", pool=PoolId("web"), node=N1, nominal=SIZE)
    assert world.book.all() == {}
