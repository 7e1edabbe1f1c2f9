"""Sizes that were left in doubt, on a real store; the node's record of its shard is a file."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from agent.wire import GuestState, NodeStatus, ShardStatus
from engine.clock import ManualClock
from engine.errors import ProviderUnavailable
from engine.events import Event
from engine.model.capacity import Resources
from engine.model.ids import MoveId, NodeId, ShardId
from engine.model.move import MovePhase, MoveProgress, MoveUnderWay
from engine.model.order import OrderState, Resized, Size
from engine.model.placement import NodeState, ShardState
from engine.orders.recount import Recount
from engine.store.database import Database
from engine.store.orders import Orders
from engine.store.shard_map import ShardMap
from tests.resizing_node import NO_MEMORY_BACK, ResizingNode
from tests.small_orders import AWS, AZURE, NOW, SECOND, SMALL, a_request, filled, resize_order

S0 = ShardId("sw-aws-s0")
LARGER = SMALL.model_copy(update={"memory_gib": 4.0})
FOUR = Size(memory_gib=4.0)


class Told(ResizingNode):
    """Says its shard's state, and notes what it is told."""

    state, move = GuestState.RUNNING, None

    def __init__(self, file: Path, has: Resources) -> None:
        super().__init__(file, has)
        self.resized = list[Resources]()
        self.before_resize: Callable[[], None] = lambda: None

    def status(self) -> NodeStatus:
        said = self.shard(S0).model_copy(update={"state": self.state, "move": self.move})
        return cast(NodeStatus, _Shards((said,)))

    def resize(self, shard: ShardId, epoch: int, resources: Resources) -> ShardStatus:
        self.resized.append(resources)
        self.before_resize()
        return super().resize(shard, epoch, resources)


@dataclass
class _Shards:
    shards: tuple[ShardStatus, ...] = ()

    def status(self) -> "_Shards":
        return self


@dataclass
class World:
    shard_map: ShardMap
    orders: Orders
    node: Told
    moves: tuple[MoveUnderWay, ...] = ()
    told: list[Event] = field(default_factory=list)

    def recount(self) -> Recount:
        def agents(node: NodeId) -> Any:
            return self.node if node == AWS else _Shards()

        return Recount(self.shard_map, self.orders, agents, lambda: self.moves, self.told.append)

    @property
    def nominal(self) -> Resources:
        return self.shard_map.get(S0).nominal


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    """The map counts the larger size, the node has the smaller one, and nobody is about to do anything."""
    shard_map = filled(database, ManualClock(NOW))
    shard_map.set_nominal(S0, LARGER)
    return World(shard_map, Orders(database), Told(tmp_path / "node.json", SMALL))


def test_what_a_node_has_when_it_answers_again_counts(world: World) -> None:
    recount = world.recount()
    world.node.silent_from = 0
    recount.once()
    assert world.nominal == LARGER
    world.node.silent_from = None
    recount.once()
    assert (world.nominal, world.node.resized) == (SMALL, [SMALL])
    measured = world.shard_map.get(S0).measured
    assert measured is not None
    assert measured.memory_gib == (2048 - 30) / 1024
    assert "counts with 1 vCPU, 2 GiB again" in world.told[0].text
    recount.once()
    assert len(world.node.resized) == 1, "the same size is asked for no more"


def test_what_the_node_says_at_the_end_counts_not_what_it_said_before(world: World) -> None:
    """The earlier command is carried out first, and its guest gives nothing back."""

    def done_after_all() -> None:
        world.node.has = LARGER
        world.node.refuses = NO_MEMORY_BACK

    world.node.before_resize = done_after_all
    recount = world.recount()
    recount.once()
    assert world.nominal == LARGER == world.node.has
    recount.once()
    assert world.node.resized == [SMALL], "now they say the same"


@pytest.mark.parametrize("how", ["refuses", "late", "loses_answers"])
def test_a_claim_stands_until_its_node_has_answered(world: World, how: str) -> None:
    setattr(world.node, how, ProviderUnavailable("the node does not answer") if how == "refuses" else True)
    world.recount().once()
    assert (world.nominal, world.told) == (LARGER, [])


def _dead(world: World) -> None:
    world.node.state = GuestState.DEAD


def _in_a_move_there(world: World) -> None:
    world.node.move = MoveId("move-1")  # type: ignore[assignment]


def _in_a_move(world: World) -> None:
    progress = MoveProgress(request=a_request(), phase=MovePhase.REQUESTED, at=NOW)
    world.moves = (MoveUnderWay(progress=progress, since=NOW),)


def _given_away(world: World) -> None:
    world.shard_map.move(S0, expected_epoch=1, to_node=AZURE)


def _known_newer(world: World) -> None:
    world.node.epoch = 2


def _released(world: World) -> None:
    world.shard_map.set_state(S0, ShardState.RELEASED)


def _forgotten(world: World) -> None:
    world.shard_map.remove(S0)


def _taken_back(world: World) -> None:
    world.shard_map.update_node(AWS, state=NodeState.RECLAIMING)


def _asked_for(world: World) -> None:
    world.orders.put(resize_order(FOUR))


def _resized_now(world: World) -> None:
    taken = {"state": OrderState.TAKEN, "resized": Resized(shard=S0, before=SMALL, after=LARGER), "component": SECOND}
    world.orders.put(resize_order(FOUR).model_copy(update=taken))


def _equal(world: World) -> None:
    world.node.has = LARGER


LEFT_ALONE = [
    _dead, _in_a_move_there, _in_a_move, _given_away, _known_newer, _released, _forgotten, _taken_back, _asked_for,
    _resized_now, _equal,
]  # fmt: skip


@pytest.mark.parametrize("why", LEFT_ALONE)
def test_what_somebody_else_sees_to_is_left_alone(world: World, why: Any) -> None:
    why(world)
    world.recount().once()
    assert (world.node.resized, world.told) == ([], [])


@pytest.mark.parametrize("why", [_asked_for, _in_a_move, _given_away, _forgotten])
def test_what_began_while_the_node_was_asked_has_the_last_word(world: World, why: Any) -> None:
    world.node.before_resize = lambda: why(world)
    world.recount().once()
    assert (world.node.resized, world.told) == ([SMALL], [])
    assert all(one.nominal == LARGER for one in world.shard_map.search() if one.id == S0)


def test_one_that_counts_otherwise_meanwhile_is_left_so(world: World) -> None:
    world.node.before_resize = lambda: (
        world.shard_map.set_nominal(S0, LARGER.model_copy(update={"vcpus": 2.0})) and None
    )
    world.recount().once()
    assert (world.nominal.vcpus, world.told) == (2.0, [])


def test_an_order_that_has_ended_is_in_nobodys_way(world: World) -> None:
    world.orders.put(resize_order(FOUR).model_copy(update={"state": OrderState.ENDED}))
    world.recount().once()
    assert world.nominal == SMALL
