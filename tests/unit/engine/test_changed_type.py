"""A pool whose type changes, and one that may be divided no longer, over whole rounds on a real store."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

import pytest

from engine import rounds
from engine.clock import ManualClock
from engine.composition.leaving import Drains
from engine.model.capacity import Pool, Resources, ShardType
from engine.model.composite import CompositeRule
from engine.model.ids import PoolId, RoundId
from engine.model.placement import Node, NodeState, Shard, ShardState
from engine.model.plan import PlannedNode
from engine.round_record import RoundRecord
from engine.store.database import Database
from tests.unit.engine.composition.cases import API
from tests.unit.engine.planner.cases import CELLS, SMALL, certain, offer, pool
from tests.unit.engine.small_round import Fleet, Seller, SmallRound

LARGE = ShardType(name="cpu.large", resources=Resources(vcpus=2, memory_gib=4))
Runs = Callable[..., RoundRecord]


class Booting(Fleet):
    """What is planned joins, what is carved boots."""

    def wait_joined(self, planned: Iterable[PlannedNode]) -> tuple[Node, ...]:
        nodes = tuple(planned)
        for one in nodes:
            self._map.change_state(one.node.id, NodeState.JOINED, only_from=[NodeState.EXPECTED])
        return super().wait_joined(nodes)

    def carve_all(self, shards: Sequence[Shard]) -> tuple[()]:
        for shard in shards:
            self._map.set_state(shard.id, ShardState.READY)
        return ()


class World(SmallRound):
    """Two nodes' worth of four replicas."""

    def __init__(self, database: Database, clock: ManualClock) -> None:
        seller = Seller("harbor", clock, offer("harbor-1", "0.05", cell=CELLS[3], available=30))
        super().__init__(database, clock, pool(), seller)
        self.fleet = Booting(self.map)

    def become(self, of: Pool, max_parts: int) -> None:
        rules = {API: CompositeRule(replicas=4, max_parts=max_parts)}
        composition = replace(
            self.steps.composition, pools=(of,), components={PoolId("web"): (API,)}, rules=rules, fleet=self.fleet,
            drains=Drains(self.map, rules, self.clock, self.fleet),
        )  # fmt: skip
        self.steps = replace(self.steps, composition=composition, fleet=cast(Any, self.fleet))
        self.demand.now = (certain(of, 4),)

    def types(self) -> dict[str, int]:
        """Of the shards that replicas are bound to."""
        bound = {one.shard for one in self.map.bindings()}
        names = [shard.shard_type for shard in self.map.search() if shard.id in bound]
        return {name: names.count(name) for name in names}

    def nodes(self) -> int:
        return len(self.map.nodes(states=[NodeState.EXPECTED, NodeState.JOINED]))


@pytest.fixture
def world(database: Database, clock: ManualClock) -> World:
    return World(database, clock)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, world: World) -> Runs:
    """One round, its steps called as they are."""
    workflow: Any = rounds.run_round
    monkeypatch.setattr(rounds, "_step", lambda _, act, *args: act(*args))
    counted = iter(range(100))

    def one(of: Pool, max_parts: int = 1) -> RoundRecord:
        world.become(of, max_parts)
        monkeypatch.setattr(rounds, "_steps", world.steps)
        record: RoundRecord = workflow.__wrapped__(RoundId(f"round-{next(counted)}"))
        world.clock.advance(timedelta(minutes=10))
        return record

    return one


def test_replicas_change_over_to_the_new_type_and_the_former_nodes_are_given_back(world: World, run: Runs) -> None:
    run(pool("web", SMALL))
    assert (world.types(), world.nodes()) == ({"cpu.small": 4}, 2)
    run(pool("web", LARGE))
    assert world.types() == {"cpu.large": 4}
    run(pool("web", LARGE))
    assert (world.types(), world.nodes()) == ({"cpu.large": 4}, 4)
    assert run(pool("web", LARGE)).plan.is_noop


def test_a_pool_that_may_be_divided_no_longer_keeps_its_parts_and_every_node(world: World, run: Runs) -> None:
    huge = ShardType(name="cpu.huge", resources=Resources(vcpus=8, memory_gib=8))
    run(pool("web", huge), 4)
    assert (world.types(), world.nodes()) == ({"cpu.huge.p4": 16}, 16)
    record = run(pool("web", huge), 1)
    assert record.plan.is_noop
    assert (world.types(), world.nodes()) == ({"cpu.huge.p4": 16}, 16)
