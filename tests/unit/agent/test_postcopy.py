"""What post-copy asks of QEMU, in which order, and what is refused."""

import asyncio
from typing import Any

import pytest

from agent.config import AgentConfig
from agent.monitor import GuestRefused
from agent.postcopy import PostCopyAgent, allow_post_copy
from agent.wire import MoveCommand, TuneRequest
from engine.errors import ConcurrentUpdate, MoveFailed, NotFound
from engine.model.ids import MoveId
from tests.unit.agent.test_moves import MOVE, S1, Leave, ScriptedMonitor, agent, command, commit_request, mirror_request


class PostCopyMonitor(ScriptedMonitor):
    """A QEMU in which ``migrate-continue`` lets the destination run first."""

    def __init__(self, *, migration: str, running: bool = False, refuses: str = "") -> None:
        super().__init__(migration=migration, running=running)
        self.refuses = refuses
        self.removed: list[str] = []
        self.collections = 1

    async def execute(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
        if command == "object-del":
            self.removed.append((arguments or {})["id"])
        if command == self.refuses:
            raise GuestRefused("not allowed")
        answer = await super().execute(command, arguments)
        return answer | {"ram": {"dirty-sync-count": self.collections}} if command == "query-migrate" else answer

    def _effect(self, command: str) -> None:
        super()._effect(command)
        if command == "migrate-continue":
            self.migration = "postcopy-active"
        if command == "migrate-pause":
            self.migration = "postcopy-paused"
        if command in ("migrate-recover", "migrate"):
            self.migration = "postcopy-active"


def test_the_guest_pauses_for_the_switchover_however_much_is_left(config: AgentConfig, left_behind: Leave) -> None:
    left_behind(move="m1", sent_for="m1")
    monitor = PostCopyMonitor(migration="active", running=True)
    moves, _ = agent(config, monitor)
    asyncio.run(moves.source.tune(S1, TuneRequest(move=MOVE, epoch=1, post_copy=True)))
    assert monitor.done == ["migrate-start-postcopy"]


def test_a_guest_that_may_have_lost_a_page_never_runs_before_it_is_compared(
    config: AgentConfig, left_behind: Leave
) -> None:
    """TCG only: there QEMU loses pages where it collects the marks of a guest that runs."""
    left_behind(move="m1", sent_for="m1")
    monitor = PostCopyMonitor(migration="active", running=True)
    monitor.collections = 2
    moves, host = agent(config, monitor)
    request = TuneRequest(move=MOVE, epoch=1, post_copy=True)
    with pytest.raises(MoveFailed, match="no post-copy"):
        asyncio.run(moves.source.tune(S1, request))
    assert monitor.done == []
    here = host.guests[S1]
    here.save(profile=here.record.profile.model_copy(update={"accelerator": "kvm"}))
    asyncio.run(moves.source.tune(S1, request))
    assert monitor.done == ["migrate-start-postcopy"]


def test_a_guest_may_be_slowed_down_only_once_it_is_asked_for(
    config: AgentConfig, left_behind: Leave, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.memory.PageSample", lambda _pid: None)
    left_behind(move="m1")
    said: list[tuple[str, Any]] = []

    class Noting(PostCopyMonitor):
        async def execute(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
            if command.startswith("migrate-set"):
                said.append((command, arguments))
            answer = await super().execute(command, arguments)
            return answer | {"ram": {"dirty-sync-count": 1}} if command == "query-migrate" else answer

    monitor = Noting(migration="none", running=True)
    monitor.jobs = 1
    moves, _ = agent(config, monitor)
    request = mirror_request().model_copy(update={"auto_converge": True})
    asyncio.run(moves.source.precopy(S1, request))
    asyncio.run(moves.source.tune(S1, TuneRequest(move=MOVE, epoch=1, throttle=True)))
    asked = {one["capability"]: one["state"] for one in said[0][1]["capabilities"]}
    assert asked.pop("events")
    assert asked == {"pause-before-switchover": True, "postcopy-ram": False, "auto-converge": True}
    assert [one["throttle-trigger-threshold"] for _, one in said[1:]] == [100, 50]


def test_the_source_has_done_its_part_once_the_destination_may_run(config: AgentConfig, left_behind: Leave) -> None:
    left_behind(move="m1", sent_for="m1")
    monitor = PostCopyMonitor(migration="pre-switchover")
    moves, _ = agent(config, monitor)
    answer = asyncio.run(moves.source.proceed(S1, command(2)))
    assert (answer.status.migration, answer.memory) == ("postcopy-active", None)


def test_the_export_is_closed_before_the_disk_is_the_guests_own(config: AgentConfig, left_behind: Leave) -> None:
    left_behind(move="m1", incoming=True)
    monitor = PostCopyMonitor(migration="active")
    monitor.nodes = {"landing"}
    moves, _ = agent(config, monitor)
    asyncio.run(PostCopyAgent(moves, config).claim(S1, command(2)))
    assert monitor.done == ["nbd-server-stop", "blockdev-del"]


def test_a_guest_that_runs_before_all_is_here_stays_in_its_move_until_it_is(
    config: AgentConfig, left_behind: Leave
) -> None:
    left_behind(move="m1", incoming=True)
    monitor = PostCopyMonitor(migration="postcopy-active")
    moves, host = agent(config, monitor)
    record = lambda: host.guests[S1].record  # noqa: E731
    asyncio.run(moves.destination.commit(S1, commit_request(2)))
    assert (record().receiving, record().move, record().incoming, monitor.running) == (True, MOVE, False, True)
    assert monitor.removed == ["thread-landing"], "a connection that is made again needs its certificate"
    assert asyncio.run(host.status(S1)).move == MOVE, "another move must not begin"
    with pytest.raises(ConcurrentUpdate):
        asyncio.run(moves.source.mirror(S1, mirror_request(epoch=2, move=MoveId("m2"))))
    monitor.migration = "completed"
    asyncio.run(moves.destination.commit(S1, commit_request(2)))
    assert (record().receiving, record().move) == (False, None)
    assert monitor.removed[1:] == ["tls-move", "authz-move"]


def test_a_connection_that_broke_is_made_again_from_both_ends(config: AgentConfig, left_behind: Leave) -> None:
    left_behind(move="m1", receiving=True)
    monitor = PostCopyMonitor(migration="postcopy-paused", running=True)
    moves, host = agent(config, monitor)
    landing = asyncio.run(PostCopyAgent(moves, config).listen_again(S1, command(2)))
    assert monitor.done == ["migrate-recover"]
    assert landing.memory_port == host.guests[S1].record.memory_port
    source = PostCopyMonitor(migration="postcopy-active")
    host.guests[S1].monitor = source  # type: ignore[assignment]
    asyncio.run(PostCopyAgent(moves, config).send_again(S1, mirror_request(epoch=2)))
    assert source.done == ["migrate-pause", "migrate"], "one end may not have noticed yet"


def test_a_source_that_has_sent_part_of_its_memory_away_never_runs_again(
    config: AgentConfig, left_behind: Leave
) -> None:
    left_behind(move="m1", sent_for="m1", ceded_epoch=2)
    monitor = PostCopyMonitor(migration="postcopy-paused")
    moves, host = agent(config, monitor)
    with pytest.raises(NotFound, match="for good"):
        asyncio.run(moves.source.resume(S1, MoveCommand(move=MOVE, epoch=3)))
    assert "cont" not in monitor.done
    assert (host.guests[S1].record.move, host.guests[S1].alive) == (None, False)


def test_a_kernel_that_keeps_page_faults_to_itself_only_means_no_post_copy(
    config: AgentConfig, left_behind: Leave
) -> None:
    left_behind(move="m1", incoming=True)
    for refuses, possible in (("migrate-set-capabilities", False), ("", True)):
        moves, host = agent(config, PostCopyMonitor(migration="none", refuses=refuses))
        assert moves is not None
        assert asyncio.run(allow_post_copy(host.guests[S1])) is possible
