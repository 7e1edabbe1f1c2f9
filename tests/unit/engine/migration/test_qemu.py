from datetime import timedelta

import pytest

from agent.wire import TuneRequest
from engine.errors import ConcurrentUpdate, MoveFailed, StaleEpoch
from engine.migration import switch
from engine.migration.base import Transfer
from engine.migration.qemu import QemuMove
from engine.migration.strategies import KEEP_ON, Advice, Verb
from engine.model.move import MovePhase
from tests.move_simulator.node import SHARD, SimNode
from tests.move_simulator.world import NODES, Planned, World, request

SOURCE, DESTINATION, THIRD = NODES


def move_in(world: World) -> QemuMove:
    return QemuMove(world.control.context, request())


def test_a_move_begins_where_the_shard_is() -> None:
    world = World(quiet=True)
    plan = move_in(world).begin()
    assert (plan.epoch, plan.disk_mib, plan.address) == (1, 64, "10.9.0.2/16")
    world.store.owner, world.nodes[SOURCE].guest = THIRD, None
    with pytest.raises(StaleEpoch, match="is not on node nA"):
        move_in(world).begin()


def test_a_move_to_the_same_node_makes_no_sense() -> None:
    world = World(quiet=True)
    with pytest.raises(MoveFailed, match="already"):
        QemuMove(world.control.context, request(destination=SOURCE)).begin()


def test_a_guest_that_another_move_has_not_settled_is_not_moved() -> None:
    world = World(quiet=True)
    here = world.nodes[SOURCE].guest
    assert here is not None
    here.save(move="other")
    with pytest.raises(ConcurrentUpdate, match="in move other"):
        move_in(world).begin()
    here.save(move=None)
    here.running = False
    with pytest.raises(ConcurrentUpdate, match="it is paused"):
        move_in(world).begin()


def test_each_step_may_be_repeated() -> None:
    world = World(quiet=True)
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
        assert move.end(plan.epoch, again).phase is MovePhase.CLEANED
    assert world.store.owner == DESTINATION
    assert world.nodes[SOURCE].guest is None


def test_a_mirror_that_breaks_off_fails_the_move_before_memory_goes() -> None:
    world = World(quiet=True)
    move = move_in(world)
    plan = move.begin()
    landing = move.prepare(plan)
    there = world.nodes[DESTINATION].guest
    assert there is not None
    there.alive = False
    with pytest.raises(MoveFailed):
        move.mirror(plan, landing)


def test_a_rollback_is_decided_in_the_store_before_anybody_is_told() -> None:
    world = World(quiet=True)
    move = move_in(world)
    plan = move.begin()
    landing = move.prepare(plan)
    move.mirror(plan, landing)
    ended = move.end(plan.epoch, Transfer(phase=MovePhase.ROLLING_BACK, epoch_after=1, error="why not"))
    assert (ended.phase, ended.epoch_after, ended.error) == (MovePhase.ABORTED, 2, "why not")
    assert (world.store.owner, world.store.epoch, world.nodes[SOURCE].epochs[SHARD]) == (SOURCE, 2, 2)
    assert world.nodes[DESTINATION].guest is None
    with pytest.raises(StaleEpoch):  # what comes late does nothing
        move.prepare(plan)


def test_a_rollback_that_reaches_only_one_node_is_not_at_its_end() -> None:
    world = World(quiet=True)
    move = move_in(world)
    plan = move.begin()
    move.prepare(plan)
    world.nodes[DESTINATION].die(500)
    standing = Transfer(phase=MovePhase.ROLLING_BACK, epoch_after=1)
    for _ in range(2):
        standing = move.end(plan.epoch, standing)
    assert (standing.phase, standing.error) == (MovePhase.ROLLING_BACK, "node nB does not answer")
    world.timeline.sleep(600)
    assert move.end(plan.epoch, standing).phase is MovePhase.ABORTED
    assert world.nodes[DESTINATION].guest is None


def test_silence_before_the_commit_point_is_bounded() -> None:
    world = World(quiet=True)
    move = move_in(world)
    plan = move.begin()
    landing = move.prepare(plan)
    move.mirror(plan, landing)
    world.planned = dict.fromkeys(range(world.calls, world.calls + 5000), Planned.REQUEST_LOST)
    began = world.timeline.now()
    assert move.transfer(plan, landing).phase is MovePhase.IN_DOUBT
    assert world.timeline.now() - began < timedelta(seconds=25)


def test_where_post_copy_is_refused_the_move_goes_on_without(monkeypatch: pytest.MonkeyPatch) -> None:
    hasty = Advice(verb=Verb.POST_COPY, reason="as if it did not converge")
    asked: list[TuneRequest] = []

    def refuse(_node: SimNode, request: TuneRequest) -> None:
        asked.append(request)
        raise MoveFailed("memory may have been lost on its way")

    monkeypatch.setattr(switch, "advise", lambda *_, post_copy, **__: hasty if post_copy else KEEP_ON)
    monkeypatch.setattr(switch, "_SWITCHOVER_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(SimNode, "tune", refuse)
    world = World(quiet=True)
    move = move_in(world)
    plan = move.begin()
    landing = move.prepare(plan).model_copy(update={"post_copy": True})
    move.mirror(plan, landing)
    ended = move.transfer(plan, landing)
    assert (ended.phase, ended.strategy, len(asked)) == (MovePhase.COMMITTED, "pre-copy", 1)
