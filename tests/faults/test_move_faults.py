"""Two deaths in one move, or one and nobody who drives it: what the campaign of single faults does not try."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.guest import GuestRecord, start_ticks
from agent.image import read_records
from agent.record_client import read_log
from agent.wire import GuestState
from engine.model.ids import MoveId, NodeId, ShardId
from engine.model.move import MovePhase, MoveReport, MoveRequest
from engine.model.placement import NodeState
from engine.model.plan import MoveCause
from tests.faults.movers import MoverNursery
from tests.small_fleet import RunningClient, SmallFleet, wait_for

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(170)]


@pytest.fixture(scope="module")
def fleet() -> Iterator[SmallFleet]:
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("QEMU is not installed: no fault is injected into a live move")
    with tempfile.TemporaryDirectory(prefix="swt-") as folder, SmallFleet(Path(folder)) as running:
        yield running


@pytest.fixture(scope="module")
def nursery() -> Iterator[MoverNursery]:
    opened = MoverNursery()
    yield opened
    opened.close()


def test_a_destination_killed_after_the_commit_point_gives_the_shard_back(
    fleet: SmallFleet, nursery: MoverNursery
) -> None:
    client, request = _carve(fleet, "dst-late")
    _kill_in(fleet, nursery, request, MovePhase.COMMITTED)
    _kill_guest(fleet, "nB", "dst-late")
    report = _finished(fleet, nursery, request)
    assert report.phase is MovePhase.ABORTED
    assert (report.epoch_before, report.epoch_after) == (1, 3)
    _nothing_lost(fleet, client, "dst-late", on="nA")
    shard = fleet.shard_map.get(ShardId("dst-late"))
    assert (shard.node, shard.epoch) == ("nA", 3)
    fleet.clients(NodeId("nA")).release(ShardId("dst-late"), 3)


def test_a_guest_left_in_its_switchover_runs_on_by_itself_and_is_not_given_away_any_more(
    fleet: SmallFleet, nursery: MoverNursery
) -> None:
    """The listener of the test stands for a control plane whose moves hang: it answers, and drives none."""
    client, request = _carve(fleet, "left")
    _kill_in(fleet, nursery, request, MovePhase.SWITCHING)
    acked = client.acked()
    wait_for(lambda: client.acked() > acked + 20, 40, lambda: "the guest was left paused")
    shard = fleet.shard_map.get(ShardId("left"))
    assert (shard.node, shard.epoch) == ("nA", 2)

    report = _finished(fleet, nursery, request)
    assert (report.phase, report.epoch_before, report.epoch_after) == (MovePhase.ABORTED, 1, 2)
    _nothing_lost(fleet, client, "left", on="nA")
    fleet.clients(NodeId("nA")).release(ShardId("left"), 2)


def test_a_source_that_is_gone_after_the_commit_point_leaves_a_disk_that_is_booted(
    fleet: SmallFleet, nursery: MoverNursery
) -> None:
    client, request = _carve(fleet, "cold")
    _kill_in(fleet, nursery, request, MovePhase.COMMITTED)
    for node in fleet.names:  # all of it may have come by then: what waits for the rest ends with its connection
        _kill_guest(fleet, node, "cold")
    client.kill()
    fleet.shard_map.update_node(NodeId("nA"), state=NodeState.GONE)
    try:
        report = _finished(fleet, nursery, request)
    finally:
        fleet.shard_map.update_node(NodeId("nA"), state=NodeState.JOINED)
    assert (report.phase, report.strategy, report.epoch_after) == (MovePhase.CLEANED, "cold-restart", 2)
    assert "gone before its memory had arrived" in report.error
    acked = [entry.number for entry in read_log(client.log)]
    assert read_records(fleet.disk("nB", "cold"))[: len(acked)] == acked
    assert fleet.clients(NodeId("nB")).shard(ShardId("cold")).state is GuestState.RUNNING
    for node in ("nA", "nB"):
        fleet.clients(NodeId(node)).release(ShardId("cold"), 2)


def _carve(fleet: SmallFleet, name: str) -> tuple[RunningClient, MoveRequest]:
    shard, _ = fleet.carve(name, "nA", disk_mib=16)
    client = fleet.start_client(shard, every=0.02)
    client.wait_for_records(20)
    request = MoveRequest(
        id=MoveId(f"m-{name}"), shard=shard.id, source=NodeId("nA"), destination=NodeId("nB"),
        cause=MoveCause.OPERATOR,
    )  # fmt: skip
    return client, request


def _kill_in(fleet: SmallFleet, nursery: MoverNursery, request: MoveRequest, phase: MovePhase) -> None:
    """The controller dies as the move enters that phase."""
    mover = nursery.start(fleet.folder, request, wait_in=phase)
    assert mover.wait_for(phase)
    mover.kill()


def _finished(fleet: SmallFleet, nursery: MoverNursery, request: MoveRequest) -> MoveReport:
    """By a controller that comes after the one that was killed."""
    report = nursery.start(fleet.folder, request).hear_out()
    assert report is not None
    return report


def _nothing_lost(fleet: SmallFleet, client: RunningClient, name: str, *, on: str) -> None:
    client.wait_for_records(client.acked() + 20)
    assert _running_on(fleet, name) == [on]
    summary = client.finish()
    assert summary.error == ""
    assert read_records(fleet.disk(on, name)) == list(range(1, summary.sent + 1))


def _record(fleet: SmallFleet, node: str, name: str) -> GuestRecord | None:
    file = fleet.agent_folder(node) / "shards" / name / "shard.json"
    return GuestRecord.model_validate_json(file.read_bytes()) if file.exists() else None


def _running_on(fleet: SmallFleet, name: str) -> list[str]:
    """Nodes with a guest of the shard that may be executing: committed or never moved, and alive."""
    found = []
    for node in fleet.names:
        record = _record(fleet, node, name)
        if record is not None and start_ticks(record.pid) and record.lives_here:
            found.append(node)
    return found


def _kill_guest(fleet: SmallFleet, node: str, name: str) -> None:
    record = _record(fleet, node, name)
    assert record is not None
    os.kill(record.pid, signal.SIGKILL)
    wait_for(lambda: start_ticks(record.pid) == 0, 5, lambda: "the guest does not die")
