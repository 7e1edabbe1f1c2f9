"""Storage shards of a node, their servers played by processes that sleep; the real ones are in tests/e2e."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator

import pytest

from agent import guest
from agent.config import AgentConfig
from agent.shards import ShardHost
from agent.volumes import ServerRecord, Volume, VolumeHost, VolumeRecord, admitted, daemon_arguments, held
from agent.wire import AccessRequest, VolumeRequest
from engine.errors import ConcurrentUpdate, InsufficientCapacity, NotFound, StaleEpoch
from engine.model.capacity import Resources
from engine.model.composite import HealthState
from engine.model.ids import NodeId, ShardId

D1, NA, NB = ShardId("d1"), NodeId("nA"), NodeId("nB")
SIZE = Resources(vcpus=0.1, memory_gib=0.01, storage_iops=300)


def request(epoch: int, node: NodeId = NA) -> AccessRequest:
    return AccessRequest(epoch=epoch, node=node)


def record(epoch: int = 2, user: NodeId | None = NA, waiting: tuple[NodeId, ...] = ()) -> VolumeRecord:
    return VolumeRecord(shard=D1, resources=SIZE, disk_mib=8, epoch=epoch, user=user, admitted=waiting)


def test_a_later_epoch_has_one_user_and_nobody_beside() -> None:
    after = held(record(waiting=(NB,)), request(3, NB))
    assert (after.user, after.epoch, after.allowed) == (NB, 3, (NB,))


def test_the_same_epoch_again_changes_nothing_and_is_nobody_elses() -> None:
    assert held(record(waiting=(NB,)), request(2)) == record(waiting=(NB,))
    with pytest.raises(ConcurrentUpdate, match="nA's at epoch 2"):
        held(record(), request(2, NB))


def test_an_earlier_epoch_is_refused() -> None:
    with pytest.raises(StaleEpoch):
        held(record(), request(1))
    with pytest.raises(StaleEpoch):
        admitted(record(), request(1, NB))


def test_a_node_is_admitted_beside_the_user_once() -> None:
    after = admitted(record(), request(2, NB))
    assert after.allowed == (NA, NB)
    assert admitted(after, request(2, NB)) == after
    assert admitted(record(), request(2)) == record()
    with pytest.raises(ConcurrentUpdate, match="no user at epoch 3"):
        admitted(record(), request(3, NB))


def test_a_server_takes_one_nodes_certificate_and_keeps_to_the_iops() -> None:
    line = daemon_arguments(record(), ServerRecord(node=NA, port=10900), host="192.0.2.1", direct_io=True)
    assert "authz-simple,id=authz0,identity=CN=nA" in line
    assert "throttle-group,id=tg0,x-iops-total=300" in line
    listening = next(word for word in line if word.startswith("addr.type"))
    listen, _, most = listening.rpartition(",max-connections=")
    assert listen == "addr.type=inet,addr.host=192.0.2.1,addr.port=10900,tls-creds=tls0,tls-authz=authz0"
    assert int(most) >= 100  # a connection that never says who it is takes a place, too
    free = record().model_copy(update={"resources": Resources(vcpus=0, memory_gib=0)})
    line = daemon_arguments(free, ServerRecord(node=NA, port=1), host="h", direct_io=False)
    assert "throttle-group,id=tg0" in line
    assert not any("direct" in word for word in line)


class Servers:
    """Starts sleepers in place of disk servers."""

    def __init__(self) -> None:
        self.started: list[NodeId] = []
        self.processes: list[subprocess.Popen[bytes]] = []

    async def start(self, volume: Volume, server: ServerRecord) -> ServerRecord:
        self.started.append(server.node)
        self.processes.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]))
        pid = self.processes[-1].pid
        return server.model_copy(update={"pid": pid, "start_ticks": guest.start_ticks(pid)})


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch, config: AgentConfig) -> Iterator[Servers]:
    tls = config.work / "tls"
    tls.mkdir()
    (tls / "node.pem").write_text("a certificate")
    played = Servers()
    monkeypatch.setattr(VolumeHost, "_start", lambda _self, volume, server: played.start(volume, server))
    yield played
    for process in played.processes:
        process.kill()
        process.wait()


def made(config: AgentConfig) -> VolumeHost:
    volumes = VolumeHost(ShardHost(config))
    asyncio.run(volumes.create(VolumeRequest(shard=D1, epoch=1, resources=SIZE, disk_mib=8)))
    return volumes


def test_a_disk_takes_room_and_is_never_emptied(config: AgentConfig) -> None:
    volumes = made(config)
    disk = config.work / "volumes/d1/disk.raw"
    with disk.open("r+b") as file:
        file.write(b"data")
    again = made(config)
    assert disk.read_bytes()[:4] == b"data"
    assert disk.stat().st_size == 8 << 20
    assert again.volumes[D1].record == volumes.volumes[D1].record
    host = ShardHost(config)
    others = VolumeHost(host)
    assert host.reserved().storage_iops == 300
    with pytest.raises(InsufficientCapacity):
        asyncio.run(others.create(VolumeRequest(shard=ShardId("d2"), epoch=1, resources=SIZE, disk_mib=8)))


def test_the_user_changes_and_the_last_ones_server_is_dead_before(config: AgentConfig, servers: Servers) -> None:
    volumes = made(config)
    first = asyncio.run(volumes.hold(D1, request(2)))
    waiting = asyncio.run(volumes.admit(D1, request(2, NB)))
    assert (first.node, first.host, first.epoch) == ("n1", "127.0.0.1", 2)
    assert first.port != waiting.port
    second = asyncio.run(volumes.hold(D1, request(3, NB)))
    assert (second.port, second.epoch) == (waiting.port, 3)
    assert servers.processes[0].wait(5) < 0
    assert servers.processes[1].poll() is None
    assert servers.started == [NA, NB]
    with pytest.raises(StaleEpoch):
        asyncio.run(volumes.hold(D1, request(2)))
    back = asyncio.run(volumes.hold(D1, request(4)))
    assert back.port == first.port  # whoever waits there finds it again


def test_a_server_that_has_died_comes_back_after_the_agents_restart_as_well(
    config: AgentConfig, servers: Servers
) -> None:
    asyncio.run(made(config).hold(D1, request(2)))
    again = VolumeHost(ShardHost(config))
    assert again.volumes[D1].served
    asyncio.run(again.look())
    assert servers.started == [NA]
    servers.processes[0].kill()
    servers.processes[0].wait()
    assert [one.state for one in again.health()] == [HealthState.UNHEALTHY]
    asyncio.run(again.look())
    assert servers.started == [NA, NA]
    assert [one.state for one in again.health()] == [HealthState.HEALTHY]


def test_a_renewed_certificate_is_shown_by_a_new_server_at_the_same_port(config: AgentConfig, servers: Servers) -> None:
    volumes = made(config)
    before = asyncio.run(volumes.hold(D1, request(2)))
    (config.work / "tls/node.pem").write_text("the next one")
    asyncio.run(volumes.look())
    assert servers.started == [NA, NA]
    assert asyncio.run(volumes.hold(D1, request(2))).port == before.port


def test_a_released_disk_is_gone_and_its_epoch_stays_known(config: AgentConfig, servers: Servers) -> None:
    volumes = made(config)
    asyncio.run(volumes.hold(D1, request(2)))
    with pytest.raises(StaleEpoch):
        asyncio.run(volumes.release(D1, 1))
    asyncio.run(volumes.release(D1, 2))
    asyncio.run(volumes.release(D1, 2))
    assert not (config.work / "volumes/d1").exists()
    assert servers.processes[0].wait(5) < 0
    with pytest.raises(NotFound):
        asyncio.run(volumes.hold(D1, request(3)))


def test_a_record_that_cannot_be_read_is_left_alone(config: AgentConfig) -> None:
    made(config)
    (config.work / "volumes/d1/volume.json").write_text("{")
    assert VolumeHost(ShardHost(config)).volumes == {}
    assert (config.work / "volumes/d1/disk.raw").exists()


def test_a_disk_that_was_released_before_its_turn_is_not_made(config: AgentConfig) -> None:
    host = ShardHost(config)
    volumes = VolumeHost(host)

    async def overtaken() -> None:
        await host.carving.acquire()
        waiting = asyncio.create_task(volumes.create(VolumeRequest(shard=D1, epoch=1, resources=SIZE, disk_mib=8)))
        await asyncio.sleep(0)
        await host.release(D1, 1)
        host.carving.release()
        await waiting

    with pytest.raises(StaleEpoch):
        asyncio.run(overtaken())
    assert volumes.volumes == {}
