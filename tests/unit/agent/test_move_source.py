"""The source's half of a move against a QEMU that is a script: what is refused, and what a repeat does."""

import asyncio
import json
import os
import signal
import time
from typing import Any

import pytest

from agent.config import AgentConfig
from agent.guest import stopped
from agent.wire import (
    MemoryDigest,
    TuneRequest,
)
from engine.errors import ConcurrentUpdate, MoveFailed, NotFound, ProviderUnavailable, StaleEpoch
from engine.model.ids import MoveId
from tests.unit.agent.test_moves import (
    MOVE,
    S1,
    Leave,
    ScriptedMonitor,
    SilentMonitor,
    agent,
    command,
    mirror_request,
    switchover_request,
)


def test_a_shard_takes_part_in_one_move_at_a_time(config: AgentConfig, left_behind: Leave) -> None:
    left_behind()
    moves, _ = agent(config, ScriptedMonitor())
    asyncio.run(moves.source.mirror(S1, mirror_request()))
    with pytest.raises(ConcurrentUpdate, match="another move"):
        asyncio.run(moves.source.mirror(S1, mirror_request(move=MoveId("m2"))))


def test_mirroring_again_starts_no_second_mirror(config: AgentConfig, left_behind: Leave) -> None:
    left_behind()
    monitor = ScriptedMonitor()
    moves, _ = agent(config, monitor)
    for _ in range(2):
        assert asyncio.run(moves.source.mirror(S1, mirror_request())).mirror_ready
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
        await moves.source.mirror(S1, mirror_request())

    asyncio.run(again())
    assert (here.mirrored, here.exact, here.digesting) == (False, False, None)


def test_memory_does_not_go_before_the_disk(config: AgentConfig, left_behind: Leave) -> None:
    left_behind(move="m1", sent_for="m1")
    monitor = ScriptedMonitor()
    moves, _ = agent(config, monitor)
    with pytest.raises(MoveFailed, match="before the disk"):
        asyncio.run(moves.source.precopy(S1, mirror_request()))
    assert "migrate" not in monitor.done


