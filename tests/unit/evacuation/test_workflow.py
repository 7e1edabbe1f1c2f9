"""Evacuations on a real store, with moves that only change the map and a fleet whose nodes may be silent."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from engine.clock import ManualClock
from engine.errors import ProviderUnavailable
from engine.evacuation import workflow
from engine.model.ids import NodeId, PoolId, ShardId
from engine.model.placement import Shard, ShardState
from engine.store.database import Database
from engine.store.shard_map import ShardMap
from tests.small_orders import API, AZURE, GCP, NOW, SMALL, fill


@dataclass
class World:
    """Two components on the AWS node (tests.small_orders); stands in for the fleet."""

    clock: ManualClock
    shard_map: ShardMap
    silent: set[NodeId] = field(default_factory=set)
    released: list[ShardId] = field(default_factory=list)

    def release(self, shard: Shard) -> None:
        """As engine.fleet.nodes.Fleet."""
        self.shard_map.set_state(shard.id, ShardState.RELEASED)
        if shard.node in self.silent:
            raise ProviderUnavailable(f"node {shard.node} does not answer")
        self.released.append(shard.id)
        self.shard_map.remove(shard.id)

    def add(self, name: str, node: NodeId) -> ShardId:
        return self.shard_map.add_shard(
            ShardId(name), shard_type="cpu.small", pool=PoolId("web"), node=node, nominal=SMALL,
            state=ShardState.READY,
        ).id  # fmt: skip


@pytest.fixture
def world(database: Database) -> Iterator[World]:
    clock = ManualClock(NOW)
    found = World(clock, ShardMap(database, clock))
    fill(found.shard_map)
    yield found


def test_a_silent_spare_does_not_end_the_evacuation_and_one_that_is_drained_is_none(world: World) -> None:
    silent, drained, spare = world.add("silent", GCP), world.add("drained", AZURE), world.add("spare", AZURE)
    leaving = API.model_copy(update={"index": 2})
    world.shard_map.bind(leaving, drained)
    world.shard_map.drain(leaving, NOW)
    world.silent.add(GCP)
    workflow.make_room(world.shard_map, cast(Any, world), [silent, drained, ShardId("never-there"), spare])
    assert world.released == [spare]
    assert world.shard_map.get(drained).state is ShardState.DRAINING
