"""The steps of a round on a real store: what they hand to the cells, and what they put right after a bad end."""

from dataclasses import replace

import pytest

from engine.clock import ManualClock
from engine.composition.composition import Composition
from engine.errors import NotGivenUp, ProviderUnavailable
from engine.model.capacity import Resources, ShardType
from engine.model.ids import NodeId, PoolId, ShardId
from engine.model.placement import NodeState, Shard, ShardState
from engine.model.plan import Plan, PlannedNode, ShardSlot
from engine.store.database import Database
from tests.unit.engine.steps_world import WEB, World, node_of


@pytest.fixture
def world(database: Database, clock: ManualClock) -> World:
    return World(database, clock)


def test_a_purchase_names_the_hold_that_was_paid_for(world: World) -> None:
    world.buy()
    world.steps.grow(world.plan)
    assert world.cells.last[node_of(world, "harbor")].hold in world.harbor.paid
    assert world.cells.last[node_of(world, "aws")].hold is None


def test_a_node_that_could_not_be_created_is_created_later_on_what_was_paid_for(world: World) -> None:
    world.buy()
    world.cells.failing = {"harbor"}
    world.steps.grow(world.plan)
    world.cells.failing = set()
    node = node_of(world, "harbor")
    after = world.keeping()
    world.steps.grow(after)
    created = world.cells.last[node]
    assert created.hold in world.harbor.paid
    assert created.quote == world.bought[node].quote, "with the ceiling that was agreed"
    assert world.cells.last[node_of(world, "aws")].quote is None, "what runs is bought already"
    world.steps.grow(after)
    assert world.cells.last[node].quote is None


def test_nothing_moves_to_a_node_that_did_not_join_or_takes_nothing(world: World) -> None:
    world.buy()
    world.steps.grow(world.plan)
    node, other = node_of(world, "aws"), node_of(world, "harbor")
    world.map.update_node(node, state=NodeState.DRAINING)
    shard = world.bind(node)
    after = world.keeping(node)
    for state in (NodeState.EXPECTED, NodeState.DRAINING, NodeState.RECLAIMING):
        world.map.update_node(other, state=state)
        assert world.steps.moves_off(after) == ()
    world.map.update_node(other, state=NodeState.JOINED)
    assert [(one.shard, one.destination) for one in world.steps.moves_off(after)] == [(shard, other)]


def test_nothing_is_carved_on_or_bound_to_a_drained_node(world: World) -> None:
    world.buy()
    world.steps.grow(world.plan)
    node = node_of(world, "aws")
    world.map.update_node(node, state=NodeState.DRAINING)
    spare = world.map.add_shard(
        ShardId("spare"), shard_type="cpu.small", pool=PoolId("web"), node=node,
        nominal=Resources(vcpus=1, memory_gib=1), state=ShardState.READY,
    )  # fmt: skip
    report = world.steps.carve(world.plan, ())
    assert f"{node} is drained; its shards wait for the next round" in report.problems
    assert world.map.get(spare.id).state is ShardState.READY


