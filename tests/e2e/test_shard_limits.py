"""What a real guest gets is what its shard says: limits, their change while it runs, and the agent's restart."""

import asyncio
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import console
from agent.guest import CONSOLE_LOG, RUN_FOLDER, GuestRecord, alive, stopped
from agent.guest_scripts import WAITS_MARK
from agent.image import read_records
from agent.limits import Cgroups
from agent.wire import GuestState, ShardStatus
from engine.errors import InsufficientCapacity, UsageError
from engine.events import Event
from engine.fleet.nodes import Fleet
from engine.fleet.restarts import Restarts
from engine.model.capacity import Resources
from engine.model.ids import NodeId, ShardId
from tests.links import CONTROL, cut
from tests.small_fleet import NODE, SmallFleet, wait_for

pytestmark = [pytest.mark.root, pytest.mark.slow]
A = NodeId("nA")
SLOW = Resources(vcpus=0.5, memory_gib=0.125, storage_iops=40, network_mbps=10)


@pytest.fixture(scope="module")
def fleet() -> Iterator[SmallFleet]:
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("QEMU is not installed: no limit is measured")
    with tempfile.TemporaryDirectory(prefix="swt-") as folder, SmallFleet(Path(folder), nodes=("nA",)) as running:
        yield running


@pytest.fixture
def slow(fleet: SmallFleet) -> Iterator[ShardStatus]:
    """A running shard of this test's own; what it left is released."""
    _, status = fleet.carve(f"slow-{len(fleet.carved)}", "nA", SLOW, disk_mib=16)
    yield status
    fleet.clients(A).release(status.shard, 1)


def records_per_second(fleet: SmallFleet, shard: ShardId, first: int, seconds: float = 3.0) -> float:
    client = fleet.start_client(fleet.shard_map.get(shard), first=first, every=0)
    client.wait_for_records(5)
    before, began = client.acked(), time.monotonic()
    wait_for(lambda: time.monotonic() - began >= seconds, seconds + 5, lambda: "time stands still")
    rate = (client.acked() - before) / (time.monotonic() - began)
    assert client.finish().error == ""
    return rate


def test_limits_are_enforced_measured_and_changed_while_the_shard_runs(
    fleet: SmallFleet, slow: ShardStatus, capsys: pytest.CaptureFixture[str]
) -> None:
    enforced = {"storage_iops", "network_mbps"} | ({"cpu", "memory"} if Cgroups().version else set())
    assert set(slow.limits_enforced) == enforced
    assert slow.measured.boot_seconds is not None
    assert slow.measured.cpu_rounds_per_second is not None
    assert slow.measured.read_iops is not None
    throttled = records_per_second(fleet, slow.shard, 1)
    assert throttled <= 40 * 1.3
    fleet.clients(A).resize(slow.shard, 1, SLOW.model_copy(update={"storage_iops": 10.0}))
    tighter = records_per_second(fleet, slow.shard, 10_001)
    assert tighter <= 10 * 1.3
    fleet.clients(A).resize(slow.shard, 1, SLOW.model_copy(update={"storage_iops": 0.0, "vcpus": 1.0}))
    free = records_per_second(fleet, slow.shard, 20_001)
    assert free > tighter
    with capsys.disabled():
        print(f"\nrecords a second: {throttled:.1f} at 40 IOPS, {tighter:.1f} at 10, {free:.1f} without a limit")


def test_memory_grows_is_used_and_is_given_back_once_the_guest_lets_go(fleet: SmallFleet, slow: ShardStatus) -> None:
    client, run = fleet.clients(A), fleet.disk("nA", slow.shard).parent / RUN_FOLDER

    def resized(memory_gib: float) -> int:
        status = client.resize(slow.shard, 1, SLOW.model_copy(update={"memory_gib": memory_gib, "vcpus": 1.0}))
        assert status.resources.memory_gib == memory_gib
        return status.measured.memory_mib or 0

    def told(question: str, answer: str) -> int:
        return asyncio.run(console.ask(run, question, answer, 10))

    at_first = slow.measured.memory_mib or 0
    assert resized(0.15625) == pytest.approx(at_first + 32, abs=4)
    assert told("hold 81920", "held_kib") == 81920  # more than was free before
    with pytest.raises(InsufficientCapacity, match=r"given back \d+ MiB of 32"):
        resized(0.125)
    assert client.shard(slow.shard).resources.memory_gib == 0.15625
    assert told("hold 0", "held_kib") == 0
    assert resized(0.125) == pytest.approx(at_first, abs=4)
    with pytest.raises(UsageError, match="128 to 512 MiB"):
        resized(1.0)


def test_guests_from_one_template_are_each_their_own(fleet: SmallFleet) -> None:
    """Two copies of one guest: reachable each at its own address, on its own disk, with random numbers of its own."""
    found = []
    for name in ("copy-1", "copy-2"):
        shard, status = fleet.carve(name, "nA", disk_mib=16)  # the first may have to make the template
        run = fleet.disk("nA", name).parent / RUN_FOLDER
        assert WAITS_MARK not in (run / CONSOLE_LOG).read_text()  # it has not booted
        client = fleet.start_client(shard)
        client.wait_for_records(5)
        assert client.finish().error == ""
        found.append((status, asyncio.run(console.ask(run, "random 1", "random", 5))))
    (first, random_first), (second, random_second) = found
    assert random_first != random_second
    assert second.measured.from_template
    assert first.address != second.address
    for status, _ in found:
        assert read_records(fleet.disk("nA", status.shard))[0] == 1
        fleet.clients(A).release(status.shard, 1)


