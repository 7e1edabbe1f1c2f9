"""Real processes killed in the middle of real moves: never two running copies, never an acknowledged record lost."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.guest import GuestRecord, start_ticks
from agent.image import read_records
from agent.wire import GuestState
from engine.migration.base import MoveContext
from engine.migration.sweep import sweep
from engine.model.ids import MoveId, NodeId, ShardId
from engine.model.move import MovePhase, MoveReport, MoveRequest
from engine.model.placement import NodeState
from engine.model.plan import MoveCause
from engine.store.moves import MoveHistory
from tests.small_fleet import RunningClient, SmallFleet, wait_for

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(170)]
_PROCESS = Path(__file__).parent / "control_process.py"
_ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def fleet() -> Iterator[SmallFleet]:
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("QEMU is not installed: no fault is injected into a live move")
    with tempfile.TemporaryDirectory(prefix="swt-") as folder, SmallFleet(Path(folder)) as running:
        yield running


@pytest.mark.parametrize(
    "phase",
    [MovePhase.MIRRORING, MovePhase.SWITCHING, MovePhase.COMMITTED],
)
def test_a_control_plane_killed_in_mid_move_finishes_the_move_when_it_is_back(
    fleet: SmallFleet, phase: MovePhase
) -> None:
    name = f"kill-{phase}"
    client, request = _carve(fleet, name)
    killed = _control(fleet, request, die_at=phase)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(_running_guests(fleet, name)) <= 1
    finished = _control(fleet, request)
    report = MoveReport.model_validate_json(finished.stdout.splitlines()[-1])

    assert (report.phase, report.error) == (MovePhase.CLEANED, "")
    _nothing_lost(fleet, client, name, on="nB")
    assert (fleet.shard_map.get(ShardId(name)).node, fleet.shard_map.get(ShardId(name)).epoch) == ("nB", 2)
    fleet.clients(NodeId("nB")).release(ShardId(name), 2)


def test_a_destination_killed_before_the_commit_point_leaves_the_source_running(fleet: SmallFleet) -> None:
    client, request = _carve(fleet, "dst-early")
    process = _control_process(fleet, request)
    _wait_for_phase(process, MovePhase.PRECOPY)
    _kill_guest(fleet, "nB", "dst-early")
    report = _finish(process)
    assert report.phase is MovePhase.ABORTED
    assert report.error
    _nothing_lost(fleet, client, "dst-early", on="nA")
    shard = fleet.shard_map.get(ShardId("dst-early"))
    assert (shard.node, shard.epoch) == ("nA", 2)
    fleet.clients(NodeId("nA")).release(shard.id, 2)


def test_a_destination_killed_after_the_commit_point_gives_the_shard_back(fleet: SmallFleet) -> None:
    client, request = _carve(fleet, "dst-late")
    killed = _control(fleet, request, die_at=MovePhase.COMMITTED)
    assert killed.returncode == -signal.SIGKILL
    _kill_guest(fleet, "nB", "dst-late")
    report = MoveReport.model_validate_json(_control(fleet, request).stdout.splitlines()[-1])
    assert report.phase is MovePhase.ABORTED
    assert (report.epoch_before, report.epoch_after) == (1, 3)
    _nothing_lost(fleet, client, "dst-late", on="nA")
    shard = fleet.shard_map.get(ShardId("dst-late"))
    assert (shard.node, shard.epoch) == ("nA", 3)
    fleet.clients(NodeId("nA")).release(ShardId("dst-late"), 3)


def test_a_source_killed_before_the_commit_point_ends_the_move_and_its_disk_has_every_record(fleet: SmallFleet) -> None:
    client, request = _carve(fleet, "src-early", answer_seconds=6)
    process = _control_process(fleet, request)
    _wait_for_phase(process, MovePhase.PRECOPY)
    _kill_guest(fleet, "nA", "src-early")
    report = _finish(process)
    summary = client.finish()
    assert report.phase is MovePhase.ABORTED
    stored = read_records(fleet.disk("nA", "src-early"))
    # The record under way when the guest died may be stored without having been acknowledged.
    assert stored[: summary.acked] == list(range(1, summary.acked + 1))
    assert len(stored) - summary.acked in (0, 1)
    assert not _running_guests(fleet, "src-early")
    fleet.clients(NodeId("nA")).release(ShardId("src-early"), 2)


def test_a_guest_left_in_its_switchover_runs_on_by_itself_and_is_not_given_away_any_more(
    fleet: SmallFleet,
) -> None:
    """The listener of the test stands for a control plane whose moves hang: it answers, and drives none."""
    client, request = _carve(fleet, "left")
    killed = _control(fleet, request, die_at=MovePhase.SWITCHING)
    assert killed.returncode == -signal.SIGKILL
    acked = client.acked()
    wait_for(lambda: client.acked() > acked + 20, 40, lambda: "the guest was left paused")
    shard = fleet.shard_map.get(ShardId("left"))
    assert (shard.node, shard.epoch) == ("nA", 2)

    report = MoveReport.model_validate_json(_control(fleet, request).stdout.splitlines()[-1])
    assert (report.phase, report.epoch_before, report.epoch_after) == (MovePhase.ABORTED, 1, 2)
    _nothing_lost(fleet, client, "left", on="nA")
    fleet.clients(NodeId("nA")).release(ShardId("left"), 2)


def test_a_source_that_is_gone_after_the_commit_point_leaves_a_disk_that_is_booted(fleet: SmallFleet) -> None:
    client, request = _carve(fleet, "cold", answer_seconds=6)
    killed = _control(fleet, request, die_at=MovePhase.COMMITTED)
    assert killed.returncode == -signal.SIGKILL
    _kill_guest(fleet, "nA", "cold")
    summary = client.finish()
    fleet.shard_map.update_node(NodeId("nA"), state=NodeState.GONE)
    try:
        report = MoveReport.model_validate_json(_control(fleet, request).stdout.splitlines()[-1])
    finally:
        fleet.shard_map.update_node(NodeId("nA"), state=NodeState.JOINED)
    assert (report.phase, report.strategy, report.epoch_after) == (MovePhase.CLEANED, "cold-restart", 2)
    assert "gone before its memory had arrived" in report.error
    stored = read_records(fleet.disk("nB", "cold"))
    assert stored[: summary.acked] == list(range(1, summary.acked + 1))
    assert fleet.clients(NodeId("nB")).shard(ShardId("cold")).state is GuestState.RUNNING
    for node in ("nA", "nB"):
        fleet.clients(NodeId(node)).release(ShardId("cold"), 2)


def test_an_agent_killed_in_mid_move_is_found_again_and_its_guest_outlives_it(fleet: SmallFleet) -> None:
    client, request = _carve(fleet, "agent")
    process = _control_process(fleet, request)
    _wait_for_phase(process, MovePhase.MIRRORING)
    fleet.stop_agent(NodeId("nA"), signal.SIGKILL)
    fleet.start_agent(NodeId("nA"))
    report = _settled(fleet, _finish(process))
    assert report.phase in (MovePhase.CLEANED, MovePhase.ABORTED)
    on = "nB" if report.phase is MovePhase.CLEANED else "nA"
    _nothing_lost(fleet, client, "agent", on=on)
    shard = fleet.shard_map.get(ShardId("agent"))
    assert shard.node == on
    fleet.clients(shard.node).release(shard.id, shard.epoch)


def _carve(fleet: SmallFleet, name: str, answer_seconds: float = 60) -> tuple[RunningClient, MoveRequest]:
    shard, _ = fleet.carve(name, "nA", disk_mib=16)
    client = fleet.start_client(shard, every=0.02, answer_seconds=answer_seconds)
    client.wait_for_records(20)
    request = MoveRequest(
        id=MoveId(f"m-{name}"), shard=shard.id, source=NodeId("nA"), destination=NodeId("nB"),
        cause=MoveCause.OPERATOR,
    )  # fmt: skip
    return client, request


def _control_process(fleet: SmallFleet, request: MoveRequest, die_at: MovePhase | None = None) -> subprocess.Popen[str]:
    command = [sys.executable, str(_PROCESS), str(fleet.folder), request.model_dump_json()]
    return subprocess.Popen(
        command + ([die_at] if die_at else []), cwd=_ROOT, env={**os.environ, "PYTHONPATH": str(_ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def _control(
    fleet: SmallFleet, request: MoveRequest, die_at: MovePhase | None = None
) -> subprocess.CompletedProcess[str]:
    process = _control_process(fleet, request, die_at)
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess([], process.returncode, out, err)


def _wait_for_phase(process: subprocess.Popen[str], phase: MovePhase) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.split()[1:] == [phase]:
            return
    raise AssertionError(f"the control plane ended before {phase}")


def _finish(process: subprocess.Popen[str]) -> MoveReport:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return MoveReport.model_validate_json(out.splitlines()[-1])


def _settled(fleet: SmallFleet, report: MoveReport) -> MoveReport:
    """As the sweep leaves it, which looks again where an agent was silent for too long."""
    history = MoveHistory(fleet.database)
    history.put(report)
    context = MoveContext(agents=fleet.clients, shards=fleet.shard_map, clock=fleet.clock)

    def look() -> bool:
        sweep(context, history)
        return not history.unsettled()

    wait_for(look, 60, lambda: f"the move is still {report.phase}")
    return next(one for one in history.latest(100) if one.request.id == report.request.id)


def _nothing_lost(fleet: SmallFleet, client: RunningClient, name: str, *, on: str) -> None:
    client.wait_for_records(client.acked() + 20)
    assert [node for node, _ in _running_guests(fleet, name)] == [on]
    summary = client.finish()
    assert summary.error == ""
    assert read_records(fleet.disk(on, name)) == list(range(1, summary.sent + 1))


def _record(fleet: SmallFleet, node: str, name: str) -> GuestRecord | None:
    file = fleet.agent_folder(node) / "shards" / name / "shard.json"
    return GuestRecord.model_validate_json(file.read_bytes()) if file.exists() else None


def _running_guests(fleet: SmallFleet, name: str) -> list[tuple[str, int]]:
    """(node, pid) of every guest of the shard that may be executing: committed or never moved, and alive."""
    found = []
    for node in fleet.names:
        record = _record(fleet, node, name)
        if record is not None and start_ticks(record.pid) and not record.incoming and not record.ceded_epoch:
            found.append((node, record.pid))
    return found


def _kill_guest(fleet: SmallFleet, node: str, name: str) -> None:
    record = _record(fleet, node, name)
    assert record is not None
    os.kill(record.pid, signal.SIGKILL)
    wait_for(lambda: start_ticks(record.pid) == 0, 5, lambda: "the guest does not die")
