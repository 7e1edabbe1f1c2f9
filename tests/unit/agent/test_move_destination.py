"""The destination's half of a move against a QEMU that is a script: what waits, what runs, what is cleared away."""

import asyncio
import os
import signal

import pytest

from agent.config import AgentConfig
from agent.moves import MoveAgent
from agent.shards import ShardHost
from agent.wire import (
    DestinationStatus,
    Landing,
    MemoryDigest,
    PrepareRequest,
)
from engine.errors import ConcurrentUpdate, MoveFailed, StaleEpoch
from engine.model.capacity import Resources
from engine.model.ids import MoveId, NodeId, ShardId
from tests.unit.agent.conftest import PROFILE
from tests.unit.agent.test_moves import (
    LANDING,
    MOVE,
    S1,
    Leave,
    ScriptedMonitor,
    SilentMonitor,
    agent,
    command,
    commit_request,
)
from tests.unit.agent.test_node_guest import on_disk


def test_what_was_given_away_is_cleared_by_its_own_move_only(config: AgentConfig, left_behind: Leave) -> None:
    left_behind(move="m1", sent_for="m1", ceded_epoch=2)
    moves, host = agent(config, ScriptedMonitor(running=False))
    asyncio.run(moves.destination.abort(S1, command(2, MoveId("m2"))))
    assert S1 in host.guests
    assert not asyncio.run(moves.destination.abort(S1, command(2))).present
    assert S1 not in host.guests