def test_a_node_sells_no_more_than_it_has(fleet: SmallFleet) -> None:
    with pytest.raises(InsufficientCapacity, match="vcpus"):
        fleet.carve("greedy", "nA", Resources(vcpus=NODE.vcpus + 1, memory_gib=0.125), disk_mib=1)


def test_too_little_memory_is_refused_before_anything_is_made(fleet: SmallFleet) -> None:
    with pytest.raises(UsageError, match="96 MiB"):
        fleet.carve("tiny", "nA", Resources(vcpus=1, memory_gib=0.05), disk_mib=1)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_guests_outlive_the_agent_and_are_found_again(
    fleet: SmallFleet, slow: ShardStatus, how: signal.Signals
) -> None:
    client = fleet.start_client(fleet.shard_map.get(slow.shard))
    client.wait_for_records(5)
    joins = len(fleet.joined)
    fleet.stop_agent(A, how)
    assert fleet.agents[A].returncode == (0 if how is signal.SIGTERM else -how)  # it has come to its own end
    client.wait_for_records(client.acked() + 5)
    fleet.start_agent(A)
    wait_for(lambda: fleet._answers(A), 30, fleet._consoles)
    status = fleet.clients(A).shard(slow.shard)
    assert (status.state, status.epoch) == (GuestState.RUNNING, 1)
    assert len(fleet.joined) == joins  # its certificate is still good: the used token is not needed
    assert client.finish().error == ""


def test_a_guest_that_dies_is_booted_again_where_it_is_with_all_it_has_acknowledged(
    fleet: SmallFleet, slow: ShardStatus
) -> None:
    client = fleet.start_client(fleet.shard_map.get(slow.shard))
    client.wait_for_records(5)
    folder = fleet.agent_folder("nA") / "shards" / slow.shard
    before = GuestRecord.model_validate_json((folder / "shard.json").read_bytes())
    os.kill(before.pid, signal.SIGKILL)
    agent = fleet.clients(A)
    wait_for(lambda: agent.shard(slow.shard).state is GuestState.DEAD, 10, lambda: "it lives")
    client.kill()
    nodes = Fleet(
        shard_map=fleet.shard_map, tokens=fleet.tokens, agents=fleet.clients, clock=fleet.clock,
        settings_for=lambda provider: pytest.fail(provider), disk_mib=16,
    )  # fmt: skip
    told: list[Event] = []
    Restarts(fleet.shard_map, nodes, fleet.clients, tuple, fleet.clock, told.append).once()
    status = agent.shard(slow.shard)
    assert (status.state, status.epoch, len(told)) == (GuestState.RUNNING, 1, 1), told
    after = GuestRecord.model_validate_json((folder / "shard.json").read_bytes())
    assert after.pid != before.pid
    assert set(after.limits_enforced) == set(before.limits_enforced)
    again = fleet.start_client(fleet.shard_map.get(slow.shard), first=10_001)
    again.wait_for_records(5)
    assert again.finish().error == ""
    written = set(read_records(fleet.disk("nA", slow.shard)))
    assert set(range(1, client.acked() + 1)) <= written
    assert 10_001 in written


def test_an_agent_ends_while_the_control_plane_does_not_answer_it_and_its_guests_run_on(tmp_path: Path) -> None:
    """Its run lease, its health and its overlay are being asked for, and no answer comes."""
    with SmallFleet(tmp_path, nodes=("nA",), lease_seconds=600) as leased:
        _, status = leased.carve("leased", "nA", disk_mib=1)
        record = GuestRecord.model_validate_json(
            (leased.agent_folder("nA") / "shards" / status.shard / "shard.json").read_bytes()
        )
        cut(leased, ("nA", CONTROL))
        leased.stop_agent(NodeId("nA"))
        assert leased.agents[NodeId("nA")].returncode == 0
        assert alive(record)


def test_a_hung_agent_does_not_keep_its_guests_running(tmp_path: Path) -> None:
    """The watchdog is another process: it stops the guest when the lease ends, and lets it go on once renewed."""
    with SmallFleet(tmp_path, nodes=("nA",), lease_seconds=6) as leased:
        _, status = leased.carve("leased", "nA", disk_mib=1)
        record = GuestRecord.model_validate_json(
            (leased.agent_folder("nA") / "shards" / status.shard / "shard.json").read_bytes()
        )
        lease = leased.agent_folder("nA") / "leases" / status.shard
        wait_for(lambda: lease.exists() and f" {record.pid} " in lease.read_text(), 10, lambda: "no lease")
        assert not stopped(record)
        leased.agents[A].send_signal(signal.SIGSTOP)
        wait_for(lambda: stopped(record), 10, lambda: "the guest runs on without a lease")
        leased.agents[A].send_signal(signal.SIGCONT)
        wait_for(lambda: not stopped(record), 10, lambda: "the guest does not go on")
        assert leased.clients(A).shard(status.shard).state is GuestState.RUNNING


def test_a_released_shard_leaves_nothing_and_its_epoch_stays_known(fleet: SmallFleet, slow: ShardStatus) -> None:
    fleet.clients(A).release(slow.shard, 1)
    fleet.clients(A).release(slow.shard, 1)
    assert fleet.clients(A).status().shards == ()
    assert not fleet.disk("nA", slow.shard).exists()
    assert (fleet.agent_folder("nA") / "epochs" / slow.shard).read_text() == "2\n"
