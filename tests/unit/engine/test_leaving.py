"""Nodes that leave: what keeps them, what is given back of them, and what a bad end in between does not lose."""

import pytest

from engine.clock import ManualClock
from engine.errors import AuthenticationFailed, ConcurrentUpdate, ProviderUnavailable, StaleEpoch
from engine.model.placement import NodeState, Shard, ShardState
from engine.store.database import Database
from policies.pack_config import elsewhere
from tests.small_orders import a_request
from tests.unit.engine.planner.cases import CELLS
from tests.unit.engine.steps_world import World, node_of


@pytest.fixture
def world(database: Database, clock: ManualClock) -> World:
    return World(database, clock)


def test_a_node_that_is_taken_back_stays_in_its_cell_until_its_evacuation_has_ended(world: World) -> None:
    world.buy()
    world.steps.grow(world.plan)
    node = node_of(world, "aws")
    world.map.update_node(node, state=NodeState.RECLAIMING)
    shard = world.bind(node)
    after = world.keeping(node)
    world.steps.grow(after)
    assert node in world.cells.last, "ending it now would end the guest that is being moved"
    assert world.steps.moves_off(after) == (), "its evacuation moves what is on it"
    world.map.move(shard, expected_epoch=1, to_node=node_of(world, "harbor"))
    world.shrink(after)
    assert node in world.cells.last, "the last of the guest's memory may still be on its way"
    world.map.update_node(node, state=NodeState.GONE)
    world.steps.grow(after)
    assert node not in world.cells.last


def test_the_policy_pack_is_told_which_nodes_are_there_only_until_they_are_empty(world: World) -> None:
    """Else it counts them into the budget, once what replaces them is paid for."""
    world.buy()
    world.steps.grow(world.plan)
    node, other = node_of(world, "aws"), node_of(world, "harbor")
    world.map.update_node(node, state=NodeState.JOINED)
    world.bind(node)
    after = world.keeping(node)
    for act in (world.steps.grow, world.shrink):
        act(after)
        assert node in world.cells.last
        there = next(one for one in CELLS if one.id == world.bought[other].node.cell)
        rest = elsewhere(world.cells.plans[-1], there)
        assert (rest.leaving, rest.nodes, rest.hourly_cost) == ((node,), 1, 0)


def test_a_drained_node_is_given_back_by_the_next_plan_once_it_is_empty(world: World) -> None:
    world.buy()
    world.steps.grow(world.plan)
    node, other = node_of(world, "aws"), node_of(world, "harbor")
    world.map.update_node(node, state=NodeState.DRAINING)
    shard = world.bind(node)
    assert node not in {item.node.id for item in world.steps.inventory().nodes if item.stays}
    after = world.keeping(node)
    world.shrink(after)
    assert node in world.cells.last, "a component is still bound to one of its shards"
    world.map.move(shard, expected_epoch=1, to_node=other)
    world.shrink(after)
    assert node not in world.cells.last
    assert world.map.node(node).state is NodeState.GONE


def test_a_node_is_not_given_back_while_a_move_from_or_to_it_is_under_way(world: World) -> None:
    """It was sent there before the node was closed, and has nothing in the map yet."""
    world.buy()
    world.steps.grow(world.plan)
    node, other = node_of(world, "aws"), node_of(world, "harbor")
    world.map.update_node(node, state=NodeState.JOINED)
    spare = world.add(node, ShardState.READY)
    world.moving = [a_request().model_copy(update={"source": other, "destination": node})]
    world.shrink(world.keeping(node))
    assert (node in world.cells.last, world.fleet.released) == (True, [])
    assert world.map.node(node).state is NodeState.JOINED
    world.moving = []
    world.shrink(world.keeping(node))
    assert (node in world.cells.last, world.fleet.released) == (False, [spare])


def test_a_move_that_is_told_of_later_does_not_commit_to_a_node_that_leaves(world: World) -> None:
    """It was chosen before the node was closed, and begins while its instance ends."""
    world.buy()
    world.steps.grow(world.plan)
    node, other = node_of(world, "aws"), node_of(world, "harbor")
    world.map.update_node(node, state=NodeState.JOINED)
    shard = world.bind(other)
    world.cells.failing = {"aws"}
    world.shrink(world.keeping(node))
    assert world.map.node(node).state is NodeState.LEAVING, "the next round tries again"
    with pytest.raises(ConcurrentUpdate, match="leaving"):
        world.map.move(shard, expected_epoch=1, to_node=node)
    assert (world.map.get(shard).node, world.map.get(shard).epoch) == (other, 1)
    world.cells.failing = set()
    assert node in {item.node.id for item in world.steps.inventory().nodes if not item.stays}
    world.shrink(world.keeping(node))
    assert world.map.node(node).state is NodeState.GONE