def test_what_qemu_says_of_an_earlier_move_is_not_taken_for_this_one(
    config: AgentConfig, left_behind: Leave, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a shard of which one move has failed could never move again."""
    left_behind(sent_for="m0")
    monitor = ScriptedMonitor(migration="failed")
    moves, host = agent(config, monitor)
    assert asyncio.run(moves.source.mirror(S1, mirror_request())).migration == "none"
    monkeypatch.setattr("agent.memory.PageSample", lambda _pid: None)
    monitor.after_migrate = "active"
    assert asyncio.run(moves.source.precopy(S1, mirror_request())).migration == "active"
    assert host.guests[S1].record.sent_for == "m1"
    monitor.migration = "failed"
    assert asyncio.run(moves.source.status(S1)).migration == "failed"


def test_a_limit_that_the_controller_sets_is_not_set_back(config: AgentConfig, left_behind: Leave) -> None:
    left_behind(move="m1", sent_for="m1")
    moves, host = agent(config, ScriptedMonitor(migration="active"))
    host.guests[S1].first_pass = object()  # type: ignore[assignment]
    asyncio.run(moves.source.tune(S1, TuneRequest(move=MOVE, epoch=1, downtime_limit_ms=500)))
    assert host.guests[S1].first_pass is None


def test_the_switchover_ends_the_mirror_while_the_guest_is_paused(config: AgentConfig, left_behind: Leave) -> None:
    left_behind(move="m1", sent_for="m1")
    monitor = ScriptedMonitor(migration="pre-switchover", running=False, jobs=1)
    moves, _ = agent(config, monitor)
    status = asyncio.run(moves.source.switchover(S1, switchover_request(), 1.0))
    assert (status.migration, status.mirror_present, status.disk_bytes_done) == ("pre-switchover", False, 5)
    assert monitor.jobs == 0
    assert asyncio.run(moves.source.switchover(S1, switchover_request(), 1.0)).mirrored


@pytest.mark.parametrize("lost", [False, True])
def test_the_rest_goes_at_once_and_the_guest_runs_on_by_the_stores_word_only(
    config: AgentConfig, left_behind: Leave, lost: bool
) -> None:
    left_behind(move="m1", sent_for="m1")
    monitor = ScriptedMonitor(migration="pre-switchover", running=False, jobs=1)
    monitor.rest_is_lost = lost
    moves, host = agent(config, monitor)
    here = host.guests[S1]

    async def go() -> None:
        status = await moves.source.switchover(S1, switchover_request(send_rest=True), 1.0)
        assert (status.migration, status.mirrored, status.exact, here.record.handing_over) == ("device",) + (True,) * 3
        assert here.sending_rest is not None
        await here.sending_rest
        assert monitor.done == ["block-job-cancel", "migrate-continue"] + ["stop"] * lost
        status = await moves.source.status(S1)
        assert (status.running, status.mirrored) == (False, not lost)
        assert (await moves.source.switchover(S1, switchover_request(send_rest=True), 1.0)) == status
        assert (await moves.source.resume(S1, command(2))).running

    asyncio.run(go())
    assert (here.record.move, here.record.handing_over, here.mirrored) == (None, False, False)


def test_qemu_is_told_before_the_controller_is_answered_and_the_disk_knows_before_qemu(
    config: AgentConfig, left_behind: Leave
) -> None:
    class Reading(ScriptedMonitor):
        async def execute(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
            if command == "migrate-continue":
                assert json.loads((here.folder / "shard.json").read_text())["handing_over"]
            return await super().execute(command, arguments)

    left_behind(move="m1", sent_for="m1")
    monitor = Reading(migration="pre-switchover", running=False, jobs=1)
    moves, host = agent(config, monitor)
    here = host.guests[S1]

    async def go() -> list[str]:
        await moves.source.switchover(S1, switchover_request(send_rest=True), 1.0)
        return list(monitor.done)

    assert asyncio.run(go()) == ["block-job-cancel", "migrate-continue"]


def test_qemu_ends_the_mirror_while_the_record_is_put_in_its_place(config: AgentConfig, left_behind: Leave) -> None:
    seen: list[tuple[str, bool]] = []

    class Ending(ScriptedMonitor):
        """The end of its mirror takes a few looks."""

        looks = 3

        async def execute(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
            if command == "query-block-jobs" and "block-job-cancel" in self.done and self.looks:
                self.looks -= 1
                return [{"device": "mirror-move", "ready": True, "offset": 5, "len": 5}]
            if command in ("block-job-cancel", "migrate-continue"):
                seen.append((command, here.record.handing_over))
            return await super().execute(command, arguments)

    left_behind(move="m1", sent_for="m1")
    monitor = Ending(migration="pre-switchover", running=False, jobs=1)
    moves, host = agent(config, monitor)
    here = host.guests[S1]
    status = asyncio.run(moves.source.switchover(S1, switchover_request(send_rest=True), 1.0))
    assert (status.mirrored, here.mirrored, monitor.looks) == (True, True, 0)
    assert seen == [("block-job-cancel", False), ("migrate-continue", True)]


def test_a_record_that_cannot_be_put_in_its_place_keeps_the_rest_here(
    config: AgentConfig, left_behind: Leave, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    left_behind(move="m1", sent_for="m1")
    monitor = ScriptedMonitor(migration="pre-switchover", running=False, jobs=1)
    moves, host = agent(config, monitor)
    monkeypatch.setattr("agent.node_guest.put_in_place", full)
    with pytest.raises(OSError, match="No space left"):
        asyncio.run(moves.source.switchover(S1, switchover_request(send_rest=True), 1.0))
    assert monitor.done == ["block-job-cancel"]
    assert not host.guests[S1].record.handing_over


def test_what_is_written_while_a_switchover_waits_is_not_lost_at_the_pause(
    config: AgentConfig, left_behind: Leave
) -> None:
    class Writing(ScriptedMonitor):
        async def execute(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
            if command == "query-migrate" and here.record.sent_for == "m1":
                here.save(sent_for="m1, written meanwhile")
            return await super().execute(command, arguments)

    left_behind(move="m1", sent_for="m1")
    moves, host = agent(config, Writing(migration="pre-switchover", running=False, jobs=1))
    here = host.guests[S1]
    asyncio.run(moves.source.switchover(S1, switchover_request(send_rest=True), 1.0))
    kept = json.loads((here.folder / "shard.json").read_text())
    assert (kept["handing_over"], kept["sent_for"]) == (True, "m1, written meanwhile")
    assert here.record.sent_for == "m1, written meanwhile"


def test_a_pause_that_comes_with_the_last_look_is_not_left_to_the_next_call(
    config: AgentConfig, left_behind: Leave
) -> None:
    class Pausing(ScriptedMonitor):
        async def execute(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
            answer = await super().execute(command, arguments)
            self.migration, self.running = "pre-switchover", False
            return answer

    left_behind(move="m1", sent_for="m1")
    moves, _ = agent(config, Pausing(migration="active", jobs=1))
    assert asyncio.run(moves.source.switchover(S1, switchover_request(), 0.0)).mirrored


def test_a_disk_is_no_copy_any_more_once_its_guest_runs_on(config: AgentConfig, left_behind: Leave) -> None:
    left_behind(move="m1", sent_for="m1", handing_over=True)
    moves, host = agent(config, ScriptedMonitor(migration="device", running=True))
    host.guests[S1].mirrored = True
    assert not asyncio.run(moves.source.status(S1)).mirrored


def test_a_mirror_that_comes_late_does_not_write_over_a_disk_that_was_handed_over(
    config: AgentConfig, left_behind: Leave
) -> None:
    left_behind(move="m1", sent_for="m1", handing_over=True)
    monitor = ScriptedMonitor(migration="completed", running=False)
    moves, _ = agent(config, monitor)
    asyncio.run(moves.source.mirror(S1, mirror_request()))
    assert monitor.done == []


def test_a_mirror_that_is_cut_short_is_no_copy(config: AgentConfig, left_behind: Leave) -> None:
    left_behind(move="m1", sent_for="m1")
    monitor = ScriptedMonitor(migration="pre-switchover", running=False, jobs=1, ready=False)
    moves, _ = agent(config, monitor)
    for _ in range(2):
        assert not asyncio.run(moves.source.switchover(S1, switchover_request(send_rest=True), 1.0)).mirrored
    assert "migrate-continue" not in monitor.done


def test_the_source_says_how_long_ago_all_was_sent(config: AgentConfig, left_behind: Leave) -> None:
    left_behind(move="m1", sent_for="m1")
    moves, host = agent(config, ScriptedMonitor(migration="pre-switchover", running=False, jobs=1))

    async def go() -> float:
        await moves.source.switchover(S1, switchover_request(send_rest=True), 1.0)
        task = host.guests[S1].sending_rest
        assert task is not None
        await task
        host.guests[S1].sent_at -= 5.0  # type: ignore[operator]
        return (await moves.source.proceed(S1, command(2))).seconds_since_sent

    assert asyncio.run(go()) >= 5.0


def test_a_mirror_that_broke_off_is_not_taken_for_one_that_was_ended(config: AgentConfig, left_behind: Leave) -> None:
    left_behind(move="m1", sent_for="m1")
    moves, _ = agent(config, ScriptedMonitor(migration="pre-switchover", running=False, jobs=0))
    status = asyncio.run(moves.source.switchover(S1, switchover_request(), 1.0))
    assert (status.mirror_present, status.mirrored) == (False, False)


@pytest.mark.parametrize("send_rest", [False, True])
def test_a_mirror_that_ends_in_an_error_is_not_taken_for_one_that_was_ended(
    config: AgentConfig, left_behind: Leave, send_rest: bool
) -> None:
    """Its last flush did not get through: what the guest holds for written is not all there."""
    left_behind(move="m1", sent_for="m1")
    monitor = ScriptedMonitor(migration="pre-switchover", running=False, jobs=1)
    monitor.mirror_error = "Input/output error"
    moves, host = agent(config, monitor)
    with pytest.raises(MoveFailed, match="broke off"):
        asyncio.run(moves.source.switchover(S1, switchover_request(send_rest=send_rest), 1.0))
    assert not host.guests[S1].mirrored
    assert "migrate-continue" not in monitor.done
    assert asyncio.run(moves.source.resume(S1, command(2))).running
    assert (monitor.concluded, host.guests[S1].record.handing_over) == ([], False)


def test_a_guest_that_runs_on_is_not_stopped_by_an_agent_that_comes_after(
    config: AgentConfig, left_behind: Leave
) -> None:
    """What its record says the moment that it runs: one that finds it given away would stop it again."""
    seen: list[tuple[int, bool, str | None]] = []

    class Reading(ScriptedMonitor):
        async def execute(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
            if command == "cont":
                kept = json.loads((here.folder / "shard.json").read_text())
                seen.append((kept["ceded_epoch"], kept["handing_over"], kept["move"]))
            return await super().execute(command, arguments)

    left_behind(move="m1", sent_for="m1", ceded_epoch=2, handing_over=True)
    moves, host = agent(config, Reading(migration="completed", running=False))
    here = host.guests[S1]
    asyncio.run(moves.source.resume(S1, command(3)))
    assert seen == [(0, False, "m1")]
    assert here.record.move is None


def test_a_switchover_that_does_not_come_is_not_waited_for_without_end(config: AgentConfig, left_behind: Leave) -> None:
    left_behind(move="m1", sent_for="m1")
    moves, _ = agent(config, ScriptedMonitor(migration="active", jobs=1))
    assert asyncio.run(moves.source.switchover(S1, switchover_request(), 0.0)).migration == "active"


def test_after_the_commit_point_no_old_command_is_obeyed(
    config: AgentConfig, left_behind: Leave, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_behind(move="m1", sent_for="m1")
    monitor = ScriptedMonitor(migration="pre-switchover", running=False)
    moves, host = agent(config, monitor)
    monkeypatch.setattr("agent.memory.digest", lambda _pid: MemoryDigest(sums_hex="00000000"))
    assert asyncio.run(moves.source.proceed(S1, command(2))).status.migration == "completed"
    assert host.guests[S1].record.ceded_epoch == 2
    with pytest.raises(StaleEpoch):
        asyncio.run(moves.source.resume(S1, command(1)))
    with pytest.raises(StaleEpoch, match="given away at epoch 2"):
        asyncio.run(moves.source.resume(S1, command(2)))
    assert not monitor.running


def test_a_shard_given_back_runs_again_and_may_be_told_so_twice(config: AgentConfig, left_behind: Leave) -> None:
    left_behind(move="m1", sent_for="m1", ceded_epoch=2)
    monitor = ScriptedMonitor(migration="completed", running=False)
    moves, host = agent(config, monitor)
    for _ in range(2):
        assert asyncio.run(moves.source.resume(S1, command(3))).running
    assert monitor.done.count("cont") == 1
    assert (host.guests[S1].record.ceded_epoch, host.guests[S1].record.move) == (0, None)


def test_a_guest_that_was_given_away_is_stopped_when_qemu_runs_it_on(config: AgentConfig, left_behind: Leave) -> None:
    left_behind(move="m1", sent_for="m1")
    monitor = ScriptedMonitor(migration="failed", running=True)
    moves, _ = agent(config, monitor)
    answer = asyncio.run(moves.source.proceed(S1, command(2)))
    assert (answer.status.migration, answer.status.running, answer.memory) == ("failed", False, None)


def test_a_guest_that_has_died_in_its_move_may_be_booted_again(config: AgentConfig, left_behind: Leave) -> None:
    left_behind(move="m1", sent_for="m1", ceded_epoch=2, alive=False)
    moves, host = agent(config, ScriptedMonitor())
    with pytest.raises(NotFound):
        asyncio.run(moves.source.resume(S1, command(3)))
    assert (host.guests[S1].record.move, host.guests[S1].record.ceded_epoch) == (None, 0)


def test_a_guest_whose_qemu_has_stalled_is_not_told_to_be_gone(
    config: AgentConfig, left_behind: Leave, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its destination would be booted anew, though the memory that it waits for is still to be had."""
    monkeypatch.setattr("agent.move_source.GONE_SECONDS", 0.1)
    left_behind(move="m1", sent_for="m1", ceded_epoch=2)
    moves, host = agent(config, SilentMonitor())
    with pytest.raises(ProviderUnavailable, match="does not answer"):
        asyncio.run(moves.source.status(S1))
    os.kill(host.guests[S1].record.pid, signal.SIGKILL)
    with pytest.raises(NotFound):
        asyncio.run(moves.source.status(S1))


def test_a_guest_that_was_stopped_with_its_lease_is_no_source_any_more(config: AgentConfig, left_behind: Leave) -> None:
    """It is continued only once the shard is given back: the move must not wait for it."""
    left_behind(move="m1", sent_for="m1")
    moves, host = agent(config, SilentMonitor())
    record = host.guests[S1].record
    os.kill(record.pid, signal.SIGSTOP)
    while not stopped(record):
        time.sleep(0.01)
    with pytest.raises(NotFound):
        asyncio.run(moves.source.status(S1))


def test_a_guest_that_is_still_dying_is_not_left_in_its_move(config: AgentConfig, left_behind: Leave) -> None:
    """Else it would be booted again as part of a move that is over, and could never move again."""
    left_behind(move="m1", sent_for="m1")
    moves, host = agent(config, SilentMonitor())
    here = host.guests[S1]

    async def dying() -> None:
        resumed = asyncio.create_task(moves.source.resume(S1, command(2)))
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
    monkeypatch.setattr("agent.move_source._DYING_SECONDS", 0.0)
    moves, host = agent(config, SilentMonitor())
    with pytest.raises(MoveFailed, match="does not answer"):
        asyncio.run(moves.source.resume(S1, command(2)))
    assert host.guests[S1].record.move == "m1"