def test_a_landing_runs_only_once_its_memory_is_there(
    config: AgentConfig, left_behind: Leave, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_behind(move="m1", sent_for="m1", incoming=True)
    monitor = ScriptedMonitor(migration="active", running=False)
    moves, host = agent(config, monitor)
    monkeypatch.setattr("agent.move_destination._ARRIVAL_SECONDS", 0.0)
    with pytest.raises(MoveFailed, match="has not arrived"):
        asyncio.run(moves.destination.commit(S1, commit_request(2)))
    monitor.migration = "completed"
    monitor.nodes = {"landing"}
    asyncio.run(moves.destination.commit(S1, commit_request(2)))
    asyncio.run(moves.destination.commit(S1, commit_request(2)))
    assert monitor.done.count("cont") == 1
    assert (host.guests[S1].record.incoming, host.guests[S1].record.move) == (False, None)
    assert monitor.done.index("nbd-server-stop") < monitor.done.index("blockdev-del") < monitor.done.index("cont")


def test_a_landing_makes_ready_while_its_memory_comes(config: AgentConfig, left_behind: Leave) -> None:
    """And what its record says before it runs is what an agent that dies over it must find."""
    left_behind(move="m1", sent_for="m1", incoming=True)
    monitor = ScriptedMonitor(migration="active", running=False)
    moves, host = agent(config, monitor)

    async def go() -> None:
        told = asyncio.create_task(moves.destination.commit(S1, commit_request(2)))
        while "nbd-server-stop" not in monitor.done:
            await asyncio.sleep(0)
        assert on_disk(host.guests[S1].folder).incoming
        monitor.migration = "completed"
        monitor.stirred.set()
        await told

    asyncio.run(asyncio.wait_for(go(), 10))
    assert monitor.running
    assert not host.guests[S1].record.incoming


def test_a_guest_that_died_waiting_is_not_begun_anew_by_what_comes_late(
    config: AgentConfig, left_behind: Leave, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its disk may be complete, and the only one that is left."""
    record = left_behind(move="m1", incoming=True, alive=False)
    host = ShardHost(config)
    monkeypatch.setattr(host, "image", lambda *_, **_more: asyncio.sleep(0))
    late = PrepareRequest(
        move=MOVE, epoch=1, source=NodeId("n2"), resources=record.resources, image="records",
        address="10.9.0.2/16", mac="52:54:00:09:00:02", disk_mib=1, profile=PROFILE,
    )  # fmt: skip
    with pytest.raises(MoveFailed, match="has died"):
        asyncio.run(MoveAgent(host, config).destination.prepare(S1, late))
    assert S1 in host.guests


@pytest.mark.parametrize("committing", [False, True])
def test_a_landing_whose_disk_was_not_closed_is_closed_by_the_repeat(
    config: AgentConfig, left_behind: Leave, committing: bool
) -> None:
    """Else it would be told to run for ever, and QEMU refuse it while another node has its disk."""
    left_behind(move="m1" if committing else None, sent_for="m1", incoming=False, committing=True)
    monitor = ScriptedMonitor(migration="completed", running=False)
    monitor.nodes = {"landing"}
    moves, host = agent(config, monitor)
    if committing:
        asyncio.run(moves.destination.commit(S1, commit_request(2)))
    else:
        asyncio.run(moves.destination.finish_commit(host.guests[S1]))
    assert monitor.nodes == set()
    assert monitor.done.index("blockdev-del") < monitor.done.index("cont")


def test_a_landing_that_does_not_listen_is_prepared_anew(
    config: AgentConfig, left_behind: Leave, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent has died over it: nothing can come there."""
    record = left_behind(move="m1", incoming=True)
    moves, host = agent(config, ScriptedMonitor())
    monkeypatch.setattr(host, "image", lambda *_, **_more: asyncio.sleep(0))
    begun: list[ShardId] = []

    async def prepared(shard: ShardId, _request: PrepareRequest) -> Landing:
        begun.append(shard)
        return LANDING

    monkeypatch.setattr(moves.destination, "_prepare_new", prepared)
    request = PrepareRequest(
        move=MOVE, epoch=1, source=NodeId("n2"), resources=record.resources, image="records",
        address="10.9.0.2/16", mac="52:54:00:09:00:02", disk_mib=1, profile=PROFILE,
    )  # fmt: skip
    monitor = host.guests[S1].monitor
    assert isinstance(monitor, ScriptedMonitor)
    monitor.migration = "setup"
    assert asyncio.run(moves.destination.prepare(S1, request)).node == "n1"
    assert begun == []
    monitor.migration = "none"
    assert asyncio.run(moves.destination.prepare(S1, request)) == LANDING
    assert begun == [S1]
    assert S1 not in host.guests


def test_a_landing_whose_memory_differs_does_not_run_and_says_where(
    config: AgentConfig, left_behind: Leave, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_behind(move="m1", sent_for="m1", incoming=True)
    monitor = ScriptedMonitor(migration="completed", running=False)
    moves, host = agent(config, monitor)
    monkeypatch.setattr("agent.memory.digest", lambda _pid: MemoryDigest(sums_hex="0000000000000001"))
    answer = asyncio.run(moves.destination.commit(S1, commit_request(2, "0000000000000002")))
    assert answer.differing == (1,)
    assert not monitor.running
    assert host.guests[S1].record.incoming
    assert asyncio.run(moves.destination.commit(S1, commit_request(2, "0000000000000001"))).differing == ()
    assert monitor.running


def test_a_landing_that_has_run_cannot_be_aborted(config: AgentConfig, left_behind: Leave) -> None:
    left_behind(move="m1", sent_for="m1", incoming=False)
    moves, host = agent(config, ScriptedMonitor())
    asyncio.run(moves.destination.abort(S1, command(2)))
    assert host.guests[S1].alive


def test_an_aborted_landing_is_proven_dead(config: AgentConfig, left_behind: Leave) -> None:
    record = left_behind(move="m1", sent_for="m1", incoming=True)
    moves, host = agent(config, ScriptedMonitor(running=False))
    assert not asyncio.run(moves.destination.abort(S1, command(1))).present
    assert S1 not in host.guests
    assert record.pid


def test_a_guest_whose_qemu_has_stalled_is_not_told_to_be_gone(
    config: AgentConfig, left_behind: Leave, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may run, with part of its memory still to come: only ``present`` false is proof that it is dead."""
    monkeypatch.setattr("agent.move_destination.GONE_SECONDS", 0.1)
    left_behind(move="m1", receiving=True)
    moves, host = agent(config, SilentMonitor())
    here = asyncio.run(moves.destination.status(S1))
    assert here == DestinationStatus(present=True, silent=True, committed=True, receiving=True)
    assert asyncio.run(moves.destination.abort(S1, command(2))).present
    os.kill(host.guests[S1].record.pid, signal.SIGKILL)
    assert not asyncio.run(moves.destination.status(S1)).present


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
            waiting = asyncio.create_task(MoveAgent(host, config).destination.prepare(S1, late))
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
        waiting = asyncio.create_task(moves.destination.prepare(S1, late))
        await asyncio.sleep(0)
        await moves.destination.abort(S1, command(2))
        host.carving.release()
        await waiting

    with pytest.raises(StaleEpoch):
        asyncio.run(overtaken())
    assert host.guests == {}
