"""Nodes that are gone without a notice, on a real store; stands in for their agents, their provider and the fleet."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from engine.clock import ManualClock
from engine.errors import NotFound, ProviderUnavailable
from engine.events import Event
from engine.fleet.vanished import EVERY_SECONDS, SILENT_FOR, Vanished
from engine.model.ids import NodeId, ShardId
from engine.model.move import MovePhase, MoveProgress, MoveUnderWay
from engine.model.placement import NodeState, Shard, ShardState
from engine.store.database import Database
from engine.store.shard_map import ShardMap
from tests.small_orders import AWS, AZURE, NOW, a_request, filled

LOOKS = int(SILENT_FOR.total_seconds() / EVERY_SECONDS) + 1
"""Until the first at which its provider is asked."""


@dataclass
class World:
    shard_map: ShardMap
    clock: ManualClock
    silent: set[NodeId] = field(default_factory=set)
    refuses: bool = False
    listed: set[NodeId] = field(default_factory=lambda: {AWS})
    down: bool = False
    asked: int = 0
    moves: tuple[MoveUnderWay, ...] = ()
    given_back: list[NodeId] = field(default_factory=list)
    kept: set[NodeId] = field(default_factory=set)
    """Whose provider does not take back what was bought for them."""
    told: list[Event] = field(default_factory=list)

    def agents(self, node: NodeId) -> SimpleNamespace:
        return SimpleNamespace(status=lambda: self._status(node))

    def _status(self, node: NodeId) -> None:
        if self.refuses:
            raise NotFound("no such thing")
        if node in self.silent:
            raise ProviderUnavailable(f"node {node} does not answer")

    def instances(self) -> Sequence[SimpleNamespace]:
        self.asked += 1
        if self.down:
            raise ProviderUnavailable("aws is down")
        return [SimpleNamespace(node=node) for node in self.listed]

    def release(self, shard: Shard) -> None:
        self.shard_map.set_state(shard.id, ShardState.RELEASED)
        self.shard_map.remove(shard.id)

    def give_back(self, node: NodeId) -> None:
        if node in self.kept:
            raise ProviderUnavailable("aws is down")
        self.given_back.append(node)

    def vanished(self) -> Vanished:
        inventories = {"aws": cast(Any, self), "azure": cast(Any, self)} if self.kept else {"aws": cast(Any, self)}
        return Vanished(
            self.shard_map, cast(Any, self), cast(Any, self.agents), inventories, lambda: self.moves,
            self.give_back, self.clock, self.told.append,
        )  # fmt: skip

    def looked(self, vanished: Vanished, times: int) -> None:
        for _ in range(times):
            vanished.once()
            self.clock.sleep(EVERY_SECONDS)

    @property
    def state(self) -> NodeState:
        return self.shard_map.node(AWS).state

    def shards(self) -> set[str]:
        return {shard.id for shard in self.shard_map.search()}


@pytest.fixture
def world(database: Database) -> World:
    clock = ManualClock(NOW)
    return World(filled(database, clock), clock)


def test_a_silent_node_that_is_listed_no_more_is_gone_with_its_shards(world: World) -> None:
    vanished = world.vanished()
    world.silent, world.listed = {AWS}, set()
    world.looked(vanished, LOOKS)
    assert (world.asked, world.state) == (1, NodeState.JOINED), "one look is not enough"
    world.looked(vanished, 1)
    assert world.state is NodeState.GONE
    assert (world.shards(), world.shard_map.bindings(), world.given_back) == (set(), (), [AWS])
    assert "aws does not list it any more; 2 shards went with it" in world.told[-1].text
    world.looked(vanished, 3)
    assert (world.asked, world.given_back) == (2, [AWS])


def test_a_node_that_answers_costs_its_provider_no_question(world: World) -> None:
    vanished = world.vanished()
    world.listed = set()
    world.looked(vanished, 3 * LOOKS)
    world.refuses = True
    world.looked(vanished, 3 * LOOKS)
    assert (world.asked, world.state) == (0, NodeState.JOINED)


def test_one_that_is_only_silent_is_waited_for(world: World) -> None:
    world.silent = {AWS, AZURE}  # the other's provider has no list
    world.looked(world.vanished(), 3 * LOOKS)
    assert world.state is world.shard_map.node(AZURE).state is NodeState.JOINED
    assert len(world.shards()) == 2


def test_silence_and_absence_must_last(world: World) -> None:
    vanished = world.vanished()
    world.silent, world.listed = {AWS}, set()
    world.looked(vanished, LOOKS - 1)
    world.silent = set()
    world.looked(vanished, 1)
    world.silent = {AWS}
    world.looked(vanished, LOOKS)
    world.listed = {AWS}
    world.looked(vanished, 1)
    world.listed = set()
    world.looked(vanished, 1)
    assert world.state is NodeState.JOINED
    world.looked(vanished, 1)
    assert world.state is NodeState.GONE


def test_a_provider_that_is_down_proves_nothing_and_says_so(world: World) -> None:
    world.silent, world.listed, world.down = {AWS}, set(), True
    world.looked(world.vanished(), 2 * LOOKS)
    assert world.state is NodeState.JOINED
    assert "aws cannot say whether sw-aws is there" in world.told[-1].text


def test_what_cannot_be_given_back_yet_keeps_no_other_node_waiting(world: World) -> None:
    world.kept, world.silent, world.listed = {AWS}, {AWS, AZURE}, set()
    vanished = world.vanished()
    world.looked(vanished, LOOKS + 1)
    assert (world.state, world.shard_map.node(AZURE).state) == (NodeState.JOINED, NodeState.GONE)
    assert any("sw-aws is gone, and what was paid for it" in event.text for event in world.told)
    world.kept = set()
    world.looked(vanished, 1)
    assert (world.state, world.given_back) == (NodeState.GONE, [AZURE, AWS])


def test_a_move_from_it_ends_first(world: World) -> None:
    progress = MoveProgress(request=a_request(), phase=MovePhase.SWITCHING, at=NOW)
    world.moves = (MoveUnderWay(progress=progress, since=NOW),)
    vanished = world.vanished()
    world.silent, world.listed = {AWS}, set()
    world.looked(vanished, 2 * LOOKS)
    assert world.state is NodeState.JOINED
    world.moves = ()
    world.looked(vanished, 1)
    assert world.state is NodeState.GONE


@pytest.mark.parametrize("state", [NodeState.RECLAIMING, NodeState.LEAVING, NodeState.EXPECTED])
def test_a_node_that_leaves_in_its_own_way_is_left_to_it(world: World, state: NodeState) -> None:
    world.shard_map.update_node(AWS, state=state)
    world.silent, world.listed = {AWS}, set()
    world.looked(world.vanished(), 2 * LOOKS)
    assert (world.state, world.asked) == (state, 0)


def test_what_an_earlier_process_has_begun_is_ended(world: World) -> None:
    world.shard_map.update_node(AWS, state=NodeState.GONE)
    assert ShardId("sw-aws-s0") in world.shards()
    world.vanished().once()
    assert world.shards() == set()


def test_silence_is_counted_in_time_not_in_looks(world: World) -> None:
    vanished = world.vanished()
    world.silent, world.listed = {AWS}, set()
    vanished.once()
    world.clock.advance(SILENT_FOR - timedelta(seconds=1))
    vanished.once()
    assert world.asked == 0
    world.clock.advance(timedelta(seconds=1))
    vanished.once()
    assert world.asked == 1
