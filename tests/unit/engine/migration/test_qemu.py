from datetime import timedelta

import pytest

from engine.errors import MoveFailed, StaleEpoch
from engine.migration.base import MoveContext, MoveLimits
from engine.migration.qemu import QemuMove
from engine.model.ids import NodeId
from engine.model.move import MovePhase
from tests.move_world import DESTINATION, SOURCE, Fault, World, request


def move_in(world: World) -> QemuMove:
    return QemuMove(MoveContext(agents=world.agents, shards=world, clock=world.clock), request())


def test_a_move_begins_where_the_shard_is() -> None:
    world = World()
    plan = move_in(world).begin()
    assert (plan.epoch, plan.disk_mib, plan.address) == (1, 64, "10.9.0.2/16")
    world.owner = NodeId("nC")
    with pytest.raises(StaleEpoch, match="is not on node nA"):
        move_in(world).begin()


def test_a_move_to_the_same_node_makes_no_sense() -> None:
    world = World()
    same = request().model_copy(update={"destination": SOURCE})
    with pytest.raises(MoveFailed, match="already"):
        QemuMove(MoveContext(agents=world.agents, shards=world, clock=world.clock), same).begin()


def test_each_step_may_be_repeated() -> None:
    world = World()
    move = move_in(world)
    plan = move.begin()
    for _ in range(2):
        move.reserve(plan)
    landing = move.prepare(plan)
    assert move.prepare(plan) == landing
    for _ in range(2):
        move.mirror(plan, landing)
    first = move.transfer(plan, landing)
    again = move.transfer(plan, landing)
    assert (first.phase, again.phase) == (MovePhase.COMMITTED, MovePhase.COMMITTED)
    assert first.epoch_after == again.epoch_after == 2
    for _ in range(2):
        move.clean(plan, again)
    assert world.owner == DESTINATION


def test_a_mirror_that_breaks_off_fails_the_move_before_memory_goes() -> None:
    world = World()
    move = move_in(world)
    plan = move.begin()
    landing = move.prepare(plan)
    assert world.destination is not None
    world.destination.alive = False
    with pytest.raises(MoveFailed, match="broke off"):
        move.mirror(plan, landing)
    move.roll_back(plan)
    assert world.source.running


def test_a_stalled_move_is_helped_and_then_ends() -> None:
    world = World(rounds_to_converge=1000)
    move = move_in(world)
    plan = move.begin()
    landing = move.prepare(plan)
    move.mirror(plan, landing)
    began = world.clock.now()
    transfer = move.transfer(plan, landing)
    assert transfer.phase is MovePhase.COMMITTED
    assert world.clock.now() - began < timedelta(seconds=30)


def test_silence_before_the_commit_point_is_bounded() -> None:
    world = World()
    move = QemuMove(
        MoveContext(agents=world.agents, shards=world, clock=world.clock, limits=MoveLimits(unreachable=5)), request()
    )
    plan = move.begin()
    landing = move.prepare(plan)
    move.mirror(plan, landing)
    world.faults = dict.fromkeys(range(world.calls, world.calls + 2000), Fault.REQUEST_LOST)
    began = world.clock.now()
    transfer = move.transfer(plan, landing)
    assert transfer.phase in (MovePhase.ROLLING_BACK, MovePhase.IN_DOUBT)
    assert world.clock.now() - began < timedelta(seconds=10)
