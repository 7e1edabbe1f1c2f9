"""Guests that have died, on a real store; stands in for their nodes and for the fleet that boots them."""

from dataclasses import dataclass, field
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.wire import GuestState
from engine.clock import ManualClock
from engine.errors import ProviderUnavailable
from engine.events import Event
from engine.fleet.nodes import Carved
from engine.fleet.restarts import Restarts
from engine.model.ids import MoveId, NodeId, ShardId
from engine.model.move import MovePhase, MoveProgress, MoveUnderWay
from engine.model.placement import NodeState, Shard, ShardState
from engine.store.database import Database
from engine.store.shard_map import ShardMap
from tests.small_orders import AWS, AZURE, NOW, a_request, filled

S0, S1 = ShardId("sw-aws-s0"), ShardId("sw-aws-s1")


@dataclass
class World:
    shard_map: ShardMap
    clock: ManualClock
    dead: set[ShardId] = field(default_factory=set)
    silent: bool = False
    epoch: int = 1
    """As the node knows it."""
    move: MoveId | None = None
    moves: tuple[MoveUnderWay, ...] = ()
    failure: str = ""
    booted: list[ShardId] = field(default_factory=list)
    told: list[Event] = field(default_factory=list)

    def status(self) -> SimpleNamespace:
        if self.silent:
            raise ProviderUnavailable("node sw-aws does not answer")
        shards = [
            SimpleNamespace(
                shard=shard, state=GuestState.DEAD if shard in self.dead else GuestState.RUNNING, move=self.move,
                epoch=self.epoch,
            )
            for shard in (S0, S1)
        ]  # fmt: skip
        return SimpleNamespace(shards=shards)

    def agents(self, node: NodeId) -> SimpleNamespace:
        return SimpleNamespace(status=self.status if node == AWS else lambda: SimpleNamespace(shards=[]))

    def boot_again(self, shard: Shard) -> Carved:
        self.booted.append(shard.id)
        if not self.failure:
            self.dead.discard(shard.id)
        return Carved(shard=shard.id, failure=self.failure)

    def restarts(self) -> Restarts:
        return Restarts(
            self.shard_map, cast(Any, self), cast(Any, self.agents), lambda: self.moves, self.clock, self.told.append
        )


@pytest.fixture
def world(database: Database) -> World:
    clock = ManualClock(NOW)
    return World(filled(database, clock), clock)


def test_what_has_died_is_booted_where_it_is_and_the_rest_left_alone(world: World) -> None:
    restarts = world.restarts()
    restarts.once()
    assert world.booted == []
    world.dead.add(S0)
    restarts.once()
    restarts.once()
    assert world.booted == [S0]
    assert world.shard_map.get(S0).state is ShardState.BOUND
    assert "has died" in world.told[0].text


def _given_away(world: World) -> None:
    world.shard_map.move(S0, expected_epoch=1, to_node=AZURE, move_id=MoveId("move-1"))


def _released(world: World) -> None:
    world.shard_map.set_state(S0, ShardState.RELEASED)


def _forgotten(world: World) -> None:
    world.shard_map.set_state(S0, ShardState.RELEASED)
    world.shard_map.remove(S0)


def _known_newer(world: World) -> None:
    world.epoch = 2


def _in_a_move_here(world: World) -> None:
    world.move = MoveId("move-1")


def _in_a_move(world: World) -> None:
    progress = MoveProgress(request=a_request(), phase=MovePhase.REQUESTED, at=NOW)
    world.moves = (MoveUnderWay(progress=progress, since=NOW),)


def _taken_back(world: World) -> None:
    world.shard_map.update_node(AWS, state=NodeState.RECLAIMING)


def _silent(world: World) -> None:
    world.silent = True


@pytest.mark.parametrize(
    "why",
    [_given_away, _released, _forgotten, _known_newer, _in_a_move_here, _in_a_move, _taken_back, _silent],
)
def test_what_is_not_its_nodes_to_boot_stays_dead(world: World, why: Any) -> None:
    world.dead.add(S0)
    why(world)
    world.restarts().once()
    assert world.booted == []


@pytest.mark.parametrize("why", [_given_away, _released, _forgotten, _in_a_move])
def test_what_was_given_up_while_others_were_booted_is_not_booted(world: World, why: Any) -> None:
    """Both are found dead at one look; the second has its turn once the first is up."""
    world.dead |= {S0, S1}
    restarts = world.restarts()
    dead = restarts._dead

    def found(node: Any) -> Any:
        looked = dead(node)
        if looked:
            why(world)
        return looked

    restarts._dead = found  # type: ignore[method-assign]
    restarts.once()
    assert world.booted == [S1]


def test_a_node_that_does_not_know_of_the_newest_epoch_yet_boots_all_the_same(world: World) -> None:
    world.shard_map.move(S0, expected_epoch=1, to_node=AWS, move_id=MoveId("move-1"))  # it was kept
    world.dead.add(S0)
    world.restarts().once()
    assert world.booted == [S0]


def test_one_that_dies_again_and_again_is_booted_less_and_less_often(world: World) -> None:
    restarts = world.restarts()
    world.dead.add(S0)
    world.failure = "no kernel"
    times = []
    for _ in range(2 * 360):
        before = len(world.booted)
        restarts.once()
        if len(world.booted) > before:
            times.append((world.clock.now() - NOW).total_seconds())
        world.clock.sleep(10)
    assert times[:6] == [0, 20, 60, 140, 300, 620]
    assert times[-1] - times[-2] == 900
    assert "no kernel" in world.told[-1].text
    world.clock.advance(timedelta(hours=1))
    restarts.once()
    world.clock.sleep(20)
    restarts.once()
    assert len(world.booted) == len(times) + 2