def test_a_shard_that_comes_while_nodes_are_given_back_keeps_its_node(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.buy()
    world.steps.grow(world.plan)
    first, second = node_of(world, "aws"), node_of(world, "harbor")
    for node in (first, second):
        world.map.update_node(node, state=NodeState.JOINED)
    spare = world.add(first, ShardState.READY)
    seen: list[NodeState] = []
    release = world.fleet.release

    def slowly(shard: Shard) -> None:
        seen.append(world.map.node(second).state)
        world.bind(second)
        release(shard)

    monkeypatch.setattr(world.fleet, "release", slowly)
    world.shrink(world.keeping(first, second))
    assert world.fleet.released == [spare]
    assert seen == [NodeState.DRAINING], "nobody is sent to a node that is given back"
    assert second in world.cells.last
    assert (world.map.node(first).state, world.map.node(second).state) == (NodeState.GONE, NodeState.JOINED)


def test_a_control_plane_that_dies_over_a_node_opens_it_again_when_it_goes_on(world: World) -> None:
    """Its step is repeated, with what the step before it has written down."""
    world.buy()
    world.steps.grow(world.plan)
    stays, drained = node_of(world, "aws"), node_of(world, "harbor")
    world.map.update_node(stays, state=NodeState.JOINED)
    world.map.update_node(drained, state=NodeState.DRAINING)
    for node in (stays, drained):
        world.bind(node)
    after = world.keeping(stays, drained)
    undrained = world.steps.to_close(after)
    assert undrained == (stays,)
    world.map.update_node(stays, state=NodeState.DRAINING)  # so far it had come
    world.steps.shrink(after, undrained)
    assert (world.map.node(stays).state, world.map.node(drained).state) == (NodeState.JOINED, NodeState.DRAINING)


def test_an_error_over_one_node_leaves_none_closed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.buy()
    world.steps.grow(world.plan)
    first, second = node_of(world, "aws"), node_of(world, "harbor")
    for node in (first, second):
        world.map.update_node(node, state=NodeState.JOINED)
    spare = world.add(first, ShardState.READY)

    def broken(shard: Shard) -> None:
        assert world.map.node(second).state is NodeState.DRAINING
        raise OSError("the store's disk is full")

    monkeypatch.setattr(world.fleet, "release", broken)
    with pytest.raises(OSError, match="full"):
        world.shrink(world.keeping(first, second))
    assert world.map.node(first).state is NodeState.LEAVING, "nothing moves there any more, and the next round goes on"
    assert world.map.node(second).state is NodeState.JOINED
    monkeypatch.undo()
    world.shrink(world.keeping(first, second))
    assert world.fleet.released == [spare]


def test_what_has_just_moved_is_left_where_it_is_now(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a round that gives a surplus up, and by one that gives its node back."""
    world.buy()
    world.steps.grow(world.plan)
    first, second = node_of(world, "aws"), node_of(world, "harbor")
    surplus, moving = world.add(second, ShardState.RELEASED), world.add(first, ShardState.READY)

    def too_late(shard: Shard) -> None:
        if shard.id == moving:
            world.map.move(moving, expected_epoch=shard.epoch, to_node=second)
        raise StaleEpoch(f"shard {shard.id} is not at epoch {shard.epoch}")

    monkeypatch.setattr(world.fleet, "release", too_late)
    world.steps.carve(world.plan, ())
    world.shrink(world.keeping(first))
    assert world.map.node(first).state is NodeState.GONE
    assert {shard.id: shard.node for shard in world.map.search()} == {surplus: second, moving: second}


@pytest.mark.parametrize("state", [ShardState.BOUND, ShardState.DRAINING])
def test_a_node_whose_replica_is_drained_stays_too(world: World, state: ShardState) -> None:
    world.buy()
    world.steps.grow(world.plan)
    node = node_of(world, "aws")
    world.map.update_node(node, state=NodeState.JOINED)
    world.add(node, state)
    world.shrink(world.keeping(node))
    assert world.fleet.released == []
    assert node in world.cells.last


def test_a_node_that_never_came_up_leaves_at_once_and_what_was_paid_for_it_is_given_back(world: World) -> None:
    world.buy()
    world.cells.failing = {"harbor"}
    world.steps.grow(world.plan)
    node = node_of(world, "harbor")
    after = world.keeping(node)
    world.steps.grow(after)
    assert node not in world.cells.last
    world.cells.failing = set()
    world.shrink(after)
    assert world.map.node(node).state is NodeState.GONE
    assert world.harbor.paid == set()


@pytest.mark.parametrize(
    "problem", [ProviderUnavailable("harbor is down"), AuthenticationFailed("harbor refuses the token")]
)
def test_what_was_paid_for_a_node_that_left_is_asked_back_until_its_provider_answers(
    world: World, problem: Exception
) -> None:
    """Its create failed, and it leaves while the network is still down: its cell has nothing to do there."""
    world.harbor.problem = problem
    world.buy()
    world.cells.failing = {"harbor"}
    world.steps.grow(world.plan)
    world.cells.failing, world.harbor.down = set(), True
    node = node_of(world, "harbor")
    world.shrink(world.keeping(node))
    assert world.map.node(node).state is NodeState.LEAVING
    assert node in {item.node.id for item in world.steps.inventory().nodes if not item.stays}, (
        "the next plan repeats it"
    )
    world.harbor.down = False
    world.shrink(world.keeping(node))
    assert world.harbor.paid == set()
    assert world.map.node(node).state is NodeState.GONE


def test_a_kill_before_it_is_given_back_does_not_lose_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.buy()
    world.steps.grow(world.plan)
    node = node_of(world, "harbor")

    def killed(_hold: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(world.harbor, "release", killed)
        with pytest.raises(KeyboardInterrupt):
            world.shrink(world.keeping(node))
    world.shrink(world.keeping(node))
    assert (world.harbor.paid, world.map.node(node).state) == (set(), NodeState.GONE)


def test_a_node_whose_instance_has_ended_is_not_made_again_by_a_round_that_gives_back_what_was_paid(
    world: World,
) -> None:
    world.buy()
    world.steps.grow(world.plan)
    node = node_of(world, "harbor")
    world.harbor.down = True
    world.shrink(world.keeping(node))
    world.steps.grow(world.keeping(node))
    assert node not in world.cells.last


def test_a_node_that_is_paid_for_or_made_is_not_given_up(world: World) -> None:
    world.buy()
    world.cells.failing = {"harbor"}
    world.steps.grow(world.plan)
    world.steps.leaving.give_back(node_of(world, "aws"))
    world.steps.recover()
    assert {node.state for node in world.map.nodes()} == {NodeState.EXPECTED}
