"""The agent's halves of a move against a QEMU that is a script: what is refused, and what a repeat does."""

import asyncio
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
    SendRequest,
    SwitchoverRequest,
)
from engine.errors import NotFound, UsageError
from engine.model.ids import MoveId, NodeId, ShardId

S1, MOVE = ShardId("s1"), MoveId("m1")
LANDING = Landing(node=NodeId("n2"), host="127.0.0.1", memory_port=1, disk_port=2)
Leave = Callable[..., GuestRecord]


class ScriptedMonitor:
    """Answers from ``state`` and notes every command that changes something."""

    def __init__(self, *, migration: str = "none", running: bool = True, jobs: int = 0, ready: bool = True) -> None:
        self.migration, self.running, self.jobs, self.ready = migration, running, jobs, ready
        self.done: list[str] = []
        self.stirred = asyncio.Event()
        self.after_migrate: str | None = None
        self.rest_is_lost = False
        self.mirror_error: str | None = None
        """With which its mirror ends."""
        self.concluded: list[dict[str, Any]] = []
        self.nodes: set[str] = set()

    async def execute(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
        if command == "query-migrate":
            return {"status": self.migration, "ram": {"dirty-sync-count": 1}}
        if command == "query-status":
            return {"running": self.running, "status": "running" if self.running else "paused"}
        if command == "query-block-jobs":
            mirror = {"device": "mirror-move", "status": "ready", "ready": self.ready, "offset": 5, "len": 5}
            return [mirror] * self.jobs + self.concluded
        if command == "blockdev-add":
            self.nodes.add((arguments or {})["node-name"])
        if command == "blockdev-del":
            if (arguments or {})["node-name"] not in self.nodes:
                raise GuestRefused("not there")
            self.nodes.remove((arguments or {})["node-name"])
        if command == "object-del" and command not in self.done:
            raise GuestRefused("not there")
        if command == "job-dismiss" and not self.concluded:
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
        if command == "block-job-cancel" and self.jobs:
            self.end_mirror(self.mirror_error)
        if command == "job-dismiss":
            self.concluded = []
        if command == "migrate_cancel" and self.migration in ("active", "pre-switchover"):
            self.migration = "cancelled"
        if command == "migrate-continue" and self.migration == "pre-switchover":
            self.migration = "failed" if self.rest_is_lost else "completed"
            self.running = self.rest_is_lost  # QEMU lets it run on

    def end_mirror(self, error: str | None) -> None:
        said = {"device": "mirror-move", "status": "concluded", "ready": False, "offset": 5, "len": 5}
        self.jobs, self.concluded = 0, [said | ({"error": error} if error else {})]

    async def close(self) -> None:
        return


class SilentMonitor(ScriptedMonitor):
    """Of a process that dies, whose monitor is closed already; or of one that has stalled."""

    async def execute(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
        raise NotFound("QEMU's monitor does not answer")


def agent(config: AgentConfig, monitor: ScriptedMonitor) -> tuple[MoveAgent, ShardHost]:
    host = ShardHost(config)
    host.guests[S1].monitor = monitor  # type: ignore[assignment]
    return MoveAgent(host, config), host


def command(epoch: int, move: MoveId = MOVE) -> MoveCommand:
    return MoveCommand(move=move, epoch=epoch)


def switchover_request(*, send_rest: bool = False) -> SwitchoverRequest:
    return SwitchoverRequest(move=MOVE, epoch=1, send_rest=send_rest)


def commit_request(epoch: int, sums_hex: str | None = None) -> CommitRequest:
    memory = None if sums_hex is None else MemoryDigest(sums_hex=sums_hex)
    return CommitRequest(move=MOVE, epoch=epoch, memory=memory)


def mirror_request(epoch: int = 1, move: MoveId = MOVE) -> SendRequest:
    return SendRequest(move=move, epoch=epoch, landing=LANDING)


def test_ending_another_move_changes_nothing(config: AgentConfig, left_behind: Leave) -> None:
    left_behind(move="m1", sent_for="m1")
    monitor = ScriptedMonitor(migration="active", jobs=1)
    moves, host = agent(config, monitor)
    asyncio.run(moves.source.resume(S1, command(2, MoveId("m2"))))
    asyncio.run(moves.destination.abort(S1, command(2, MoveId("m2"))))
    assert monitor.done == []
    assert host.guests[S1].alive


def test_memory_is_read_after_the_shard_was_given_away_and_written_before_it_runs_only(
    config: AgentConfig, left_behind: Leave
) -> None:
    left_behind(move="m1", sent_for="m1")
    moves, _ = agent(config, ScriptedMonitor())
    with pytest.raises(UsageError, match="runs here"):
        asyncio.run(moves.source.memory(S1, MemoryRequest(move=MOVE, epoch=1, indexes=(0,))))
    with pytest.raises(UsageError, match="has run here"):
        asyncio.run(
            moves.destination.patch(S1, PatchRequest(move=MOVE, epoch=1, patch=MemoryPatch(indexes=(), data_hex=())))
        )
