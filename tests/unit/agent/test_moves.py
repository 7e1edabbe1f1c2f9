"""The agent's halves of a move against a QEMU that is a script: what is refused, and what a repeat does."""

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from agent.config import AgentConfig
from agent.guest import GuestRecord
from agent.monitor import GuestRefused
from agent.moves import MoveAgent
from agent.shards import ShardHost
from agent.wire import (
    CommitRequest,
    Landing,
    MemoryDigest,
    MemoryPatch,
    MemoryRequest,
    MoveCommand,
    PatchRequest,
    PrepareRequest,
    SendRequest,
    TuneRequest,
)
from engine.errors import ConcurrentUpdate, MoveFailed, NotFound, StaleEpoch, UsageError
from engine.model.capacity import Resources
from engine.model.ids import MoveId, NodeId, ShardId
from tests.unit.agent.conftest import PROFILE

S1, MOVE = ShardId("s1"), MoveId("m1")
LANDING = Landing(node=NodeId("n2"), host="127.0.0.1", memory_port=1, disk_port=2)
Leave = Callable[..., GuestRecord]


class ScriptedMonitor:
    """Answers from ``state`` and notes every command that changes something."""

    def __init__(self, *, migration: str = "none", running: bool = True, jobs: int = 0, ready: bool = True) -> None:
        self.migration, self.running, self.jobs, self.ready = migration, running, jobs, ready
        self.done: list[str] = []
        self.after_migrate: str | None = None

    async def execute(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
        if command == "query-migrate":
            return {"status": self.migration, "ram": {"dirty-sync-count": 1}}
        if command == "query-status":
            return {"running": self.running, "status": "running" if self.running else "paused"}
        if command == "query-block-jobs":
            return [{"device": "mirror-move", "ready": self.ready, "offset": 5, "len": 5}] * self.jobs
        if command in ("blockdev-del", "object-del") and command not in self.done:
            raise GuestRefused("not there")
        self.done.append(command)
        self._effect(command)
        return {}

    def _effect(self, command: str) -> None:
        if command in ("cont", "stop"):
            self.running = command == "cont"
        if command == "migrate" and self.after_migrate:
            self.migration = self.after_migrate
        if command == "blockdev-mirror":
            self.jobs = 1
        if command == "block-job-cancel":
            self.jobs = 0
        if command == "migrate_cancel" and self.migration in ("active", "pre-switchover"):
            self.migration = "cancelled"
        if command == "migrate-continue" and self.migration == "pre-switchover":
            self.migration = "completed"

    async def close(self) -> None:
        return


def agent(config: AgentConfig, monitor: ScriptedMonitor) -> tuple[MoveAgent, ShardHost]:
    host = ShardHost(config)
    host.guests[S1].monitor = monitor  # type: ignore[assignment]
    return MoveAgent(host, config), host


def command(epoch: int, move: MoveId = MOVE) -> MoveCommand:
    return MoveCommand(move=move, epoch=epoch)


def commit_request(epoch: int, sums_hex: str | None = None) -> CommitRequest:
    memory = None if sums_hex is None else MemoryDigest(sums_hex=sums_hex)
    return CommitRequest(move=MOVE, epoch=epoch, memory=memory)


def mirror_request(epoch: int = 1, move: MoveId = MOVE) -> SendRequest:
    return SendRequest(move=move, epoch=epoch, landing=LANDING)


def test_a_shard_takes_part_in_one_move_at_a_time(config: AgentConfig, left_behind: Leave) -> None:
    left_behind()
    moves, _ = agent(config, ScriptedMonitor())
    asyncio.run(moves.mirror(S1, mirror_request()))
    with pytest.raises(ConcurrentUpdate, match="another move"):
        asyncio.run(moves.mirror(S1, mirror_request(move=MoveId("m2"))))


def test_mirroring_again_starts_no_second_mirror(config: AgentConfig, left_behind: Leave) -> None:
    left_behind()
    monitor = ScriptedMonitor()
    moves, _ = agent(config, monitor)
    for _ in range(2):
        assert asyncio.run(moves.mirror(S1, mirror_request())).mirror_ready
    assert monitor.done.count("blockdev-mirror") == 1


def test_what_an_earlier_move_found_of_the_memory_is_not_taken_for_this_one(
    config: AgentConfig, left_behind: Leave
) -> None:
    """Else its memory would not be compared, or with what it was then."""
    left_behind()
    moves, host = agent(config, ScriptedMonitor())
    here = host.guests[S1]

    async def again() -> None:
        here.mirrored, here.exact = True, True
        here.digesting = asyncio.create_task(asyncio.sleep(0, MemoryDigest(sums_hex="00000000")))
        await moves.mirror(S1, mirror_request())

    asyncio.run(again())
    assert (here.mirrored, here.exact, here.digesting) == (False, False, None)


def test_memory_does_not_go_before_the_disk(config: AgentConfig, left_behind: Leave) -> None:
    left_behind(move="m1", sent_for="m1")
    monitor = ScriptedMonitor()
    moves, _ = agent(config, monitor)
    with pytest.raises(MoveFailed, match="before the disk"):
        asyncio.run(moves.precopy(S1, mirror_request()))
    assert "migrate" not in monitor.done


def test_what_qemu_says_of_an_earlier_move_is_not_taken_for_this_one(
    config: AgentConfig, left_behind: Leave, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a shard of which one move has failed could never move again."""
    left_behind(sent_for="m0")
    monitor = ScriptedMonitor(migration="failed")
    moves, host = agent(config, monitor)
    assert asyncio.run(moves.mirror(S1, mirror_request())).migration == "none"
    monkeypatch.setattr("agent.memory.PageSample", lambda _pid: None)
    monitor.after_migrate = "active"
    assert asyncio.run(moves.precopy(S1, mirror_request())).migration == "active"
    assert host.guests[S1].record.sent_for == "m1"
    monitor.migration = "failed"
    assert asyncio.run(moves.source_status(S1)).migration == "failed"


def test_a_limit_that_the_controller_sets_is_not_set_back(config: AgentConfig, left_behind: Leave) -> None:
    left_behind(move="m1", sent_for="m1")
    moves, host = agent(config, ScriptedMonitor(migration="active"))
    host.guests[S1].first_pass = object()  # type: ignore[assignment]
    asyncio.run(moves.tune(S1, TuneRequest(move=MOVE, epoch=1, downtime_limit_ms=500)))
    assert host.guests[S1].first_pass is None


def test_the_switchover_ends_the_mirror_while_the_guest_is_paused(config: AgentConfig, left_behind: Leave) -> None:
    left_behind(move="m1", sent_for="m1")
    monitor = ScriptedMonitor(migration="pre-switchover", running=False, jobs=1)
    moves, _ = agent(config, monitor)
    status = asyncio.run(moves.switchover(S1, command(1), 1.0))
    assert (status.migration, status.mirror_present, status.disk_bytes_done) == ("pre-switchover", False, 5)
    assert monitor.jobs == 0
    assert asyncio.run(moves.switchover(S1, command(1), 1.0)).mirrored


def test_a_mirror_that_broke_off_is_not_taken_for_one_that_was_ended(config: AgentConfig, left_behind: Leave) -> None:
    left_behind(move="m1", sent_for="m1")
    moves, _ = agent(config, ScriptedMonitor(migration="pre-switchover", running=False, jobs=0))
    status = asyncio.run(moves.switchover(S1, command(1), 1.0))
    assert (status.mirror_present, status.mirrored) == (False, False)


def test_a_switchover_that_does_not_come_is_not_waited_for_without_end(config: AgentConfig, left_behind: Leave) -> None:
    left_behind(move="m1", sent_for="m1")
    moves, _ = agent(config, ScriptedMonitor(migration="active", jobs=1))
    assert asyncio.run(moves.switchover(S1, command(1), 0.0)).migration == "active"


def test_after_the_commit_point_no_old_command_is_obeyed(
    config: AgentConfig, left_behind: Leave, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_behind(move="m1", sent_for="m1")
    monitor = ScriptedMonitor(migration="pre-switchover", running=False)
    moves, host = agent(config, monitor)
    monkeypatch.setattr("agent.memory.digest", lambda _pid: MemoryDigest(sums_hex="00000000"))
    assert asyncio.run(moves.proceed(S1, command(2))).status.migration == "completed"
    assert host.guests[S1].record.ceded_epoch == 2
    with pytest.raises(StaleEpoch):
        asyncio.run(moves.resume(S1, command(1)))
    with pytest.raises(StaleEpoch, match="given away at epoch 2"):
        asyncio.run(moves.resume(S1, command(2)))
    assert not monitor.running


def test_a_shard_given_back_runs_again_and_may_be_told_so_twice(config: AgentConfig, left_behind: Leave) -> None:
    left_behind(move="m1", sent_for="m1", ceded_epoch=2)
    monitor = ScriptedMonitor(migration="completed", running=False)
    moves, host = agent(config, monitor)
    for _ in range(2):
        assert asyncio.run(moves.resume(S1, command(3))).running
    assert monitor.done.count("cont") == 1
    assert (host.guests[S1].record.ceded_epoch, host.guests[S1].record.move) == (0, None)


def test_ending_another_move_changes_nothing(config: AgentConfig, left_behind: Leave) -> None:
    left_behind(move="m1", sent_for="m1")
    monitor = ScriptedMonitor(migration="active", jobs=1)
    moves, host = agent(config, monitor)
    asyncio.run(moves.resume(S1, command(2, MoveId("m2"))))
    asyncio.run(moves.abort(S1, command(2, MoveId("m2"))))
    assert monitor.done == []
    assert host.guests[S1].alive


def test_a_command_of_an_ended_move_comes_too_late(config: AgentConfig, left_behind: Leave) -> None:
    left_behind(move="m1", sent_for="m1")
    monitor = ScriptedMonitor(migration="active", jobs=1)
    moves, _ = agent(config, monitor)
    asyncio.run(moves.resume(S1, command(2)))
    late = TuneRequest(move=MOVE, epoch=1, stop_guest=True)
    for act in (moves.tune(S1, late), moves.tune(S1, late.model_copy(update={"epoch": 2}))):
        with pytest.raises((StaleEpoch, ConcurrentUpdate)):
            asyncio.run(act)
    assert monitor.running


def test_a_command_that_had_to_wait_is_judged_when_its_turn_comes(config: AgentConfig, left_behind: Leave) -> None:
    left_behind(move="m1", sent_for="m1")
    monitor = ScriptedMonitor(migration="active", jobs=1)
    moves, host = agent(config, monitor)

    async def overtaken() -> None:
        here = host.guests[S1]
        await here.busy.acquire()
        late = asyncio.create_task(moves.tune(S1, TuneRequest(move=MOVE, epoch=1, stop_guest=True)))
        await asyncio.sleep(0)
        host.epochs.accept(S1, 2)
        here.busy.release()
        await late

    with pytest.raises(StaleEpoch):
        asyncio.run(overtaken())
    assert monitor.running


def test_a_guest_that_was_given_away_is_stopped_when_qemu_runs_it_on(config: AgentConfig, left_behind: Leave) -> None:
    left_behind(move="m1", sent_for="m1")
    monitor = ScriptedMonitor(migration="failed", running=True)
    moves, _ = agent(config, monitor)
    answer = asyncio.run(moves.proceed(S1, command(2)))
    assert (answer.status.migration, answer.status.running, answer.memory) == ("failed", False, None)


def test_what_was_given_away_is_cleared_by_its_own_move_only(config: AgentConfig, left_behind: Leave) -> None:
    left_behind(move="m1", sent_for="m1", ceded_epoch=2)
    moves, host = agent(config, ScriptedMonitor(running=False))
    asyncio.run(moves.abort(S1, command(2, MoveId("m2"))))
    assert S1 in host.guests
    assert not asyncio.run(moves.abort(S1, command(2))).present
    assert S1 not in host.guests


def test_a_guest_that_has_died_in_its_move_may_be_booted_again(config: AgentConfig, left_behind: Leave) -> None:
    left_behind(move="m1", sent_for="m1", ceded_epoch=2, alive=False)
    moves, host = agent(config, ScriptedMonitor())
    with pytest.raises(NotFound):
        asyncio.run(moves.resume(S1, command(3)))
    assert (host.guests[S1].record.move, host.guests[S1].record.ceded_epoch) == (None, 0)


class SilentMonitor(ScriptedMonitor):
    """Of a process that dies: its monitor is closed already."""

    async def execute(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
        raise NotFound("QEMU's monitor does not answer")


def test_a_guest_that_is_still_dying_is_not_left_in_its_move(config: AgentConfig, left_behind: Leave) -> None:
    """Else it would be booted again as part of a move that is over, and could never move again."""
    left_behind(move="m1", sent_for="m1")
    moves, host = agent(config, SilentMonitor())
    here = host.guests[S1]

    async def dying() -> None:
        resumed = asyncio.create_task(moves.resume(S1, command(2)))
        await asyncio.sleep(0.05)
        assert here.record.move == "m1"
        os.kill(here.record.pid, signal.SIGKILL)
        with pytest.raises(NotFound):
            await resumed

    asyncio.run(dying())
    assert here.record.move is None


def test_a_guest_that_lives_and_does_not_answer_stays_in_its_move(
    config: AgentConfig, left_behind: Leave, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_behind(move="m1", sent_for="m1")
    monkeypatch.setattr("agent.moves._DYING_SECONDS", 0.0)
    moves, host = agent(config, SilentMonitor())
    with pytest.raises(MoveFailed, match="does not answer"):
        asyncio.run(moves.resume(S1, command(2)))
    assert host.guests[S1].record.move == "m1"


def test_a_landing_runs_only_once_its_memory_is_there(
    config: AgentConfig, left_behind: Leave, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_behind(move="m1", sent_for="m1", incoming=True)
    monitor = ScriptedMonitor(migration="active", running=False)
    moves, host = agent(config, monitor)
    monkeypatch.setattr("agent.moves._ARRIVAL_SECONDS", 0.0)
    with pytest.raises(MoveFailed, match="has not arrived"):
        asyncio.run(moves.commit(S1, commit_request(2)))
    monitor.migration = "completed"
    asyncio.run(moves.commit(S1, commit_request(2)))
    asyncio.run(moves.commit(S1, commit_request(2)))
    assert monitor.done.count("cont") == 1
    assert (host.guests[S1].record.incoming, host.guests[S1].record.move) == (False, None)
    assert monitor.done.index("nbd-server-stop") < monitor.done.index("cont")


def test_a_landing_whose_memory_differs_does_not_run_and_says_where(
    config: AgentConfig, left_behind: Leave, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_behind(move="m1", sent_for="m1", incoming=True)
    monitor = ScriptedMonitor(migration="completed", running=False)
    moves, host = agent(config, monitor)
    monkeypatch.setattr("agent.memory.digest", lambda _pid: MemoryDigest(sums_hex="0000000000000001"))
    answer = asyncio.run(moves.commit(S1, commit_request(2, "0000000000000002")))
    assert answer.differing == (1,)
    assert not monitor.running
    assert host.guests[S1].record.incoming
    assert asyncio.run(moves.commit(S1, commit_request(2, "0000000000000001"))).differing == ()
    assert monitor.running


def test_memory_is_read_after_the_shard_was_given_away_and_written_before_it_runs_only(
    config: AgentConfig, left_behind: Leave
) -> None:
    left_behind(move="m1", sent_for="m1")
    moves, _ = agent(config, ScriptedMonitor())
    with pytest.raises(UsageError, match="runs here"):
        asyncio.run(moves.memory(S1, MemoryRequest(move=MOVE, epoch=1, indexes=(0,))))
    with pytest.raises(UsageError, match="has run here"):
        asyncio.run(moves.patch(S1, PatchRequest(move=MOVE, epoch=1, patch=MemoryPatch(indexes=(), data_hex=()))))


def test_a_landing_that_has_run_cannot_be_aborted(config: AgentConfig, left_behind: Leave) -> None:
    left_behind(move="m1", sent_for="m1", incoming=False)
    moves, host = agent(config, ScriptedMonitor())
    asyncio.run(moves.abort(S1, command(2)))
    assert host.guests[S1].alive


def test_an_aborted_landing_is_proven_dead(config: AgentConfig, left_behind: Leave) -> None:
    record = left_behind(move="m1", sent_for="m1", incoming=True)
    moves, host = agent(config, ScriptedMonitor(running=False))
    assert not asyncio.run(moves.abort(S1, command(1))).present
    assert S1 not in host.guests
    assert record.pid


def test_a_guest_that_is_being_booted_makes_no_way(
    config: AgentConfig, left_behind: Leave, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = left_behind()
    host = ShardHost(config)
    host.guests[S1].monitor = ScriptedMonitor()  # type: ignore[assignment]
    monkeypatch.setattr(host, "image", lambda *_, **_more: asyncio.sleep(0))
    late = PrepareRequest(
        move=MOVE, epoch=2, source=NodeId("n2"), resources=record.resources, image="records",
        address="10.9.0.2/16", mac="52:54:00:09:00:02", disk_mib=1, profile=PROFILE,
    )  # fmt: skip

    async def go() -> None:
        here = host.guests[S1]
        here.save(pid=0)
        async with here.busy:
            waiting = asyncio.create_task(MoveAgent(host, config).prepare(S1, late))
            for _ in range(20):
                await asyncio.sleep(0)
            here.save(pid=record.pid, start_ticks=record.start_ticks)
        await waiting

    with pytest.raises(ConcurrentUpdate, match="is here already"):
        asyncio.run(asyncio.wait_for(go(), 10))
    assert host.guests[S1].alive


def test_a_prepare_that_waited_while_its_move_was_given_up_leaves_nothing(config: AgentConfig) -> None:
    host = ShardHost(config)
    moves = MoveAgent(host, config)
    late = PrepareRequest(
        move=MOVE, epoch=1, source=NodeId("n2"), resources=Resources(vcpus=1, memory_gib=0.125), image="records",
        address="10.9.0.2/16", mac="52:54:00:09:00:02", disk_mib=1, profile=PROFILE,
    )  # fmt: skip

    async def overtaken() -> None:
        await host.carving.acquire()
        waiting = asyncio.create_task(moves.prepare(S1, late))
        await asyncio.sleep(0)
        await moves.abort(S1, command(2))
        host.carving.release()
        await waiting

    with pytest.raises(StaleEpoch):
        asyncio.run(overtaken())
    assert host.guests == {}
