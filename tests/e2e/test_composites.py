"""A guest writes to a disk of another node over NBD with TLS, whatever happens to either of them."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import guest
from agent.image import read_records
from agent.volumes import VolumeRecord
from agent.wire import AccessRequest, AttachRequest
from engine.composition.membership import standings
from engine.errors import StaleEpoch
from engine.migration.workflow import DurableMover
from engine.model.capacity import Resources
from engine.model.composite import CompositeRule, HealthCheck, HealthState
from engine.model.ids import MoveId, NodeId, PoolId, ShardId
from engine.model.move import MovePhase, MoveReport, MoveRequest
from engine.model.placement import ComponentName, Shard, ShardState
from engine.model.plan import MoveCause
from providers.sandbox import netns
from tests.durable_moves import durable_mover
from tests.small_fleet import NAMESPACE, SmallFleet, wait_for

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(170)]
DB = ComponentName(namespace=NAMESPACE, workload="w", component="db1")
"""What SmallFleet binds a shard of that name to."""
CHECK = HealthCheck(interval_seconds=1, timeout_seconds=0.9, rise=1)
RULES = {DB: CompositeRule(check=CHECK, storage=PoolId("disks"))}
STORAGE, DISK_GIB_SHARD = NodeId("nS"), Resources(vcpus=0.1, memory_gib=0.05, storage_iops=2000)


@pytest.fixture(scope="module")
def fleet() -> Iterator[SmallFleet]:
    if shutil.which("qemu-storage-daemon") is None or shutil.which("qemu-system-x86_64") is None:
        pytest.skip("QEMU is not installed: no disk is attached")
    with (
        tempfile.TemporaryDirectory(prefix="swt-") as folder,
        SmallFleet(Path(folder), ("nA", "nB", "nS"), rules=RULES) as running,
    ):
        yield running


@pytest.fixture
def mover(fleet: SmallFleet) -> Iterator[DurableMover]:
    with durable_mover(fleet) as launched:
        yield launched


def make_storage(fleet: SmallFleet, name: str) -> Shard:
    shard = fleet.shard_map.add_shard(
        ShardId(name), shard_type="disk.small", pool=PoolId("disks"), node=STORAGE, nominal=DISK_GIB_SHARD
    )
    assert fleet.storage.create(shard, 64).failure == ""
    return shard


def volume(fleet: SmallFleet, name: str) -> VolumeRecord:
    file = fleet.agent_folder(STORAGE) / "volumes" / name / "volume.json"
    return VolumeRecord.model_validate_json(file.read_bytes())


def move(mover: DurableMover, name: str, shard: str, source: str, destination: str) -> MoveReport:
    return mover.move(
        MoveRequest(
            id=MoveId(name), shard=ShardId(shard), source=NodeId(source), destination=NodeId(destination),
            cause=MoveCause.OPERATOR,
        )
    )  # fmt: skip


def restart(fleet: SmallFleet, node: str) -> None:
    fleet.stop_agent(NodeId(node), signal.SIGKILL)
    fleet.start_agent(NodeId(node))
    wait_for(lambda: fleet._answers(NodeId(node)), 30, fleet._consoles)


def renew_certificate(fleet: SmallFleet, node: str) -> None:
    """As the agent does at half life, as far as anybody can see from outside."""
    file = fleet.agent_folder(node) / "tls" / "node.pem"
    os.utime(file)


def connects_as(fleet: SmallFleet, node: str, port: int, *, plain: bool = False) -> str:
    """What a client with the node's certificate, or with none, hears from a disk server, from the node itself."""
    tls = f"tls-creds-x509,id=t,dir={fleet.agent_folder(node) / 'tls'},endpoint=client,verify-peer=on"
    address = fleet.attachments[STORAGE].underlay_address
    image = f"driver=nbd,server.type=inet,server.host={address},server.port={port},export=disk"
    image += "" if plain else f",tls-creds=t,tls-hostname={STORAGE}"
    namespace = netns.NAMESPACES / fleet.attachments[node].namespace
    done = subprocess.run(
        ["nsenter", f"--net={namespace}", "--", "qemu-img", "info", "--object", tls, "--image-opts",
         image],
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def test_records_on_a_disk_of_another_node_survive_everything_but_that_node(
    fleet: SmallFleet, mover: DurableMover
) -> None:
    storage = make_storage(fleet, "disk1")
    shard, _ = fleet.carve("db1", "nA")
    assert [one.storage for one in fleet.storage.assign()] == ["disk1"]
    assert fleet.storage.assign() == ()
    assert fleet.shard_map.get(storage.id).state is ShardState.BOUND
    assert fleet.storage.connect_all() == ()
    first = volume(fleet, "disk1")
    assert (first.user, first.epoch) == ("nA", 2)
    client = fleet.start_client(shard)
    client.wait_for_records(30)

    # Either agent, the disk's server, and certificates on both sides.
    restart(fleet, "nS")
    restart(fleet, "nA")
    assert fleet.storage.connect_all() == ()
    client.wait_for_records(client.acked() + 20)
    (server,) = volume(fleet, "disk1").servers
    os.kill(server.pid, signal.SIGKILL)
    client.wait_for_records(client.acked() + 20)
    renew_certificate(fleet, "nA")
    renew_certificate(fleet, "nS")
    record = fleet.agent_folder("nA") / "shards" / "db1" / "shard.json"
    stamp = (fleet.agent_folder("nA") / "tls" / "node.pem").stat().st_mtime_ns
    wait_for(lambda: f'"attached_with":{stamp}' in record.read_text(), 20, fleet._consoles)
    client.wait_for_records(client.acked() + 20)

    # The shard moves, its storage does not.
    old = volume(fleet, "disk1").servers[0]
    report = move(mover, "m-there", "db1", "nA", "nB")
    assert (report.phase, report.error) == (MovePhase.CLEANED, "")
    client.wait_for_records(client.acked() + 30)
    moved = volume(fleet, "disk1")
    assert (moved.user, moved.epoch, moved.admitted) == ("nB", 3, ())
    assert not guest.alive(old)
    assert fleet.storage.connect_all() == ()
    assert volume(fleet, "disk1").epoch == 3

    # The fence: no older epoch, and nobody else's certificate.
    with pytest.raises(StaleEpoch):
        fleet.clients(STORAGE).hold(storage.id, AccessRequest(epoch=2, node=NodeId("nA")))
    disk = fleet.clients(NodeId("nB")).shard(shard.id).attached
    assert disk is not None
    stale = AttachRequest(epoch=2, disk=disk.model_copy(update={"epoch": 2}))
    with pytest.raises(StaleEpoch):
        fleet.clients(NodeId("nB")).attach(shard.id, stale)
    assert "Connection refused" in connects_as(fleet, "nA", old.port)
    assert "file format: raw" not in connects_as(fleet, "nA", disk.port)
    assert "virtual size: 64 MiB" in connects_as(fleet, "nB", disk.port)
    assert "TLS" in connects_as(fleet, "nB", disk.port, plain=True)

    client.wait_for_records(client.acked() + 10)
    summary = client.finish()
    assert (summary.error, summary.acked) == ("", summary.sent)
    kept = fleet.agent_folder(STORAGE) / "volumes" / "disk1" / "disk.raw"
    assert read_records(kept) == list(range(1, summary.sent + 1))
    assert read_records(fleet.disk("nB", "db1")) == []


def test_a_replica_whose_storage_is_lost_leaves_its_name(fleet: SmallFleet) -> None:
    """Runs after the other, on its replica."""
    storage = {one.component: one.storage for one in fleet.disks.all()}

    def state(shard: str) -> HealthState | None:
        known = fleet.health.all().get(ShardId(shard))
        return None if known is None else known.state

    wait_for(lambda: state("db1") is HealthState.HEALTHY, 20, lambda: str(fleet.health.all()))
    wait_for(lambda: state("disk1") is HealthState.HEALTHY, 20, lambda: str(fleet.health.all()))
    bindings, health = fleet.shard_map.bindings(), fleet.health.all()
    (standing,) = standings(bindings, health, storage, now=fleet.clock.now()).values()
    assert (standing.serves, standing.health) == (True, HealthState.HEALTHY)
    (standing,) = standings(bindings, health, storage, now=fleet.clock.now(), gone=["disk1"]).values()
    assert standing.reason.startswith("its storage disk1 is lost")

    # The guest dies: its port is closed, its node says so.
    pid = fleet.agent_folder("nB") / "shards" / "db1" / "shard.json"
    os.kill(int(pid.read_text().split('"pid":')[1].split(",")[0]), signal.SIGKILL)
    wait_for(lambda: state("db1") is HealthState.UNHEALTHY, 20, lambda: str(fleet.health.all()))
    assert fleet.health.all()[ShardId("db1")].reason == "the guest is dead"
    fleet.clients(NodeId("nB")).release(ShardId("db1"), 2)
    fleet.clients(STORAGE).release(ShardId("disk1"), 3)
    assert not (fleet.agent_folder(STORAGE) / "volumes" / "disk1").exists()
