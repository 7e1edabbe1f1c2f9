"""A shard moves live between two real nodes while a client writes numbered records over one TCP connection."""

import ast
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.image import read_records
from agent.wire import GuestState
from engine.errors import NotFound
from engine.migration import switch
from engine.migration.base import MoveContext, MoveLimits
from engine.migration.strategies import KEEP_ON, Advice, Verb
from engine.migration.workflow import DurableMover, configure
from engine.model.ids import MoveId, NodeId, ShardId
from engine.model.move import MovePhase, MoveProgress, MoveReport, MoveRequest
from engine.model.plan import MoveCause
from providers.sandbox import netns
from tests import own_image
from tests.durable_moves import durable_mover
from tests.small_fleet import SHARD, SmallFleet

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(170)]
AGENT_MEMORY_BYTES = 80_000_000


@pytest.fixture(scope="module")
def fleet() -> Iterator[SmallFleet]:
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("QEMU is not installed: no live move is tested")
    with tempfile.TemporaryDirectory(prefix="swt-") as folder, SmallFleet(Path(folder)) as running:
        yield running


@pytest.fixture
def mover(fleet: SmallFleet) -> Iterator[DurableMover]:
    with durable_mover(fleet) as launched:
        yield launched


def request(move: str, shard: str, source: str, destination: str) -> MoveRequest:
    return MoveRequest(
        id=MoveId(move),
        shard=ShardId(shard),
        source=NodeId(source),
        destination=NodeId(destination),
        cause=MoveCause.OPERATOR,
    )


def test_a_shard_moves_there_and_back_and_no_record_is_lost_or_doubled(
    fleet: SmallFleet, mover: DurableMover, capsys: pytest.CaptureFixture[str]
) -> None:
    shard, _ = fleet.carve("there", "nA")
    grown = fleet.clients(NodeId("nA")).resize(shard.id, 1, SHARD.model_copy(update={"memory_gib": 0.25}))
    client = fleet.start_client(shard)
    client.wait_for_records(50)
    there = mover.move(request("m-there", "there", "nA", "nB"))
    client.wait_for_records(client.acked() + 50)
    back = mover.move(request("m-back", "there", "nB", "nA"))
    client.wait_for_records(client.acked() + 50)
    summary = client.finish()

    for report, epochs in ((there, (1, 2)), (back, (2, 3))):
        assert (report.phase, report.error) == (MovePhase.CLEANED, "")
        assert (report.epoch_before, report.epoch_after) == epochs
        assert 0 < report.downtime_seconds < 2
        assert report.memory_bytes > 10_000_000
        assert report.disk_bytes >= 64 << 20
    assert summary.error == ""
    assert summary.acked == summary.sent
    assert read_records(fleet.disk("nA", "there")) == list(range(1, summary.sent + 1))
    assert not fleet.disk("nB", "there").exists()
    owner = fleet.shard_map.get(ShardId("there"))
    assert (owner.node, owner.epoch) == ("nA", 3)
    after = fleet.clients(NodeId("nA")).resize(shard.id, 3, SHARD)  # what it was given on the way is still there
    assert (grown.measured.memory_mib or 0) - (after.measured.memory_mib or 0) == pytest.approx(128, abs=8)
    with capsys.disabled():
        print(f"\n{_line(there)}\n{_line(back)}\nlongest gap seen by the client: {summary.longest_gap_seconds:.3f} s")
    fleet.clients(NodeId("nA")).release(ShardId("there"), 3)


