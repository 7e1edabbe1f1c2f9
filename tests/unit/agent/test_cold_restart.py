"""A disk that is complete, and memory that never comes."""

import asyncio

import pytest

from agent.cold_restart import ColdRestartAgent
from agent.config import AgentConfig
from agent.guest import GuestRecord, alive
from agent.node_guest import Guest
from engine.errors import MoveFailed
from tests.unit.agent.test_moves import S1, Leave, ScriptedMonitor, SilentMonitor, agent, command


def test_memory_that_never_comes_is_given_up_and_the_disk_is_booted(
    config: AgentConfig, left_behind: Leave, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_behind(move="m1", incoming=True)
    monitor = ScriptedMonitor(migration="active", running=False)
    moves, host = agent(config, monitor)
    booted: list[GuestRecord] = []
    told: list[bool] = []

    async def boot(here: Guest) -> None:
        booted.append(here.record)
        here.save(booting=len(booted) < 2)  # the first time an agent dies over it

    monkeypatch.setattr(host, "boot", boot)
    for _ in range(3):
        asyncio.run(ColdRestartAgent(host, moves).restart(S1, command(2)))
        told.append(asyncio.run(moves.destination.status(S1)).booting)
    assert told == [True, False, False]  # until then it is not done
    assert [(record.incoming, record.move) for record in booted] == [(False, None)] * 2
    assert not host.guests[S1].alive  # what waited for memory is dead before anything is booted


def test_a_guest_whose_qemu_is_stuck_at_a_page_is_ended_and_its_disk_booted(
    config: AgentConfig, left_behind: Leave, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The controller has waited for it: nobody asks a monitor that never answers."""
    monkeypatch.setattr("agent.move_destination.GONE_SECONDS", 0.0)
    stuck = left_behind(move="m1", receiving=True)
    moves, host = agent(config, SilentMonitor())

    async def boot(here: Guest) -> None:
        here.save(booting=False)

    monkeypatch.setattr(host, "boot", boot)
    asyncio.run(ColdRestartAgent(host, moves).restart(S1, command(2)))
    assert not alive(stuck)
    assert (host.guests[S1].record.receiving, host.guests[S1].record.move) == (False, None)


def test_memory_that_has_come_is_not_thrown_away(
    config: AgentConfig, left_behind: Leave, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_behind(move="m1", incoming=True)
    moves, host = agent(config, ScriptedMonitor(migration="completed", running=False))
    with pytest.raises(MoveFailed, match="has arrived"):
        asyncio.run(ColdRestartAgent(host, moves).restart(S1, command(2)))
    assert host.guests[S1].record.incoming


def test_the_guest_stops_before_the_mirror_ends_and_only_a_complete_one_will_do(
    config: AgentConfig, left_behind: Leave
) -> None:
    left_behind(move="m1", sent_for="m1")
    monitor = ScriptedMonitor(migration="active", jobs=1)
    moves, host = agent(config, monitor)
    for _ in range(2):
        status = asyncio.run(ColdRestartAgent(host, moves).cease(S1, command(1)))
        assert (status.mirrored, status.running) == (True, False)
    assert monitor.done == ["stop", "block-job-cancel"]


def test_a_disk_whose_mirror_breaks_as_the_guest_stops_is_not_given_away(
    config: AgentConfig, left_behind: Leave
) -> None:
    """To the guest its last write has succeeded: it is on this side alone."""

    class Breaking(ScriptedMonitor):
        def _effect(self, command: str) -> None:
            super()._effect(command)
            if command == "stop":
                self.end_mirror("No space left on device")

    left_behind(move="m1", sent_for="m1")
    monitor = Breaking(migration="active", jobs=1)
    moves, host = agent(config, monitor)
    for _ in range(2):
        with pytest.raises(MoveFailed, match="not mirrored"):
            asyncio.run(ColdRestartAgent(host, moves).cease(S1, command(1)))
    assert not host.guests[S1].mirrored
    assert asyncio.run(moves.source.resume(S1, command(2))).running


@pytest.mark.parametrize(("jobs", "ready"), [(0, True), (1, False)])
def test_a_disk_that_is_not_mirrored_is_not_given_away(
    config: AgentConfig, left_behind: Leave, jobs: int, ready: bool
) -> None:
    left_behind(move="m1", sent_for="m1")
    monitor = ScriptedMonitor(migration="active", jobs=jobs, ready=ready)
    moves, host = agent(config, monitor)
    with pytest.raises(MoveFailed, match="not mirrored"):
        asyncio.run(ColdRestartAgent(host, moves).cease(S1, command(1)))
    assert monitor.running
