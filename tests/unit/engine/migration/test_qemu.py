from datetime import timedelta
from typing import Any

import pytest

from agent.wire import Landing, MoveCommand, SendRequest, SourceStatus, SwitchoverRequest, TuneRequest
from engine.errors import ConcurrentUpdate, MoveFailed, StaleEpoch
from engine.migration import switch
from engine.migration.base import MovePlan, Transfer
from engine.migration.qemu import QemuMove, next_look
from engine.migration.strategies import KEEP_ON, Advice, Verb
from engine.model.move import MovePhase
from tests.move_simulator.control import Client
from tests.move_simulator.node import SHARD, SimNode
from tests.move_simulator.world import NODES, Planned, World, request

SOURCE, DESTINATION, THIRD = NODES


def move_in(world: World) -> QemuMove:
    return QemuMove(world.control.context, request())


def mirrored(world: World) -> tuple[QemuMove, MovePlan, Landing]:
    """A move whose disk is on both sides; no memory has gone yet."""
    move = move_in(world)
    plan = move.begin()
    landing = move.prepare(plan)
    move.mirror(plan, landing)
    return move, plan, landing


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


@pytest.mark.parametrize(
    ("done", "seconds", "wait"), [(0, 0.2, 0.1), (10, 1.0, 0.1), (80, 0.2, 0.05), (99, 0.2, 0.02), (100, 0.2, 0.02)]
)
def test_the_mirror_is_looked_at_when_it_may_be_done(done: int, seconds: float, wait: float) -> None:
    status = SourceStatus(
        running=True,
        mirror_ready=False,
        mirror_present=True,
        migration="none",
        disk_bytes_done=done,
        disk_bytes_total=100,
    )
    assert next_look(status, seconds) == pytest.approx(wait)


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
    move, plan, _ = mirrored(world)
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


def test_a_swap_to_a_node_that_leaves_ends_the_move_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(quiet=True)
    move, plan, landing = mirrored(world)

    def refuse(*_: object, **__: object) -> None:
        raise ConcurrentUpdate("shard s cannot go to node nB", why="it is leaving")

    with monkeypatch.context() as closed:
        closed.setattr(type(world.control.context.shards), "move", refuse)
        began = world.timeline.now()
        transfer = move.transfer(plan, landing)
    assert (transfer.phase, transfer.epoch_after) == (MovePhase.ROLLING_BACK, 1)
    assert "it is leaving" in transfer.error
    assert world.timeline.now() - began < timedelta(seconds=10)
    assert move.end(plan.epoch, transfer).phase is MovePhase.ABORTED
    here = world.nodes[SOURCE].guest
    assert here is not None
    assert here.running


def test_silence_before_the_commit_point_is_bounded() -> None:
    world = World(quiet=True)
    move, plan, landing = mirrored(world)
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


@pytest.mark.parametrize(
    ("lossless", "attached", "post_copy", "order"),
    [
        (True, False, False, ["switchover", "commit", "proceed"]),
        (False, False, False, ["switchover", "proceed", "commit"]),
        (True, True, False, ["switchover", "proceed", "commit"]),
        (True, False, True, ["switchover", "claim", "proceed", "commit"]),
    ],
)
def test_the_destination_runs_unasked_only_where_nothing_is_needed_of_its_source_any_more(
    monkeypatch: pytest.MonkeyPatch, lossless: bool, attached: bool, post_copy: bool, order: list[str]
) -> None:
    world = World(quiet=True)
    monkeypatch.setattr(world.dice, "random", lambda: 0.5 if lossless else 0.9)
    said: list[str] = []
    real = Client._deliver

    def noted(node: SimNode, method: str, body: tuple[Any, ...]) -> Any:
        said.append(method)
        return real(node, method, body)

    monkeypatch.setattr(Client, "_deliver", staticmethod(noted))
    move = move_in(world)
    plan = move.begin()
    landing = move.prepare(plan).model_copy(update={"post_copy": post_copy})
    plan = plan.model_copy(update={"attached": attached})
    move.mirror(plan, landing)
    assert move.transfer(plan, landing).phase is MovePhase.COMMITTED
    assert said[said.index("switchover") :] == order


def test_a_controller_that_comes_back_gives_away_what_was_sent_meanwhile() -> None:
    world = World(quiet=True)
    move, plan, landing = mirrored(world)
    source = world.nodes[SOURCE]
    source.precopy(SendRequest(move=request().id, epoch=1, landing=landing))
    source.switchover(SwitchoverRequest(move=request().id, epoch=1, send_rest=True), 5.0)
    world.timeline.sleep(5.0)
    assert source.source_status().migration == "completed"
    assert (world.store.owner, world.store.epoch) == (SOURCE, 1)
    assert move.transfer(plan, landing).phase is MovePhase.COMMITTED
    there = world.nodes[DESTINATION].guest
    assert there is not None
    assert there.running


def test_without_a_bare_stream_the_rest_waits_for_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has arrived may be cut off, so the source is asked before the destination runs."""
    world = World(quiet=True)
    move = move_in(world)
    plan = move.begin()
    old = plan.model_copy(update={"profile": plan.profile.model_copy(update={"bare_stream": False})})
    landing = move.prepare(plan)
    move.mirror(old, landing)
    asked: list[type[MoveCommand]] = []
    real = SimNode.switchover

    def switchover(self: SimNode, command: MoveCommand, wait_seconds: float) -> SourceStatus:
        asked.append(type(command))
        return real(self, command, wait_seconds)

    monkeypatch.setattr(SimNode, "switchover", switchover)
    assert move.transfer(old, landing).phase is MovePhase.COMMITTED
    assert set(asked) == {MoveCommand}


def test_a_source_that_ran_on_keeps_its_shard() -> None:
    """The mirror was ended, but what was written since is on one side only."""
    world = World(quiet=True)
    move, plan, landing = mirrored(world)
    source, there = world.nodes[SOURCE], world.nodes[DESTINATION].guest
    source.precopy(SendRequest(move=request().id, epoch=1, landing=landing))
    source.switchover(SwitchoverRequest(move=request().id, epoch=1, send_rest=True), 5.0)
    assert there is not None
    there.alive = False
    written = world.acknowledged
    world.timeline.sleep(5.0)
    assert world.acknowledged > written, "it has not run on for a moment"
    assert source.guest is not None
    assert not source.guest.running
    ended = move.end(plan.epoch, move.transfer(plan, landing))
    assert (ended.phase, world.store.owner) == (MovePhase.ABORTED, SOURCE)
    assert source.guest.running