def test_a_shard_boots_from_an_image_of_ones_own_and_moves(fleet: SmallFleet, mover: DurableMover) -> None:
    with own_image.offered() as image:
        shard, status = fleet.carve("own", "nA", disk_mib=1, image=image)

        def page(name: str) -> str:
            fetch = (
                f"import urllib.request as r; print(r.urlopen('http://{shard.address}:{own_image.PORT}/{name}').read())"
            )
            enter = ["nsenter", f"--net={netns.NAMESPACES / fleet.client.namespace}", "--", sys.executable, "-c", fetch]
            said = subprocess.run(enter, capture_output=True, text=True, timeout=20, check=True).stdout
            return str(ast.literal_eval(said).decode().strip())

        assert (status.image, status.disk_mib, page("greeting")) == ("mine", 4, "hello")
        assert page("disk") == own_image.DISK_MARK.decode()
        with pytest.raises(NotFound, match="does not measure itself"):
            fleet.clients(NodeId("nA")).measure(shard.id, 1, 1)
        before = int(page("count"))
        report = mover.move(request("m-own", "own", "nA", "nB"))
        assert (report.phase, report.error) == (MovePhase.CLEANED, "")
        assert int(page("count")) > before  # it went on counting where it was
        assert fleet.disk("nB", "own").read_bytes().startswith(own_image.DISK_MARK)
        fleet.clients(NodeId("nB")).release(shard.id, 2)


def test_agents_are_light(fleet: SmallFleet, mover: DurableMover) -> None:
    for node in fleet.names:
        assert fleet.clients(NodeId(node)).status().resident_bytes < AGENT_MEMORY_BYTES


def test_a_destination_that_cannot_run_the_guest_is_refused_and_the_source_goes_on(
    fleet: SmallFleet, mover: DurableMover
) -> None:
    shard, _ = fleet.carve("stays", "nA")
    client = fleet.start_client(shard)
    client.wait_for_records(10)
    big = fleet.clients(NodeId("nB")).status().capacity
    fill, _ = fleet.carve("filler", "nB", big.model_copy(update={"vcpus": 4.0, "memory_gib": 0.125}), disk_mib=1)
    report = mover.move(request("m-full", "stays", "nA", "nB"))
    client.wait_for_records(client.acked() + 10)
    summary = client.finish()
    assert report.phase is MovePhase.ABORTED
    assert "no room" in report.error
    assert summary.error == ""
    assert fleet.shard_map.get(shard.id).node == "nA"
    fleet.clients(NodeId("nA")).release(shard.id, 2)
    fleet.clients(NodeId("nB")).release(fill.id, 1)


def test_a_cancelled_move_leaves_the_shard_where_it_is_and_it_can_move_again(
    fleet: SmallFleet, mover: DurableMover
) -> None:
    shard, _ = fleet.carve("wanted", "nA")
    client = fleet.start_client(shard)
    client.wait_for_records(20)
    unwanted: set[MoveId] = set()

    def observer(move: MoveId, phase: MovePhase) -> None:
        if phase is MovePhase.PRECOPY and move == "m-cancelled":
            unwanted.add(move)

    context = MoveContext(
        agents=fleet.clients, shards=fleet.shard_map, clock=fleet.clock, observer=observer,
        cancelled=lambda move: move in unwanted,
    )  # fmt: skip
    configure(context)
    cancelled = mover.move(request("m-cancelled", "wanted", "nA", "nB"))
    client.wait_for_records(client.acked() + 20)
    again = mover.move(request("m-again", "wanted", "nA", "nB"))
    client.wait_for_records(client.acked() + 20)
    summary = client.finish()
    assert (cancelled.phase, again.phase, again.error) == (MovePhase.ABORTED, MovePhase.CLEANED, "")
    assert "was cancelled" in cancelled.error
    assert summary.error == ""
    assert read_records(fleet.disk("nB", "wanted")) == list(range(1, summary.sent + 1))
    fleet.clients(NodeId("nB")).release(shard.id, 3)


UFFD = Path("/proc/sys/vm/unprivileged_userfaultfd")


@pytest.fixture
def post_copy_is_possible() -> Iterator[None]:
    """Guests are no root, and a kernel lets only root handle page faults unless it is told otherwise."""
    if not UFFD.exists():
        pytest.skip("this kernel has no userfaultfd")
    before = UFFD.read_text()
    UFFD.write_text("1")
    yield
    UFFD.write_text(before)


