"""Orders under the real DBOS, with moves that only change the map."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from dbos import DBOS

from engine.clock import ManualClock
from engine.durable import durable_workflows
from engine.model.move import MoveReport, MoveRequest
from engine.model.order import Order, OrderState
from engine.model.placement import NodeState, Shard, ShardState
from engine.orders import workflow
from engine.orders.workflow import take_orders
from engine.store.database import Database
from engine.store.orders import Orders
from engine.store.shard_map import ShardMap
from tests.carried_orders import carried_out, serve_orders
from tests.small_orders import AWS, AZURE, GCP, NOW, SMALL, a_report, drain_order, fill, move_order


@dataclass
class World:
    shard_map: ShardMap
    orders: Orders
    moved: list[MoveRequest] = field(default_factory=list)
    released: list[str] = field(default_factory=list)

    def run(self, requests: Sequence[MoveRequest]) -> tuple[MoveReport, ...]:
        """As engine.migration.several.Moves."""
        for request in requests:
            if request not in self.moved:
                self.moved.append(request)
                self.shard_map.move(request.shard, expected_epoch=1, to_node=request.destination, move_id=request.id)
        return tuple(a_report(request) for request in requests)

    def release(self, shard: Shard) -> None:
        self.released.append(shard.id)
        self.shard_map.remove(shard.id)

    def carried_out(self, order: Order) -> Order:
        return carried_out(self.orders, order)


@pytest.fixture
def world(database: Database, tmp_path: Path) -> Iterator[World]:
    clock = ManualClock(NOW)
    found = World(ShardMap(database, clock), Orders(database))
    fill(found.shard_map)
    serve_orders(found.orders, found.shard_map, clock, fleet=found, moves=found)
    with durable_workflows("orders", f"sqlite:///{tmp_path / 'dbos.sqlite'}"):
        yield found


def test_a_move_is_made_once_however_often_it_is_looked_at(world: World) -> None:
    ended = world.carried_out(move_order("gcp"))
    assert (ended.state, ended.problem, ended.moves) == (OrderState.ENDED, None, ("move-sw-aws-s0-order-1",))
    assert [(one.shard, one.destination) for one in world.moved] == [("sw-aws-s0", GCP)]
    world.carried_out(move_order("gcp"))
    assert len(world.moved) == 1


def test_a_drained_node_is_empty_and_marked(world: World) -> None:
    ended = world.carried_out(drain_order())
    assert (ended.state, ended.stranded, len(ended.moves)) == (OrderState.ENDED, (), 2)
    assert world.shard_map.search(node=AWS) == ()
    assert world.shard_map.node(AWS).state is NodeState.DRAINING


def test_a_node_is_closed_before_it_is_looked_at(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another workflow that looks for room at this moment must not choose it, or what it sends stays behind."""
    seen: list[NodeState] = []
    search = world.shard_map.search

    def looked(**wanted: Any) -> tuple[Shard, ...]:
        seen.append(world.shard_map.node(AWS).state)
        return search(**wanted)

    monkeypatch.setattr(world.shard_map, "search", looked)
    world.carried_out(drain_order())
    assert set(seen) == {NodeState.DRAINING}


def test_what_keeps_an_order_from_beginning_is_told_in_it(world: World) -> None:
    world.shard_map.update_node(AWS, state=NodeState.RECLAIMING)
    ended = world.carried_out(drain_order())
    assert ended.state is OrderState.ENDED
    assert ended.problem is not None
    assert (ended.problem.kind, world.moved) == ("ConcurrentUpdate", [])
    assert "evacuated" in ended.problem.why


def test_an_order_that_broke_off_is_ended_so_that_nobody_waits_for_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_requests: object) -> None:
        raise RuntimeError("the database is locked")

    monkeypatch.setattr(world, "run", broken)
    world.orders.put(move_order("gcp"))
    take_orders()
    with pytest.raises(RuntimeError):
        DBOS.retrieve_workflow("order-1").get_result()
    take_orders()
    ended = world.orders.get(move_order().id)
    assert ended.state is OrderState.ENDED
    assert ended.problem is not None
    assert "the database is locked" in ended.problem.why


def test_a_spare_gives_way_and_one_that_is_bound_meanwhile_stays(world: World) -> None:
    for name in ("gone", "kept"):
        spare = world.shard_map.add_shard(
            cast(Any, name), shard_type="cpu.small", pool=cast(Any, "web"), node=AZURE, nominal=SMALL,
            state=ShardState.READY,
        )  # fmt: skip
        if name == "kept":
            world.shard_map.set_state(spare.id, ShardState.BOUND)
    world.carried_out(move_order("azure"))
    assert world.released == ["gone"]
    workflow.make_room(world.shard_map, cast(Any, world), cast(Any, ("kept", "never-there")))
    assert world.released == ["gone"]


def test_an_order_that_nobody_carries_out_any_more_is_ended(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was taken, and its workflow is of an older version, or is not known any more."""
    world.orders.put(move_order("gcp").model_copy(update={"state": OrderState.TAKEN}))
    take_orders()
    ended = world.orders.get(move_order().id)
    assert ended.state is OrderState.ENDED
    assert ended.problem is not None
    assert "nobody" in ended.problem.why
    monkeypatch.setattr("engine.durable.WORKFLOW_VERSION", "an older one")
    world.orders.put(drain_order())
    take_orders()
    assert world.orders.get(drain_order().id).state is OrderState.ENDED
