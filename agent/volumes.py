"""The storage shards of a node: disks that are served to guests on other nodes, over NBD with mutual TLS.

The server is the fence: a disk has one user, a node since an epoch. A later epoch ends every other node's server,
proven dead, before the new user hears of it; an earlier one is refused. Beside the user, nodes may be admitted that
wait for a move: their guests do not run yet. Each node has a server of its own, which takes its certificate only.
"""

import asyncio
import logging
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

from agent import guest, network
from agent.attached_disk import EXPORT, TLS_PRIORITY, written_at
from agent.epochs import write_durably
from agent.monitor import poll
from agent.shards import ShardHost
from agent.wire import AccessRequest, AttachedDisk, ReportedHealth, VolumeRequest
from engine.errors import ConcurrentUpdate, MissingPart, MoveFailed, NotFound, ShardwrightError, StaleEpoch
from engine.model.capacity import Resources
from engine.model.composite import HealthState
from engine.model.ids import NodeId, ShardId
from engine.model.placement import Epoch
from engine.model.value import Value

DAEMON = "qemu-storage-daemon"
EVERY_SECONDS = 2.0
_START_SECONDS = 10.0
_CONNECTIONS = 100
"""Far more than a client's one or two: whoever connects counts before the handshake, for which QEMU waits for ever."""
_LOG = logging.getLogger("agent.volumes")


class ServerRecord(Value):
    """One node's server of one disk."""

    node: NodeId
    port: int
    """Stays: whoever has lost its server for a moment finds it again."""
    pid: int = 0
    start_ticks: int = 0
    certificate: int = 0
    """When the certificate that it shows was written, in ns."""


class VolumeRecord(Value):
    """``volume.json`` in the disk's folder."""

    shard: ShardId
    resources: Resources
    disk_mib: int
    epoch: Epoch = 0
    user: NodeId | None = None
    admitted: tuple[NodeId, ...] = ()
    ports: tuple[tuple[NodeId, int], ...] = ()
    """Of every node that ever had a server."""
    servers: tuple[ServerRecord, ...] = ()

    @property
    def allowed(self) -> tuple[NodeId, ...]:
        """Who may have a server now."""
        return tuple(dict.fromkeys((*(() if self.user is None else (self.user,)), *self.admitted)))


def held(record: VolumeRecord, request: AccessRequest) -> VolumeRecord:
    """After ``node`` has become the user at ``epoch``. Raises StaleEpoch, ConcurrentUpdate."""
    _current(record, request)
    if request.epoch > record.epoch:
        return record.model_copy(update={"epoch": request.epoch, "user": request.node, "admitted": ()})
    if record.user not in (None, request.node):
        raise ConcurrentUpdate(f"storage {record.shard} is {record.user}'s at epoch {record.epoch}")
    return record.model_copy(update={"user": request.node})


def admitted(record: VolumeRecord, request: AccessRequest) -> VolumeRecord:
    """After ``node`` may connect beside the user, for a move. Raises StaleEpoch, ConcurrentUpdate."""
    _current(record, request)
    if request.epoch > record.epoch:
        raise ConcurrentUpdate(f"storage {record.shard} has no user at epoch {request.epoch} yet")
    if request.node in record.allowed:
        return record
    return record.model_copy(update={"admitted": (*record.admitted, request.node)})


def _current(record: VolumeRecord, request: AccessRequest) -> None:
    if request.epoch < record.epoch:
        raise StaleEpoch(f"storage {record.shard} is at epoch {record.epoch}", why=f"asked at {request.epoch}")


class Volume:
    def __init__(self, folder: Path, record: VolumeRecord) -> None:
        self.folder, self.record = folder, record
        self.busy = asyncio.Lock()

    def save(self, record: VolumeRecord) -> None:
        """On disk first."""
        write_durably(self.folder / "volume.json", record.model_dump_json().encode())
        self.record = record

    @property
    def served(self) -> bool:
        """Whether everybody who may have a server has one that lives."""
        alive = {one.node for one in self.record.servers if guest.alive(one)}
        return set(self.record.allowed) <= alive


