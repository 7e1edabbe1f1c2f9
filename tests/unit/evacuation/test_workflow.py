"""Evacuations on a real store, with moves that only change the map and a fleet whose nodes may be silent."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from engine.clock import ManualClock
from engine.composition.leaving import Drains
from engine.composition.storage import Storage
from engine.durable import durable_workflows
from engine.errors import ProviderUnavailable
from engine.evacuation import workflow
from engine.events import unseen
from engine.model.ids import NodeId, PoolId, ShardId
from engine.model.market import ReclaimNotice
from engine.model.move import MovePhase, MoveProgress, MoveReport, MoveRequest, MoveUnderWay
from engine.model.placement import NodeState, Shard, ShardState
from engine.store.attachments import Attachments
from engine.store.database import Database
from engine.store.shard_map import ShardMap
from tests.small_orders import API, AWS, AZURE, GCP, NOW, SMALL, a_report, a_request, fill

Evacuated = Callable[[], tuple[MoveReport, ...]]


@dataclass
class World:
    """Two components on the AWS node (tests.small_orders); stands in for the fleet."""

    clock: ManualClock
    shard_map: ShardMap
    silent: set[NodeId] = field(default_factory=set)
    released: list[ShardId] = field(default_factory=list)
    moved: list[MoveRequest] = field(default_factory=list)
    others: MoveUnderWay | None = None
    """A move that somebody else has begun."""
    others_take: timedelta = timedelta(seconds=8)
    others_end: MovePhase = MovePhase.CLEANED

    def under_way(self) -> tuple[MoveUnderWay, ...]:
        if self.others is not None and self.clock.now() >= NOW + self.others_take:
            request, self.others = self.others.progress.request, None
            if self.others_end is MovePhase.CLEANED:
                self.shard_map.move(request.shard, expected_epoch=1, to_node=request.destination, move_id=request.id)
        return () if self.others is None else (self.others,)

    def run(self, requests: Sequence[MoveRequest]) -> tuple[MoveReport, ...]:
        """As engine.migration.several.Moves: what is in another move is refused by its node."""
        return tuple(self._move(request) for request in requests)

    def _move(self, request: MoveRequest) -> MoveReport:
        if any(one.progress.request.shard == request.shard for one in self.under_way()):
            return a_report(request, MovePhase.ABORTED, "in another move")
        self.moved.append(request)
        self.shard_map.move(request.shard, expected_epoch=1, to_node=request.destination, move_id=request.id)
        return a_report(request)

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
def world(database: Database) -> World:
    clock = ManualClock(NOW)
    found = World(clock, ShardMap(database, clock))
    fill(found.shard_map)
    return found


def test_a_silent_spare_does_not_end_the_evacuation_and_one_that_is_drained_is_none(world: World) -> None:
    silent, drained, spare = world.add("silent", GCP), world.add("drained", AZURE), world.add("spare", AZURE)
    leaving = API.model_copy(update={"index": 2})
    world.shard_map.bind(leaving, drained)
    world.shard_map.drain(leaving, NOW)
    world.silent.add(GCP)
    workflow.make_room(world.shard_map, cast(Any, world), [silent, drained, ShardId("never-there"), spare])
    assert world.released == [spare]
    assert world.shard_map.get(drained).state is ShardState.DRAINING


@pytest.fixture
def evacuated(world: World, database: Database, tmp_path: Path) -> Iterator[Evacuated]:
    """What the evacuation of the AWS node under the real DBOS reports; its notice is 30 seconds."""
    storage = Storage(world.shard_map, Attachments(database), cast(Any, None), {})
    workflow.configure(
        workflow.EvacuationContext(
            shard_map=world.shard_map, fleet=cast(Any, world), moves=cast(Any, world), placements={}, observe=unseen,
            give_back=lambda _node: None, drains=Drains(world.shard_map, {}, world.clock, world), storage=storage,
            clock=world.clock, under_way=world.under_way,
        )
    )  # fmt: skip
    world.shard_map.update_node(AWS, state=NodeState.RECLAIMING)
    notice = ReclaimNotice(node=AWS, provider="aws", seen_at=NOW, at=NOW + timedelta(seconds=30))
    with durable_workflows("evacuations", f"sqlite:///{tmp_path / 'dbos.sqlite'}"):
        yield lambda: workflow.start_evacuation(notice).get_result()


def _drained_by_another(world: World) -> None:
    progress = MoveProgress(request=a_request("move-sw-aws-s0-order-1"), phase=MovePhase.PRECOPY, at=NOW)
    world.others = MoveUnderWay(progress=progress, since=NOW)


def test_a_shard_that_is_being_moved_already_is_left_to_that_move(world: World, evacuated: Evacuated) -> None:
    _drained_by_another(world)
    assert len(evacuated()) == 2
    assert [request.shard for request in world.moved] == ["sw-aws-s1"]
    assert world.shard_map.get(ShardId("sw-aws-s0")).node == AZURE
    assert (world.released, world.shard_map.node(AWS).state) == ([], NodeState.GONE)


def test_what_another_move_has_left_on_the_node_is_moved_after_all(world: World, evacuated: Evacuated) -> None:
    _drained_by_another(world)
    world.others_end = MovePhase.ABORTED
    reports = evacuated()
    assert [request.id for request in world.moved] == ["move-sw-aws-s1-reclaim", "move-sw-aws-s0-reclaim-2"]
    assert workflow.succeeded(reports)
    assert (len(reports), world.released) == (2, [])


def test_nobody_is_waited_for_beyond_the_notice(world: World, evacuated: Evacuated) -> None:
    _drained_by_another(world)
    world.others_take = timedelta(hours=1)
    evacuated()
    assert timedelta(seconds=25) <= world.clock.now() - NOW < timedelta(seconds=26)
    assert world.released == ["sw-aws-s0"]


def test_a_drain_that_was_begun_for_longer_ends_with_the_notice(world: World, evacuated: Evacuated) -> None:
    world.shard_map.drain(API, NOW + timedelta(minutes=10))
    evacuated()
    assert world.clock.now() == NOW + timedelta(seconds=25)
    assert world.released == ["sw-aws-s0"]
