"""Orders to resize under the real DBOS; the node is a file that remembers what its shard has."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from dbos import DBOS

from engine.clock import ManualClock
from engine.durable import durable_workflows, unfinished
from engine.events import Event
from engine.model.capacity import Resources
from engine.model.ids import OrderId, PoolId, ShardId
from engine.model.order import Order, OrderState, Resized, Size
from engine.model.placement import Shard, ShardState
from engine.orders import resize
from engine.orders.resize import MOVES_WAIT_SECONDS, PRESSED_WAIT_SECONDS, held_back
from engine.orders.workflow import NAME, take_orders
from engine.store.database import Database
from engine.store.moves import MoveHistory
from engine.store.opened import opened_store
from engine.store.orders import Orders
from engine.store.shard_map import ShardMap
from tests.carried_orders import carried_out, serve_orders, serve_resizes
from tests.resize_process import SPARE, WANTED
from tests.resizing_node import NO_MEMORY_BACK, ResizingNode
from tests.small_orders import AWS, NOW, SMALL, a_request, fill, resize_order

ROOT = Path(__file__).resolve().parents[4]
S0 = ShardId("sw-aws-s0")
FOUR = Size(memory_gib=4.0)


@dataclass
class World:
    shard_map: ShardMap
    orders: Orders
    moves: MoveHistory
    node: ResizingNode
    told: list[Event] = field(default_factory=list)
    released: list[str] = field(default_factory=list)

    def release(self, shard: Shard) -> None:
        self.released.append(shard.id)
        self.shard_map.remove(shard.id)

    def carried_out(self, order: Order) -> Order:
        return carried_out(self.orders, order)

    def nominal(self) -> Resources:
        return self.shard_map.get(S0).nominal


@pytest.fixture
def world(database: Database, tmp_path: Path) -> Iterator[World]:
    clock, moves = ManualClock(NOW), MoveHistory(database)
    found = World(ShardMap(database, clock), Orders(database), moves, ResizingNode(tmp_path / "node.json", SMALL))
    fill(found.shard_map)
    serve_orders(found.orders, found.shard_map, clock, fleet=found, moves=found)
    serve_resizes(
        found.orders, found.shard_map, fleet=found, agents=found.node, under_way=moves.under_way,
        observe=found.told.append,
    )  # fmt: skip
    with durable_workflows("resizes", f"sqlite:///{tmp_path / 'dbos.sqlite'}"):
        yield found


def test_the_node_is_told_and_the_map_counts_with_it(world: World) -> None:
    ended = world.carried_out(resize_order(FOUR))
    assert (ended.state, ended.problem) == (OrderState.ENDED, None)
    assert ended.resized is not None
    assert (ended.resized.before, ended.resized.after) == (SMALL, SMALL.model_copy(update={"memory_gib": 4.0}))
    assert world.node.has == world.nominal() == ended.resized.after
    measured = world.shard_map.get(S0).measured
    assert measured is not None
    assert measured.memory_gib == (4096 - 30) / 1024
    again = world.carried_out(resize_order(FOUR).model_copy(update={"id": OrderId("order-4")}))
    assert again.problem is None


def test_a_spare_gives_way_before_the_node_is_asked_for_room(world: World) -> None:
    world.shard_map.add_shard(
        ShardId("spare"), shard_type="cpu.small", pool=PoolId("web"), node=AWS, nominal=SMALL, state=ShardState.READY
    )
    ended = world.carried_out(resize_order(Size(memory_gib=6.0)))
    assert ended.problem is None
    assert world.released == ["spare"]


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (Size(vcpus=1.5), "no room for 1.5 vCPU, 2 GiB"),  # two vCPUs, two shards of one each
        (Size(memory_gib=7.0), "memory_gib: 7 wanted of 6"),
        (Size(vcpus=0.5, memory_gib=1.0), "2048 to 8192 MiB while it runs"),
    ],
)
def test_what_cannot_be_changes_nothing(world: World, wanted: Size, told: str) -> None:
    ended = world.carried_out(resize_order(wanted))
    assert ended.problem is not None
    assert told in f"{ended.problem.what}; {ended.problem.why}"
    assert world.node.has == world.nominal() == SMALL
    assert ended.resized is None


def test_a_refusal_is_told_and_the_room_is_given_up_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Resources] = []
    tell = resize._tell

    def looked(resized: Any) -> None:
        seen.append(world.nominal())
        tell(resized)

    monkeypatch.setattr(resize, "_tell", looked)
    world.node.refuses = NO_MEMORY_BACK
    ended = world.carried_out(resize_order(FOUR))
    assert ended.problem is not None
    assert (ended.problem.kind, ended.problem.what) == ("InsufficientCapacity", NO_MEMORY_BACK.what)
    assert [one.memory_gib for one in seen] == [4.0], "its room is kept before the node is told"
    assert world.nominal() == SMALL


def test_what_a_silent_node_has_is_not_known_so_the_larger_size_counts(world: World) -> None:
    world.node.silent_from = 2  # it has said what the shard has, and no more
    ended = world.carried_out(resize_order(FOUR))
    assert ended.problem is not None
    assert "does not answer" in ended.problem.what
    assert world.nominal().memory_gib == 4.0
    assert any("counts with the larger" in event.text for event in world.told)
    world.node.silent_from = None
    world.carried_out(resize_order(Size(memory_gib=2.0)).model_copy(update={"id": OrderId("order-4")}))
    assert world.node.has == world.nominal() == SMALL


def test_one_that_moves_is_left_alone(world: World) -> None:
    world.moves.announce([a_request()], NOW)
    ended = world.carried_out(resize_order(FOUR))
    assert ended.problem is not None
    assert "move-1 is under way" in ended.problem.why
    assert world.node.has == world.nominal() == SMALL


def test_a_shard_that_was_given_away_meanwhile_is_refused_by_its_old_node(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = resize._claim

    def moves(resized: Any) -> None:
        claim(resized)
        world.node.epoch = 2  # of its node's knowledge; the map is still at 1

    monkeypatch.setattr(resize, "_claim", moves)
    ended = world.carried_out(resize_order(FOUR))
    assert ended.problem is not None
    assert ended.problem.kind == "StaleEpoch"
    assert world.node.has == world.nominal() == SMALL


def test_a_node_that_has_not_answered_may_do_it_yet_so_the_claim_stands(world: World) -> None:
    world.node.late = True
    ended = world.carried_out(resize_order(FOUR))
    assert ended.problem is not None
    assert ended.problem.kind == "ProviderUnavailable"
    assert (world.node.has, world.nominal().memory_gib) == (SMALL, 4.0)
    world.node.late = False
    less = resize_order(Size(memory_gib=3.0)).model_copy(update={"id": OrderId("order-4")})
    assert world.carried_out(less).problem is None
    assert world.node.has == world.nominal() == SMALL.model_copy(update={"memory_gib": 3.0})


def test_what_was_done_though_the_answer_was_lost_is_done(world: World) -> None:
    world.node.loses_answers = True
    ended = world.carried_out(resize_order(FOUR))
    assert ended.problem is None
    assert world.node.has == world.nominal() == FOUR.of(SMALL)


def test_one_that_broke_off_names_its_own_command_and_its_claim_stands(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_resized: Any) -> None:
        raise RuntimeError("no store")

    monkeypatch.setattr(resize, "_tell", broken)
    world.orders.put(resize_order(FOUR))
    take_orders()
    for key in unfinished(NAME):
        with pytest.raises(RuntimeError):
            DBOS.retrieve_workflow(key).get_result()
    take_orders()
    ended = world.orders.get(resize_order(FOUR).id)
    assert ended.problem is not None
    assert ended.problem.next_step == "shardwright resize shard://shop/web/api/0 --memory-gib 4"
    assert world.nominal().memory_gib == 4.0


def test_moves_wait_for_a_resize_of_what_they_move_and_not_for_ever(world: World) -> None:
    calm, other = a_request(), a_request("move-2").model_copy(update={"shard": ShardId("other")})
    pressed = a_request("move-3").model_copy(update={"deadline": NOW})
    every = [calm, other, pressed]
    assert held_back(world.orders, every, 0) == frozenset()
    world.node.silent_from = 1
    ended = world.carried_out(resize_order(FOUR))
    resized = Resized(shard=S0, before=SMALL, after=SMALL)
    world.orders.put(ended.model_copy(update={"state": OrderState.TAKEN, "resized": resized}))
    assert held_back(world.orders, every, 0) == {calm.id, pressed.id}
    assert held_back(world.orders, every, PRESSED_WAIT_SECONDS) == {calm.id}
    assert held_back(world.orders, every, MOVES_WAIT_SECONDS) == frozenset()


def process(folder: Path, *step: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.resize_process", str(folder), *step],
        capture_output=True, text=True, check=False, cwd=ROOT, env=dict(os.environ), timeout=120,
    )  # fmt: skip
    return done.returncode, done.stdout if not done.returncode else done.stderr


@pytest.mark.parametrize("step", ["size", "make_room", "claim", "tell", "settle"])
def test_a_control_plane_that_is_killed_behind_a_step_goes_on_with_it(tmp_path: Path, step: str) -> None:
    code, told = process(tmp_path, step)
    assert code == -signal.SIGKILL, told
    code, told = process(tmp_path)
    assert code == 0, told
    ended = Order.model_validate_json(told)
    assert (ended.problem, ended.state) == (None, OrderState.ENDED)
    assert ended.resized is not None
    assert ended.resized.displaced == (SPARE,)
    with opened_store(f"sqlite:///{tmp_path / 'control.sqlite'}", ManualClock(NOW)) as store:
        assert store.shard_map.get(S0).nominal == WANTED.of(SMALL)
        assert SPARE not in {shard.id for shard in store.shard_map.search()}
    assert ResizingNode(tmp_path / "node.json", SMALL).has == WANTED.of(SMALL)