def test_a_shard_whose_type_is_not_configured_any_more_is_named_and_the_others_are_carved(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.buy()
    world.steps.grow(world.plan)
    node = node_of(world, "aws")
    world.map.update_node(node, state=NodeState.JOINED)
    old = world.add(node, ShardState.HELD, shard_type="cpu.old")
    known = world.bought[node].slots[0].shard_type
    types = {known: ShardType(name=known, resources=Resources(vcpus=1, memory_gib=1))}
    monkeypatch.setattr(Composition, "shard_types", lambda _self: types)
    plan = _with_slot(world.plan, node, ShardSlot(pool=WEB.id, shard_type="cpu.old", count=1))
    carved: list[ShardId] = []
    monkeypatch.setattr(world.fleet, "carve_all", lambda shards: carved.extend(shard.id for shard in shards) or ())
    report = world.steps.carve(plan, ())
    assert f"{old}: its type cpu.old is not configured any more" in report.problems
    assert carved
    assert old not in carved
    types.clear()
    carved.clear()
    report = world.steps.carve(plan, ())
    assert len([problem for problem in report.problems if "is not configured any more" in problem]) >= 2
    assert carved == []


def _with_slot(plan: Plan, node: NodeId, slot: ShardSlot) -> Plan:
    def with_it(planned: PlannedNode) -> PlannedNode:
        slots = (*planned.slots, slot) if planned.node.id == node else planned.slots
        return planned.model_copy(update={"slots": slots})

    cells = tuple(cell.model_copy(update={"nodes": tuple(map(with_it, cell.nodes))}) for cell in plan.cells)
    return plan.model_copy(update={"cells": cells})


def test_what_a_silent_node_did_not_give_up_is_given_up_once_it_answers(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.buy()
    world.steps.grow(world.plan)
    silent, other = node_of(world, "aws"), node_of(world, "harbor")
    for _ in range(2):
        world.add(silent, ShardState.RELEASED)
    spare = world.add(other, ShardState.RELEASED)
    asked: list[ShardId] = []
    release = world.fleet.release

    def answers(shard: Shard) -> None:
        asked.append(shard.id)
        if shard.node == silent:
            raise ProviderUnavailable(f"node {silent} does not answer")
        release(shard)

    with monkeypatch.context() as patched:
        patched.setattr(world.fleet, "release", answers)
        world.steps.carve(world.plan, ())
    assert len(asked) == 2, "a silent node is asked once a round"
    assert world.fleet.released == [spare]
    world.steps.carve(world.plan, ())
    assert len(world.fleet.released) == 3
    assert world.map.search() == ()


def test_a_guest_that_does_not_die_keeps_nothing_else_from_being_given_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.buy()
    world.steps.grow(world.plan)
    node = node_of(world, "aws")
    stuck, after = (world.add(node, ShardState.RELEASED) for _ in range(2))
    release = world.fleet.release

    def answers(shard: Shard) -> None:
        if shard.id == stuck:
            raise NotGivenUp(f"node {node} still has {stuck}", why="the guest does not die")
        release(shard)

    monkeypatch.setattr(world.fleet, "release", answers)
    report = world.steps.carve(world.plan, ())
    assert world.fleet.released == [after]
    assert [shard.id for shard in report.shards] == [stuck]


def test_what_a_round_held_before_it_broke_off_is_given_back(world: World) -> None:
    world.holds.hold_all(world.plan)
    world.steps.recover()
    assert world.harbor.held == set()
    assert world.map.nodes() == ()


def test_a_provider_that_is_down_does_not_stop_the_rounds_of_the_others(world: World) -> None:
    world.holds.hold_all(world.plan)
    world.harbor.down = True
    world.steps.recover()
    assert world.harbor.held
    world.harbor.down = False
    world.steps.recover()
    assert world.harbor.held == set()


def test_what_a_round_paid_for_before_it_broke_off_is_created_by_the_next(world: World) -> None:
    world.buy()
    world.steps.recover()
    world.steps.recover()
    assert {node.id: node.state for node in world.map.nodes()} == dict.fromkeys(world.bought, NodeState.EXPECTED)
    world.steps.grow(world.keeping())
    assert {name: one.hold for name, one in world.cells.last.items()} == {
        node_of(world, "harbor"): next(iter(world.harbor.paid)),
        node_of(world, "aws"): None,
    }


def test_a_node_whose_hold_lapsed_while_its_provider_was_down_fails_no_round(world: World) -> None:
    """The network goes down as it is paid, and a process that begins anew meanwhile enters the nodes."""
    node = node_of(world, "harbor")
    world.holds.hold_all(world.plan)
    world.plans.make_target(world.plan)
    world.harbor.down = True
    with pytest.raises(ProviderUnavailable):
        world.holds.confirm_all(world.plan)
    world.steps.recover()
    assert world.map.node(node).state is NodeState.EXPECTED
    world.harbor.down = False
    world.harbor.held.clear()
    world.steps.recover()
    assert world.map.node(node).state is NodeState.GONE
    assert world.steps.inventory().nodes == (), "the next plan begins without them"
    world.steps.recover()
    assert world.map.node(node).state is NodeState.GONE


def test_a_shard_beyond_its_type_is_told_to_the_planner(world: World) -> None:
    world.steps = replace(world.steps, composition=replace(world.steps.composition, pools=(WEB,)))
    world.buy()
    world.steps.grow(world.plan)
    node, its_type = node_of(world, "aws"), WEB.shard_type.resources
    shard = world.bind(node)
    world.map.set_nominal(shard, its_type.model_copy(update={"vcpus": 0.1}))

    def seen() -> tuple[float, float, bool]:
        item = next(one for one in world.steps.inventory().nodes if one.node.id == node)
        return item.grown.vcpus, item.grown.memory_gib, item.outgrown

    assert seen() == (0, 0, False)
    world.map.set_nominal(shard, its_type.model_copy(update={"memory_gib": its_type.memory_gib + 3}))
    assert seen() == (0, 3, True)
    world.map.set_state(shard, ShardState.READY)
    assert seen() == (0, 3, False)


def test_the_planner_learns_how_much_memory_a_move_from_each_node_copies(world: World) -> None:
    world.buy()
    world.steps.grow(world.plan)
    node = node_of(world, "aws")
    assert {item.memory_gib for item in world.steps.inventory().nodes} == {0}, "nothing is in use"
    world.map.set_nominal(world.bind(node), WEB.shard_type.resources.model_copy(update={"memory_gib": 3.0}))
    copied = {item.node.id: item.memory_gib for item in world.steps.inventory().nodes}
    assert copied.pop(node) == 3
    assert set(copied.values()) == {0}


def test_a_limit_on_what_its_type_does_not_limit_is_not_told_as_growth(world: World) -> None:
    world.steps = replace(world.steps, composition=replace(world.steps.composition, pools=(WEB,)))
    world.buy()
    world.steps.grow(world.plan)
    node, its_type = node_of(world, "aws"), WEB.shard_type.resources
    assert its_type.storage_iops == 0
    world.map.set_nominal(world.bind(node), its_type.model_copy(update={"storage_iops": 400.0}))
    item = next(one for one in world.steps.inventory().nodes if one.node.id == node)
    assert (item.grown.storage_iops, item.outgrown) == (0, False)
