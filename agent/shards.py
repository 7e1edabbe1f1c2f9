"""The shards of one node: carved, limited, measured, released, and found again after the agent's restart."""

import asyncio
import logging
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path

from agent import guest, measuring, memory_size, network
from agent.attached_disk import ATTACHED_TLS, written_at
from agent.boots import USUAL_MTU, Boots
from agent.config import AgentConfig
from agent.epochs import EpochStore
from agent.guest import GuestRecord
from agent.image import MINIMUM_MEMORY_MIB, GuestImage, build_image, cache_root
from agent.image_store import ImageStore
from agent.limits import Cgroups, group_name
from agent.monitor import GuestRefused, poll
from agent.node_guest import Guest
from agent.overlay import Overlay
from agent.probe import accelerator
from agent.resizing import require_possible
from agent.templates import Templates
from agent.wire import CarveRequest, GuestProfile, NetworkMode, ShardStatus
from engine.clock import Clock, SystemClock
from engine.errors import ConcurrentUpdate, InsufficientCapacity, MissingPart, MoveFailed, NotFound, UsageError
from engine.model.capacity import Resources
from engine.model.ids import MoveId, ShardId
from engine.model.workload_image import WorkloadImage

_MONITOR_SECONDS = 10.0
_IMAGE_SECONDS, _HERE_SECONDS = 120.0, 20.0
"""For a shard's own image to come to this node, and to be found where it has come already."""
_LOG = logging.getLogger("agent.shards")


@dataclass
class _Reservation:
    resources: Resources
    until: float