class VolumeHost:
    """Everything under ``work/volumes``. Servers outlive the agent, which finds them again."""

    def __init__(self, host: ShardHost) -> None:
        self._host, self._config = host, host.config
        self._tls = host.config.work / "tls"
        self._folder = host.config.work / "volumes"
        self._folder.mkdir(parents=True, exist_ok=True)
        self.volumes: dict[ShardId, Volume] = {}
        for file in sorted(self._folder.glob("*/volume.json")):
            try:
                record = VolumeRecord.model_validate_json(file.read_bytes())
            except ValueError as problem:
                _LOG.error("%s cannot be read and is left alone: %s", file, problem)
                continue
            self.volumes[record.shard] = Volume(file.parent, record)
        host.beside = self._resources

    def _resources(self) -> tuple[Resources, ...]:
        return tuple(one.record.resources for one in self.volumes.values())

    def health(self) -> tuple[ReportedHealth, ...]:
        """Of every storage shard here, for the control plane."""
        return tuple(
            ReportedHealth(
                shard=shard,
                epoch=self._host.epochs.get(shard),
                state=HealthState.HEALTHY if one.served else HealthState.UNHEALTHY,
                reason="" if one.served else "its server has ended",
            )
            for shard, one in self.volumes.items()
        )

    # -- commands

    async def create(self, request: VolumeRequest) -> None:
        """Make room and an empty sparse disk; one that is there is kept. Raises InsufficientCapacity."""
        self._host.epochs.accept(request.shard, request.epoch)
        async with self._host.carving:
            self._host.epochs.accept(request.shard, request.epoch)  # again: it may have been released meanwhile
            if request.shard in self.volumes:
                return
            self._host.require_capacity(request.resources)
            folder = self._folder / request.shard
            folder.mkdir(exist_ok=True)
            guest.create_disk(folder / "disk.raw", request.disk_mib)
            record = VolumeRecord(shard=request.shard, resources=request.resources, disk_mib=request.disk_mib)
            volume = Volume(folder, record)
            volume.save(record)
            self.volumes[request.shard] = volume

    async def hold(self, shard: ShardId, request: AccessRequest) -> AttachedDisk:
        """``node`` is the user since ``epoch``: everybody else's server is dead on return, and its own serves."""
        return await self._granted(shard, request, held)

    async def admit(self, shard: ShardId, request: AccessRequest) -> AttachedDisk:
        """``node`` may connect as well: it waits for a move."""
        return await self._granted(shard, request, admitted)

    async def _granted(
        self, shard: ShardId, request: AccessRequest, rule: Callable[[VolumeRecord, AccessRequest], VolumeRecord]
    ) -> AttachedDisk:
        volume = self._volume(shard)
        async with volume.busy:
            fresh = rule(volume.record, request)
            self._host.epochs.accept(shard, request.epoch)
            return await self._change(volume, fresh, request.node)

    async def release(self, shard: ShardId, epoch: int) -> None:
        """Delete the disk. Not there = success."""
        volume = self.volumes.get(shard)
        if volume is None:
            return
        self._host.epochs.accept(shard, epoch)
        async with volume.busy:
            for server in volume.record.servers:
                await self._end(server)
            await asyncio.to_thread(shutil.rmtree, volume.folder, True)
            self.volumes.pop(shard, None)

    async def run(self) -> None:
        """Bring back servers that have ended, and give each the node's present certificate; until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(EVERY_SECONDS)

    async def look(self) -> None:
        for shard, volume in list(self.volumes.items()):
            if volume.busy.locked():
                continue
            try:
                async with volume.busy:
                    await self._serve(volume)
            except (ShardwrightError, OSError) as problem:
                _LOG.warning("storage %s is not served: %s", shard, problem)

    # -- servers

    def _volume(self, shard: ShardId) -> Volume:
        found = self.volumes.get(shard)
        if found is None:
            raise NotFound(f"no storage {shard} on node {self._config.node}")
        return found

    async def _change(self, volume: Volume, fresh: VolumeRecord, node: NodeId) -> AttachedDisk:
        if fresh != volume.record:
            volume.save(fresh)
        await self._serve(volume)
        port = dict(volume.record.ports)[node]
        return AttachedDisk(
            storage=fresh.shard, epoch=fresh.epoch, node=self._config.node, host=self._config.underlay, port=port
        )

    async def _serve(self, volume: Volume) -> None:
        """End what is not allowed, proven dead, before anything is started."""
        stamp = written_at(self._tls) if volume.record.allowed else 0
        kept = []
        for server in volume.record.servers:
            if server.node in volume.record.allowed and guest.alive(server) and server.certificate == stamp:
                kept.append(server)
            else:
                await self._end(server)
        for node in volume.record.allowed:
            if node not in {server.node for server in kept}:
                ports = dict(volume.record.ports)
                if node not in ports:
                    ports[node] = network.free_port(self._config.underlay)
                    volume.save(volume.record.model_copy(update={"ports": tuple(ports.items())}))
                kept.append(await self._start(volume, ServerRecord(node=node, port=ports[node], certificate=stamp)))
        if tuple(kept) != volume.record.servers:
            volume.save(volume.record.model_copy(update={"servers": tuple(kept)}))

    async def _start(self, volume: Volume, server: ServerRecord) -> ServerRecord:
        folder = volume.folder / server.node
        folder.mkdir(exist_ok=True)
        disk = volume.folder / "disk.raw"
        direct = guest.supports_direct_io(disk)
        user = guest.user_for(volume.folder, "tcg")
        await asyncio.to_thread(guest.lend_volume, folder, disk, user)
        guest.lend_tls(self._tls, folder, user)
        line = daemon_arguments(volume.record, server, host=self._config.underlay, direct_io=direct)
        process = guest.start(line, folder, user=user)
        started = server.model_copy(update={"pid": process.pid, "start_ticks": guest.start_ticks(process.pid)})
        # Before it is waited for: one that an agent has died over must be found again.
        others = tuple(one for one in volume.record.servers if one.node != server.node)
        volume.save(volume.record.model_copy(update={"servers": (*others, started)}))

        async def listens() -> bool:
            if process.poll() is not None:
                raise MissingPart(f"{DAEMON} ended at once", why=_last_line(folder / "qemu.log"))
            return await asyncio.to_thread(_accepts, self._config.underlay, server.port)

        await poll(listens, seconds=_START_SECONDS, every=0.02, what="the disk server's start")
        return started

    async def _end(self, server: ServerRecord) -> None:
        if not await asyncio.to_thread(guest.kill, server):
            raise MoveFailed(f"the disk server for {server.node} (pid {server.pid}) does not die")


def daemon_arguments(record: VolumeRecord, server: ServerRecord, *, host: str, direct_io: bool) -> list[str]:
    """File names are relative to the server's run folder. Another server of the same disk runs beside it only while a
    guest waits for its move, so QEMU's own lock of the file is off; this agent keeps it."""
    tls = f"tls-creds-x509,id=tls0,dir=../{guest.TLS_FOLDER},endpoint=server,verify-peer=on,priority={TLS_PRIORITY}"
    cache = '"cache":{"direct":true}' if direct_io else '"cache":{}'
    file = f'{{"driver":"file","filename":"../../disk.raw","node-name":"f0","locking":"off",{cache}}}'
    iops = int(record.resources.storage_iops)
    limit = f"throttle-group,id=tg0,x-iops-total={iops}" if iops else "throttle-group,id=tg0"
    listen = f"addr.type=inet,addr.host={host},addr.port={server.port},tls-creds=tls0,tls-authz=authz0"
    return [
        DAEMON,
        *("--object", tls),
        *(
            "--object",
            f"authz-simple,id=authz0,identity=CN={server.node[:64]}",
        ),
        *("--object", limit),
        *("--blockdev", file),
        *("--blockdev", "driver=throttle,throttle-group=tg0,node-name=t0,file=f0"),
        *("--nbd-server", f"{listen},max-connections={_CONNECTIONS}"),
        *("--export", f"type=nbd,id=export0,node-name=t0,name={EXPORT},writable=on"),
    ]


def _accepts(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1.0).close()
    except OSError:
        return False
    return True


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