@contextmanager
def slow_link(fleet: SmallFleet, node: str, rate: str) -> Iterator[None]:
    """What the node sends is shaped."""
    shape = ["ip", "netns", "exec", fleet.attachments[node].namespace, "tc", "qdisc"]
    root = ["dev", "eth0", "root"]
    subprocess.run([*shape, "add", *root, "tbf", "rate", rate, "burst", "256kb", "latency", "100ms"], check=True)
    try:
        yield
    finally:
        subprocess.run([*shape, "del", *root], check=True)


def test_memory_that_does_not_fit_into_the_time_left_is_given_up_and_no_acknowledged_write_with_it(
    fleet: SmallFleet, mover: DurableMover, capsys: pytest.CaptureFixture[str]
) -> None:
    """A deadline that has come, and seven seconds of copying: the shard boots on the destination from its disk."""
    shard, _ = fleet.carve("cold", "nA")
    client = fleet.start_client(shard, answer_seconds=6)
    client.wait_for_records(20)
    hurried = request("m-cold", "cold", "nA", "nB").model_copy(update={"deadline": fleet.clock.now()})
    with slow_link(fleet, "nA", "100mbit"):
        report = mover.move(hurried)
    summary = client.finish()
    assert (report.phase, report.strategy, report.epoch_after) == (MovePhase.CLEANED, "cold-restart", 2)
    assert "the memory was given up" in report.error
    assert read_records(fleet.disk("nB", "cold"))[: summary.acked] == list(range(1, summary.acked + 1))
    assert summary.acked >= 20
    assert report.downtime_seconds > 1, "it was stopped, and had to boot"
    assert fleet.clients(NodeId("nB")).shard(shard.id).state is GuestState.RUNNING
    assert not fleet.disk("nA", "cold").exists()
    with capsys.disabled():
        print(f"\n{_line(report)}; {report.error}")
    fleet.clients(NodeId("nB")).release(shard.id, 2)


def test_a_guest_runs_on_the_destination_while_its_memory_follows(
    fleet: SmallFleet,
    mover: DurableMover,
    post_copy_is_possible: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Over a link of 80 Mbit/s; when to take to post-copy is decided elsewhere (engine.migration.strategies)."""
    hasty = Advice(verb=Verb.POST_COPY, reason="as if it did not converge")
    monkeypatch.setattr(switch, "advise", lambda *_, post_copy, **__: hasty if post_copy else KEEP_ON)
    seen: list[MoveProgress] = []
    limits = MoveLimits(post_copy=True)
    configure(
        MoveContext(
            agents=fleet.clients, shards=fleet.shard_map, clock=fleet.clock, progress=seen.append, limits=limits
        )
    )
    shard, _ = fleet.carve("late", "nA")
    client = fleet.start_client(shard)
    client.wait_for_records(20)
    with slow_link(fleet, "nA", "80mbit"):
        report = mover.move(request("m-late", "late", "nA", "nB"))
    client.wait_for_records(client.acked() + 20)
    summary = client.finish()
    assert (report.phase, report.strategy, report.error) == (MovePhase.CLEANED, "post-copy", "")
    left = [one.bytes_left for one in seen if one.phase is MovePhase.POSTCOPY and one.bytes_left]
    assert left, "it ran before all its memory was there"
    assert summary.error == ""
    assert read_records(fleet.disk("nB", "late")) == list(range(1, summary.sent + 1))
    back = mover.move(request("m-late-back", "late", "nB", "nA"))
    assert (back.phase, back.error) == (MovePhase.CLEANED, "")
    with capsys.disabled():
        print(f"\n{_line(report)}; {max(left) / 1e6:.0f} MB followed; longest gap {summary.longest_gap_seconds:.3f} s")
    fleet.clients(NodeId("nA")).release(shard.id, 3)


def _line(report: MoveReport) -> str:
    seconds = (report.finished_at - report.started_at).total_seconds()
    return (
        f"{report.request.source} -> {report.request.destination}: {seconds:.2f} s, "
        f"downtime {report.downtime_seconds * 1000:.0f} ms, memory {report.memory_bytes / 1e6:.0f} MB, "
        f"disk {report.disk_bytes / 1e6:.0f} MB"
    )