class ShardHost:
    """Everything under ``work/shards``. One instance per agent process; use from one event loop."""

    def __init__(self, config: AgentConfig, overlay: Overlay | None = None, clock: Clock | None = None) -> None:
        """``overlay``: None where this node has none; guests get QEMU's own network then.

        ``clock``: tells guests the time; None: the system's.
        """
        self.config, self._overlay = config, overlay
        self.epochs = EpochStore(config.work / "epochs")
        self.network = NetworkMode.USER if overlay is None else NetworkMode.BRIDGE
        self.accelerator: str | None = None
        self.guests: dict[ShardId, Guest] = {}
        self._folder = config.work / "shards"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._images = Path(config.image_dir) if config.image_dir else cache_root()
        self._image: GuestImage | None = None
        self._store = ImageStore(self._images)
        templates = Templates(self._images / "templates")
        mtu = USUAL_MTU if overlay is None else overlay.mtu
        self._boots = Boots(self, templates, clock or SystemClock(), self._one_boot_at_a_time, mtu)
        self._cgroups = Cgroups()
        self._reservations: dict[MoveId, _Reservation] = {}
        self.carving = asyncio.Lock()
        self.beside: Callable[[], Sequence[Resources]] = tuple
        """What else of this node is taken: its storage shards."""
        self._find_again()

    # -- what is here

    def guest(self, shard: ShardId) -> Guest:
        """Raises NotFound."""
        found = self.guests.get(shard)
        if found is None:
            raise NotFound(f"no shard {shard} on node {self.config.node}")
        return found

    async def status(self, shard: ShardId) -> ShardStatus:
        here = self.guest(shard)
        record = here.record
        return ShardStatus(
            shard=shard,
            epoch=self.epochs.get(shard),
            state=await here.state(),
            resources=record.resources,
            address=record.address,
            mac=record.mac,
            disk_mib=record.disk_mib,
            image=record.image,
            profile=record.profile,
            network=record.network,
            forwarded_port=record.forwarded_port,
            measured=record.measured,
            limits_enforced=record.limits_enforced,
            move=record.move,
            attached=record.attached,
        )

    def reserved(self) -> Resources:
        """Carved shards plus unexpired reservations."""
        now = time.monotonic()
        self._reservations = {move: kept for move, kept in self._reservations.items() if kept.until > now}
        parts = [one.record.resources for one in self.guests.values() if not one.record.ceded_epoch]
        parts += [kept.resources for kept in self._reservations.values()]
        return Resources.total([*parts, *self.beside()])

    def reserve(self, move: MoveId, resources: Resources, ttl_seconds: float) -> None:
        """Keep room for a move; the same move again renews. Raises InsufficientCapacity."""
        self._reservations.pop(move, None)
        self.require_room(resources)
        self._reservations[move] = _Reservation(resources, time.monotonic() + ttl_seconds)

    def unreserve(self, move: MoveId) -> None:
        self._reservations.pop(move, None)

    def require_room(self, wanted: Resources) -> None:
        """For another guest. Raises InsufficientCapacity, UsageError."""
        self.require_capacity(wanted)
        if guest.memory_mib(wanted) < MINIMUM_MEMORY_MIB:
            raise UsageError("too little memory for a guest", why=f"at least {MINIMUM_MEMORY_MIB} MiB are needed")

    def require_capacity(self, wanted: Resources) -> None:
        """For whatever takes of the node. Raises InsufficientCapacity."""
        reserved, capacity = self.reserved(), self.config.capacity
        short = capacity.short_of(wanted, (reserved,))
        if short:
            total = Resources.total([reserved, wanted])
            raise InsufficientCapacity(
                f"node {self.config.node} has no room",
                why="; ".join(
                    f"{name}: {getattr(total, name):g} wanted of {getattr(capacity, name):g}" for name in short
                ),
            )

    # -- carving and releasing

    async def carve(self, request: CarveRequest) -> ShardStatus:
        """Boot the shard's guest; returns when its workload is up. Again with the same epoch: the same shard.

        Raises InsufficientCapacity, MissingPart, ConcurrentUpdate or StaleEpoch where it was released meanwhile.
        """
        self.epochs.accept(request.shard, request.epoch)
        if request.shard not in self.guests:  # nobody waits for it behind the lock
            await self.image(request.image, disk=True, seconds=_IMAGE_SECONDS)
        async with self.carving:
            here = self.guests.get(request.shard)
            if here is None:
                self.require_room(request.resources)
                here = await self.new_guest(request)
        async with here.busy:  # no other shard waits for this one's boot
            if self.guests.get(request.shard) is not here:
                raise ConcurrentUpdate(f"shard {request.shard} was released meanwhile")
            if not here.record.lives_here:
                raise UsageError(f"shard {request.shard} is in a move on this node")
            if here.record.pid == 0:
                await self._fill_disk(here)
            if not here.alive or here.record.booting:
                await self.boot(here)
        return await self.status(request.shard)

    async def new_guest(self, request: CarveRequest, arriving: GuestProfile | None = None, **more: object) -> Guest:
        """Folder and record of a guest that does not run yet; ``arriving``: as a move's source describes it.

        Its disk is there where it arrives; else it is empty or a copy, made when nobody waits for the lock.
        """
        image = await self.image(request.image, disk=arriving is None)
        profile = guest.profile(
            await self.find_accelerator(), image, request.resources, request.memory_grows_to_gib, request.image,
            request.vcpus_grow_to,
        )  # fmt: skip
        self.epochs.accept(request.shard, request.epoch)  # again: a release may have come while this one waited
        if arriving is not None:  # what it was booted with there, whatever it has now
            booted = ("memory_mib", "memory_growth_mib", "cpus", "bare_stream")
            profile = profile.model_copy(update={name: getattr(arriving, name) for name in booted})
        folder = self._folder / request.shard
        folder.mkdir(exist_ok=True)
        disk_mib = request.disk_mib
        if arriving is not None:
            disk_mib = await asyncio.to_thread(guest.create_disk, folder / "disk.raw", disk_mib)
        bridge = self.network is NetworkMode.BRIDGE
        record = GuestRecord(
            shard=request.shard,
            resources=request.resources,
            image=image.name,
            address=request.address,
            mac=request.mac,
            disk_mib=disk_mib,
            profile=profile,
            network=self.network,
            tap=network.tap_name(self.config.node, request.shard) if bridge else None,
            forwarded_port=None if bridge else network.free_port("127.0.0.1"),
        ).model_copy(update=more)
        here = Guest(folder, record)
        here.save()
        self.guests[request.shard] = here
        return here

    async def _fill_disk(self, here: Guest) -> None:
        """Before its first boot: never again, or a disk that was lost would be taken for an empty one."""
        image = await self.image(here.record.profile.image, disk=True)
        path, mib = here.folder / "disk.raw", here.record.disk_mib
        here.save(disk_mib=await asyncio.to_thread(guest.create_disk, path, mib, image.disk))

    async def launch(self, here: Guest, *, restoring: bool = False) -> None:
        """Start the guest's QEMU and apply every limit but the CPU's. Its monitor answers on return.

        ``restoring``: it waits for a template.
        """
        record = here.record
        image = await self.image(record.profile.image, disk=False)
        direct = guest.supports_direct_io(here.folder / "disk.raw")
        user = guest.user_for(here.folder, record.profile.accelerator)
        await asyncio.to_thread(guest.lend, here.folder, image, user)
        groups = guest.device_groups(record.profile.accelerator)
        if record.attached is not None:
            tls = self.config.work / "tls"
            guest.lend_tls(tls, here.folder, user, ATTACHED_TLS)
            here.save(attached_with=written_at(tls))
            record = here.record
        if record.tap is None:
            line = guest.command_line(record, direct_io=direct, mtu=None, tap=None, restoring=restoring)
            process = guest.start(line, here.folder, user=user, groups=groups)
        elif self._overlay is None:
            raise MissingPart("this node has lost its overlay", why="the agent's log says what is missing")
        else:
            mtu = self._overlay.mtu
            await asyncio.to_thread(network.add_tap, record.tap, mtu)
            await asyncio.to_thread(self._overlay.join_link, record.shard)
            with network.opened_tap(record.tap) as tap:  # by us: an unprivileged QEMU could not
                line = guest.command_line(record, direct_io=direct, mtu=mtu, tap=tap, restoring=restoring)
                process = guest.start(line, here.folder, user=user, groups=groups, keep=[tap])
        here.save(pid=process.pid, start_ticks=guest.start_ticks(process.pid))

        async def answers() -> bool:
            if process.poll() is not None:
                raise MissingPart("QEMU ended at once", why=_last_line(here.folder / "qemu.log"))
            try:
                await here.monitor.execute("query-status")
            except NotFound:
                return False
            return True

        await poll(answers, seconds=_MONITOR_SECONDS, every=0.02, what="QEMU's start")
        await self.apply_limits(here, record.resources, cpu=False)

    async def apply_limits(self, here: Guest, resources: Resources, *, cpu: bool = True) -> None:
        """CPU and memory by control group, IOPS by QEMU's throttle group, bandwidth on the tap."""
        name = group_name(self.config.work, self.config.node, here.record.shard)
        self._cgroups.create(name, here.record.pid)
        enforced = ["storage_iops"] if resources.storage_iops > 0 else []
        unlimited = dict.fromkeys(("bps", "bps_rd", "bps_wr", "iops_rd", "iops_wr"), 0)
        limits = unlimited | {"id": guest.DISK_PATH, "iops": int(resources.storage_iops)}
        await here.monitor.execute("block_set_io_throttle", limits)
        if self._limit_memory(here, resources):
            enforced.append("memory")
        if cpu and self._cgroups.limit_cpu(name, resources.vcpus):
            enforced.append("cpu")
        if here.record.tap is not None:
            await asyncio.to_thread(network.shape, here.record.tap, resources.network_mbps)
            enforced += ["network_mbps"] if resources.network_mbps > 0 else []
        here.save(resources=resources, limits_enforced=tuple(sorted(enforced)))

    def lift_cpu(self, here: Guest) -> None:
        """For the time of a move: copying is the node's work, it must not come out of the shard's share."""
        self._cgroups.limit_cpu(group_name(self.config.work, self.config.node, here.record.shard), 0)

    async def resize(self, shard: ShardId, epoch: int, resources: Resources) -> ShardStatus:
        """Change the limits of a running shard, its memory too; its number of virtual CPUs stays.

        Raises UsageError for what this guest can never have, ConcurrentUpdate while it moves or does not run,
        InsufficientCapacity when the node has no room for more or the guest does not let go of what it should give
        back.
        """
        self.epochs.accept(shard, epoch)
        here = self.guest(shard)
        async with here.busy:
            record = here.record
            if record.move is not None or not record.lives_here or not here.alive:
                raise ConcurrentUpdate(f"shard {shard} cannot change now", why="it does not run, or moves")
            require_possible(record.profile, record.resources, resources)
            with self._room_kept(record, resources):
                if await self._lacks(here, resources):
                    await self._resize_memory(here, resources)
                await self.apply_limits(here, resources)
        return await self.status(shard)

    @contextmanager
    def _room_kept(self, record: GuestRecord, resources: Resources) -> Iterator[None]:
        """For what it would have beyond what it has: nobody else is promised that meanwhile."""
        names = Resources.model_fields
        more = Resources(
            **{name: max(0.0, getattr(resources, name) - getattr(record.resources, name)) for name in names}
        )
        claim = MoveId(f"grow-{record.shard}")
        if any(getattr(more, name) for name in names):
            self.require_capacity(more)
            self._reservations[claim] = _Reservation(more, time.monotonic() + 6 * memory_size.LONGEST_SECONDS)
        try:
            yield
        finally:
            self.unreserve(claim)

    async def _lacks(self, here: Guest, wanted: Resources) -> bool:
        """Whether its memory is another than ``wanted``: a resize that broke off counts with what it may have."""
        asked, profile = guest.memory_mib(wanted), here.record.profile
        if asked != guest.memory_mib(here.record.resources):
            return True
        return profile.memory_growth_mib > 0 and await memory_size.plugged(here.monitor) != asked - profile.memory_mib

    async def _resize_memory(self, here: Guest, resources: Resources) -> None:
        """All of it or nothing: what is not done within memory_size.LONGEST_SECONDS is undone.

        Where that is not seen to be undone either, the guest may do it yet: it counts with the larger memory then.
        """
        record, wanted = here.record, memory_size.plugged_mib(here.record.profile, resources)
        before = memory_size.plugged_mib(record.profile, record.resources)
        has = await memory_size.plugged(here.monitor)
        if has != before or record.measured.memory_mib is None:  # what it had is compared with what it will have
            await measuring.measure_memory(here, 0)
        # Room before the guest takes it, and until it has let go: the limit of its control group is never too low.
        booted = record.profile.memory_mib
        largest = max(resources.memory_gib, record.resources.memory_gib, (booted + has) / 1024)
        self._limit_memory(here, record.resources.model_copy(update={"memory_gib": largest}))
        try:
            reached = await memory_size.plug(here.monitor, wanted)
        except (GuestRefused, NotFound):
            await self._undo_memory(here, before, largest)
            raise
        if reached != wanted:
            undone = await self._undo_memory(here, before, largest)
            way, done = ("given back", has - reached) if wanted < has else ("taken", reached - has)
            raise InsufficientCapacity(
                f"the guest of shard {record.shard} has {way} {done} MiB of {abs(wanted - has)}",
                why=f"and then no more; {undone}",
                next_step="free memory in the guest, or look whether its kernel has virtio-mem",
            )
        here.save(resources=record.resources.model_copy(update={"memory_gib": resources.memory_gib}))
        await measuring.measure_memory(here, grown_mib=wanted - has)

    async def _undo_memory(self, here: Guest, before: int, largest_gib: float) -> str:
        """What became of it, in words."""
        try:
            back = await memory_size.plug(here.monitor, before)
            told = f"it has {here.record.profile.memory_mib + back} MiB again"
            undone = back <= before
        except (GuestRefused, NotFound) as problem:
            told, undone = str(problem), False
        if not undone:
            here.save(
                resources=here.record.resources.model_copy(update={"memory_gib": largest_gib}),
                measured=here.record.measured.model_copy(update={"memory_mib": None}),
            )
            told += f", and counts with {largest_gib * 1024:g} until it is resized again"
            _LOG.warning("shard %s: a resize broke off, and is not undone: %s", here.record.shard, told)
        self._limit_memory(here, here.record.resources)
        return told

    def _limit_memory(self, here: Guest, resources: Resources) -> bool:
        name = group_name(self.config.work, self.config.node, here.record.shard)
        return self._cgroups.limit_memory(name, (guest.memory_mib(resources) + guest.OVERHEAD_MIB) << 20)

    async def measure(self, shard: ShardId, epoch: int, seconds: int) -> ShardStatus:
        """Let the guest measure what it gets now, one resource after the other, and keep it.

        Raises NotFound, ConcurrentUpdate while it moves: its pause would wait for this, and this for its pause.
        """
        self.epochs.accept(shard, epoch)
        here = self.guest(shard)
        async with here.busy:
            if here.record.move is not None:
                raise ConcurrentUpdate(f"shard {shard} is not measured now", why="it moves")
            await measuring.measure(here, seconds)
        return await self.status(shard)

    async def release(self, shard: ShardId, epoch: int) -> None:
        """Kill the guest and delete its disk. Already gone = success.

        The epoch is over with it: a carving that comes late, or that waits, makes nothing of it any more. The store
        makes a shard of that name anew at a later one (``BEYOND_ALL``).
        """
        if shard not in self.guests and self.epochs.get(shard) == epoch + 1:
            return  # a repeat
        self.epochs.accept(shard, epoch)
        while (here := self.guests.get(shard)) is not None:
            async with here.busy:
                self.epochs.accept(shard, epoch)  # again: what is here may be another shard's by now
                if self.guests.get(shard) is here:
                    await self.discard(here)
        self.epochs.accept(shard, epoch + 1)

    async def discard(self, here: Guest) -> None:
        """Proven dead first, then everything of it is removed. Raises MoveFailed when it will not die."""
        await self.end_guest(here)
        if here.record.tap is not None:
            await asyncio.to_thread(network.remove_tap, here.record.tap)
        group = group_name(self.config.work, self.config.node, here.record.shard)
        await asyncio.to_thread(self._cgroups.remove, group)
        await asyncio.to_thread(shutil.rmtree, here.folder, True)
        self.guests.pop(here.record.shard, None)

    async def end_guest(self, here: Guest) -> None:
        """Its process only; proven dead on return. Raises MoveFailed when it will not die."""
        await here.monitor.close()
        if not await asyncio.to_thread(guest.kill, here.record):
            raise MoveFailed(f"the guest of shard {here.record.shard} (pid {here.record.pid}) does not die")

    async def stop_all(self) -> None:
        """End every guest (``--stop-guests-on-exit``)."""
        for here in list(self.guests.values()):
            await self.discard(here)

    async def close(self) -> None:
        """Let go of the monitors and of images on their way; the guests run on."""
        for here in self.guests.values():
            await here.monitor.close()
        self._store.close()

    # -- images and boots

    async def image(self, own: WorkloadImage | None, *, disk: bool, seconds: float = _HERE_SECONDS) -> GuestImage:
        """A shard's own image, or the record server's. Raises MissingPart when it cannot be had within the time."""
        if own is not None:
            return await self._store.get(own, disk=disk, seconds=seconds)
        if self._image is None:
            self._image = await asyncio.to_thread(build_image, _LOG.info, self._images)
        return self._image

    async def find_accelerator(self) -> str:
        """Probed once per boot of the host: every agent on it shares the answer."""
        if self.accelerator is None:
            probe = await asyncio.to_thread(accelerator, await self.image(None, disk=False), self._images / "probe")
            _LOG.info("guests run under %s: %s", probe.accelerator, probe.reason)
            self.accelerator = probe.accelerator
        return self.accelerator

    async def boot(self, here: Guest) -> None:
        """From its disk; returns when the workload is up. Raises MissingPart, MoveFailed when it takes too long.

        Not done before every limit holds: what fails until then is booted anew by the next try.
        """
        await self._boots.boot(here)
        await self.apply_limits(here, here.record.resources)
        here.save(booting=False)
        grown = guest.memory_mib(here.record.resources) - here.record.profile.memory_mib
        if here.record.profile.memory_growth_mib and grown:  # it had been given more than it boots with
            reached = await memory_size.plug(here.monitor, grown)
            if reached != grown:
                _LOG.warning("shard %s has %d MiB again of %d", here.record.shard, reached, grown)
            await measuring.measure_memory(here, reached)

    @asynccontextmanager
    async def _one_boot_at_a_time(self) -> AsyncIterator[None]:
        """Of all agents of this host."""
        with (self._images / "boot.lock").open("w") as lock:
            while True:
                try:
                    flock(lock, LOCK_EX | LOCK_NB)
                    break
                except BlockingIOError:
                    await asyncio.sleep(0.1)
            yield

    def _find_again(self) -> None:
        for file in sorted(self._folder.glob("*/shard.json")):
            try:
                record = GuestRecord.model_validate_json(file.read_bytes())
            except ValueError as problem:
                _LOG.error("%s cannot be read and is left alone: %s", file, problem)
                continue
            here = Guest(file.parent, record)
            self.guests[record.shard] = here
            _LOG.info("shard %s: %s", record.shard, "found again" if here.alive else "its guest is gone")


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1] if lines else ""
