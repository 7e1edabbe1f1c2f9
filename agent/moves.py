"""A node's halves of a live move. The controller decides; these act, and each may be repeated.

Source:       mirror -> precopy -> switchover (guest pauses, mirror ends) -> proceed -> (released by the controller)
Destination:  reserve -> prepare -> (patch ->) commit, or restart where the memory never comes

Either side:  resume (run on here, the store says so) | abort (kill what the move left here)

Everything after ``switchover`` carries a new epoch, whether the move was committed or given up: the store has raised it
by then, so nothing of the old one is obeyed, however late it comes. What is allowed at all is in agent.fences.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from agent import fences, guest, memory, network, sending
from agent.config import AgentConfig
from agent.guest import GuestRecord
from agent.monitor import poll
from agent.node_guest import Guest, quietly
from agent.postcopy import POST_COPY, allow_post_copy, capabilities, has_post_copy, start_post_copy
from agent.sending import ENDED
from agent.shards import ShardHost
from agent.wire import (
    AbortRequest,
    CarveRequest,
    CommitRequest,
    Committed,
    DestinationStatus,
    GuestState,
    Landing,
    MemoryDigest,
    MemoryPatch,
    MemoryRequest,
    MirrorRequest,
    MoveCommand,
    PatchRequest,
    PrepareRequest,
    Proceeded,
    ReserveRequest,
    SendRequest,
    SourceStatus,
    TuneRequest,
)
from engine.errors import ConcurrentUpdate, MoveFailed, NotFound, UsageError
from engine.model.ids import ShardId

# AES-GCM makes GnuTLS renegotiate keys after 16 M records and QEMU crash with a return path; ChaCha20 does not.
TLS_PRIORITY = "NORMAL:-AES-256-GCM:-AES-128-GCM:-AES-128-CCM"
_TLS, _AUTHZ, _TARGET, _EXPORT = "tls-move", "authz-move", "target-move", "export-move"
MIRROR_JOB = "mirror-move"
_NO_THROTTLE, _THROTTLE = 100, 50
"""Per cent of what is sent that a guest may dirty before auto-converge slows it down; 100: as good as never."""
_SWITCH_SECONDS = 30.0
_CANCEL_SECONDS = 15.0
_ARRIVAL_SECONDS = 5.0
_DYING_SECONDS = 3.0
_IMAGE_SECONDS = 30.0
"""For a shard's own image to come here; a later move finds what came meanwhile."""
_Rule = Callable[[GuestRecord, MoveCommand], None]


class MoveAgent:
    """The move half of the agent's API, over the same guests as ShardHost."""

    def __init__(self, host: ShardHost, config: AgentConfig) -> None:
        self._host, self._config = host, config

    # -- destination

    def reserve(self, shard: ShardId, request: ReserveRequest) -> None:
        self._host.epochs.accept(shard, request.epoch)
        if shard not in self._host.guests or self._host.guests[shard].record.ceded_epoch:
            self._host.reserve(request.move, request.resources, request.ttl_seconds)

    async def prepare(self, shard: ShardId, request: PrepareRequest) -> Landing:
        """A guest that waits for memory and disk and cannot run by itself. Same move, same landing."""
        self._host.epochs.accept(shard, request.epoch)
        await self._host.image(request.profile.image, disk=False, seconds=_IMAGE_SECONDS)
        async with self._host.carving:
            self._host.epochs.accept(shard, request.epoch)  # again: an abort may have come while this one waited
            here = self._host.guests.get(shard)
            if here is not None and here.record.move == request.move and here.record.incoming and here.alive:
                return self._landing(here.record, post_copy=request.post_copy and await has_post_copy(here))
            if here is not None:
                await self._make_way(here, request)
            return await self._prepare_new(shard, request)

    async def _prepare_new(self, shard: ShardId, request: PrepareRequest) -> Landing:
        self._host.unreserve(request.move)
        self._host.require_room(request.resources)
        carve = CarveRequest(
            shard=shard, epoch=request.epoch, resources=request.resources, image=request.profile.image,
            address=request.address, mac=request.mac, disk_mib=request.disk_mib,
        )  # fmt: skip
        here = await self._host.new_guest(
            carve,
            arriving=request.profile,
            incoming=True,
            move=request.move,
            memory_port=network.free_port(self._config.underlay),
            disk_port=network.free_port(self._config.underlay),
            attached=request.attached,
        )
        try:
            _same_profile(here.record, request)
            async with here.busy:
                await self._host.launch(here)
                post_copy = await self._listen(here, request)
        except Exception:
            await self._host.discard(here)
            raise
        return self._landing(here.record, post_copy=post_copy)

    async def commit(self, shard: ShardId, command: CommitRequest) -> Committed:
        """The store says that the shard belongs here: run, once the memory is here and the same. Raises MoveFailed."""
        async with self.driven(shard, command, fences.may_commit) as here:
            status = await self._arrived(shard)
            if status.committed and status.running and not here.record.committing:
                if status.arrived and status.receiving:
                    await self._forget_tls(here)
                    here.save(receiving=False, move=None)
                return Committed()
            if command.memory is not None and not status.committed:
                found = await asyncio.to_thread(memory.digest, here.record.pid)
                if differing := memory.differing(command.memory, found):
                    return Committed(differing=differing)
            await quietly(here, "nbd-server-stop")
            # Before it runs: from here on no rollback to the source is right. And in one piece: a guest that runs while
            # its move still stands in the record could never be moved again.
            receiving = not status.arrived
            here.save(
                incoming=False, receiving=receiving, move=command.move if receiving else None, committing=True
            )  # fmt: skip
            began = await self._run_for_good(here)
        return Committed(seconds_since_running=time.perf_counter() - began)

    async def _run_for_good(self, here: Guest) -> float:
        """The end of a commit; may be repeated. Returns when the guest ran, by ``time.perf_counter``."""
        await here.monitor.execute("cont")
        began = time.perf_counter()
        await quietly(here, "announce-self", initial=20, max=300, rounds=6, step=60)
        if not here.record.receiving:
            await self._forget_tls(here)
        await self._host.apply_limits(here, here.record.resources)
        here.save(committing=False)
        return began

    async def _forget_tls(self, here: Guest) -> None:
        """Once nothing more comes: QEMU looks for it at every connection, also at one that is made again."""
        await quietly(here, "object-del", id=_TLS)
        await quietly(here, "object-del", id=_AUTHZ)

    async def finish_commit(self, here: Guest) -> None:
        """Where an agent has died in the middle of it."""
        async with here.busy:
            if fences.must_finish(here.record):
                await self._run_for_good(here)

    async def patch(self, shard: ShardId, request: PatchRequest) -> None:
        """Memory that the migration lost, into a guest that has not run yet."""
        async with self.driven(shard, request) as here:
            if not here.record.incoming:
                raise UsageError(f"shard {shard} has run here: its memory is its own")
            await asyncio.to_thread(memory.write_chunks, here.record.pid, request.patch)

    async def _arrived(self, shard: ShardId) -> DestinationStatus:
        """The source has sent everything a moment before this side has taken it in."""
        last: list[DestinationStatus] = []

        async def look() -> bool:
            last[:] = [await self.destination_status(shard)]
            if not last[0].present:
                raise NotFound(f"the guest of shard {shard} is gone")
            return last[0].landed or last[0].committed

        try:
            await poll(look, seconds=_ARRIVAL_SECONDS, every=0.002)
        except MoveFailed:
            raise MoveFailed(f"shard {shard} has not arrived", why=f"QEMU says {last[0].migration}") from None
        return last[0]

    async def abort(self, shard: ShardId, command: MoveCommand) -> DestinationStatus:
        """Kill what this move left here: a guest that waits, or a copy that was given away. Not there = success.

        The answer says what is here then; only ``present`` false is proof.
        """
        self._host.epochs.accept(shard, command.epoch)
        self._host.unreserve(command.move)
        here = self._host.guests.get(shard)
        if here is not None:
            async with here.busy:
                if self._host.guests.get(shard) is here and fences.may_kill(
                    here.record, command, given_away=isinstance(command, AbortRequest) and command.given_away
                ):
                    await self._host.discard(here)
        return await self.destination_status(shard)

    async def destination_status(self, shard: ShardId) -> DestinationStatus:
        here = self._host.guests.get(shard)
        if here is None:
            return DestinationStatus(present=False)
        committed, booting = here.record.lives_here, here.record.booting
        gone = DestinationStatus(
            present=False, committed=committed, receiving=here.record.receiving, booting=booting
        )  # fmt: skip
        if not here.alive:
            return gone
        try:
            migration = await here.migration()
            status = await here.monitor.execute("query-status")
        except NotFound:
            return gone
        return DestinationStatus(
            present=True,
            committed=committed,
            arrived=migration == "completed" and status["status"] != "inmigrate",
            landed=migration in ("completed", "postcopy-active") and status["status"] != "inmigrate",
            receiving=here.record.receiving,
            running=bool(status["running"]),
            booting=booting,
            migration=migration,
        )

    async def _make_way(self, here: Guest, request: PrepareRequest) -> None:
        """What an earlier move left here may go; anything that runs may not."""
        async with here.busy:  # or a guest that is just being booted would count as dead
            if self._host.guests.get(here.record.shard) is not here:
                return
            if not here.record.lives_here or await here.state() is GuestState.DEAD:
                await self._host.discard(here)
                return
        raise ConcurrentUpdate(f"shard {here.record.shard} is here already", why="its guest runs on this node")

    async def _listen(self, here: Guest, request: PrepareRequest) -> bool:
        """Accept disk and memory over TLS, from the source's certificate only; whether post-copy is possible."""
        execute, host = here.monitor.execute, self._config.underlay
        await execute("object-add", self._tls_object(here, "server"))
        await execute("object-add", {"qom-type": "authz-simple", "id": _AUTHZ, "identity": f"CN={request.source}"[:67]})
        address = {"type": "inet", "data": {"host": host, "port": str(here.record.disk_port)}}
        await execute("nbd-server-start", {"addr": address, "tls-creds": _TLS, "tls-authz": _AUTHZ})
        export = {"type": "nbd", "id": _EXPORT, "node-name": "d0", "name": "disk", "writable": True}
        await execute("block-export-add", export)
        await execute("migrate-set-parameters", {"tls-creds": _TLS, "tls-authz": _AUTHZ})
        # Until `cont` the disk belongs to the NBD export; without this QEMU opens it for the guest as memory arrives.
        await capabilities(here, late_block_activate=True)
        post_copy = request.post_copy and await allow_post_copy(here)
        await execute("migrate-incoming", {"uri": f"tcp:{host}:{here.record.memory_port}"})
        return post_copy

    def _landing(self, record: GuestRecord, *, post_copy: bool) -> Landing:
        return Landing(
            node=self._config.node,
            host=self._config.underlay,
            memory_port=record.memory_port,
            disk_port=record.disk_port,
            post_copy=post_copy,
        )

    # -- source

    async def source_status(self, shard: ShardId) -> SourceStatus:
        here = self._host.guest(shard)
        execute = here.monitor.execute
        if not here.alive:
            raise NotFound(f"the guest of shard {shard} is gone")
        said, running = await execute("query-migrate"), (await execute("query-status"))["running"]
        word = fences.word_on(here.record, said.get("status", "none"))
        if word == "none":
            said = {}
        job = next((one for one in await execute("query-block-jobs") if one["device"] == MIRROR_JOB), None)
        memory = said.get("ram", {})
        return SourceStatus(
            running=bool(running),
            mirror_present=job is not None,
            mirror_ready=bool(job and job["ready"]),
            mirrored=here.mirrored,
            disk_bytes_done=job["offset"] if job else 0,
            disk_bytes_total=job["len"] if job else 0,
            migration=word,
            remaining_bytes=memory.get("remaining", 0),
            transferred_bytes=memory.get("transferred", 0),
            bytes_per_second=float(memory.get("mbps", 0.0)) * 1e6 / 8,
            downtime_ms=said.get("downtime", 0),
            total_ms=said.get("total-time", 0),
            error=said.get("error-desc", ""),
        )

    async def mirror(self, shard: ShardId, request: MirrorRequest) -> SourceStatus:
        """Start copying the disk; from now on every write goes to both sides before the guest hears of it."""
        async with self.driven(shard, request, fences.may_join) as here:
            here.save(move=request.move, committing=False)
            status = await self.source_status(shard)
            if not status.mirror_present and status.migration in ENDED:
                await self._start_mirror(here, request.landing)
        return await self.source_status(shard)

    async def _start_mirror(self, here: Guest, landing: Landing) -> None:
        execute = here.monitor.execute
        here.mirrored, here.exact, here.digesting = False, False, None  # what an earlier move has found
        self._host.lift_cpu(here)
        await self._drop_target(here)
        await execute("object-add", self._tls_object(here, "client"))
        server = {"type": "inet", "host": landing.host, "port": str(landing.disk_port)}
        target = {"driver": "nbd", "node-name": _TARGET, "server": server, "export": "disk"}
        await execute("blockdev-add", target | {"tls-creds": _TLS, "tls-hostname": landing.node})
        job = {"job-id": MIRROR_JOB, "device": "d0", "target": _TARGET, "sync": "full", "copy-mode": "write-blocking"}
        await execute("blockdev-mirror", job)

    async def precopy(self, shard: ShardId, request: SendRequest) -> SourceStatus:
        """Start sending memory; QEMU will wait for us before it hands over."""
        async with self.driven(shard, request) as here:
            status = await self.source_status(shard)
            if not (status.mirror_ready or status.migration not in ENDED):
                raise MoveFailed("memory cannot go before the disk is mirrored", why=status.error)
            if status.migration in ENDED:
                parameters = {
                    "tls-creds": _TLS,
                    "tls-hostname": request.landing.node,
                    "max-bandwidth": 0,
                    "downtime-limit": sending.first_limit_ms(here),
                    "throttle-trigger-threshold": _NO_THROTTLE,
                }
                await capabilities(
                    here,
                    pause_before_switchover=True,
                    postcopy_ram=request.landing.post_copy,
                    auto_converge=request.auto_converge,
                )
                await here.monitor.execute("migrate-set-parameters", parameters)
                here.save(sent_for=request.move)
                await sending.start(here, f"tcp:{request.landing.host}:{request.landing.memory_port}")
        return await self.source_status(shard)

    async def tune(self, shard: ShardId, request: TuneRequest) -> SourceStatus:
        async with self.driven(shard, request) as here:
            if request.downtime_limit_ms is not None:
                here.first_pass = None
                await here.monitor.execute("migrate-set-parameters", {"downtime-limit": request.downtime_limit_ms})
            if request.stop_guest:
                await here.monitor.execute("stop")
            if request.throttle:
                await here.monitor.execute("migrate-set-parameters", {"throttle-trigger-threshold": _THROTTLE})
            if request.post_copy:
                await start_post_copy(here)
        return await self.source_status(shard)

    async def switchover(self, shard: ShardId, command: MoveCommand, wait_seconds: float) -> SourceStatus:
        """Wait until the guest is paused for the switchover, then end the mirror: both disks are equal on return.

        Returns the present status when that has not happened in time (``migration`` is then still "active").
        """
        here = self._host.guest(shard)
        self._admit(here, command, fences.in_move)

        said: dict[str, Any] = {}

        async def reached() -> bool:
            nonlocal said
            said = await here.monitor.execute("query-migrate")
            await sending.watch(here, said)
            return said.get("status", "none") in ("pre-switchover", *ENDED)

        try:
            await poll(reached, seconds=wait_seconds, every=0.002)
        except MoveFailed:
            return await self.source_status(shard)
        status = await self.source_status(shard)
        if status.migration != "pre-switchover" or not status.mirror_present:
            return status
        async with self.driven(shard, command):
            await quietly(here, "block-job-cancel", device=MIRROR_JOB)
            await poll(lambda: no_jobs(here), seconds=_SWITCH_SECONDS, every=0.002, what="the end of the mirror")
            here.mirrored, here.exact = True, sending.exact(here, said)
        if not here.exact:
            # Beside the store's swap and the last of the copying: the guest is paused, its memory stays as it is.
            here.digesting = asyncio.create_task(asyncio.to_thread(memory.digest, here.record.pid))
        return status.model_copy(update={"mirror_present": False, "mirrored": True})

    async def proceed(self, shard: ShardId, command: MoveCommand) -> Proceeded:
        """After the store has given the shard away: send the rest. The guest stays paused here as a rollback copy."""
        async with self.driven(shard, command) as here:
            if not here.record.ceded_epoch:
                here.save(ceded_epoch=command.epoch)
            await quietly(here, "migrate-continue", state="pre-switchover")

            async def ended() -> str | None:
                said = await here.migration()
                return said if said in ENDED or said.startswith(POST_COPY) else None

            await poll(ended, seconds=_SWITCH_SECONDS, every=0.002, what="the last part of the memory")
            sent = time.perf_counter()
            await self.stop_given_away(here)
            status = await self.source_status(shard)
            sure = here.exact or status.migration != "completed"
            digest = None if sure else await self._digest(here)
            return Proceeded(status=status, memory=digest, seconds_since_sent=time.perf_counter() - sent)

    async def memory(self, shard: ShardId, request: MemoryRequest) -> MemoryPatch:
        """Chunks of what was sent, for a destination that has not got them."""
        here = self._host.guest(shard)
        self._admit(here, request, fences.in_move)
        if not here.record.ceded_epoch:
            raise UsageError(f"shard {shard} runs here: its memory is not for copying by hand")
        return await asyncio.to_thread(memory.read_chunks, here.record.pid, request.indexes)

    async def _digest(self, here: Guest) -> MemoryDigest:
        begun, here.digesting = here.digesting, None
        return await (begun or asyncio.to_thread(memory.digest, here.record.pid))

    async def resume(self, shard: ShardId, command: MoveCommand) -> SourceStatus:
        """The store says that the shard stays here or is given back: end the move, run on from the memory that is here.

        Nothing happens to a guest that takes part in another move. Raises StaleEpoch, NotFound for one that has died.
        """
        here = self._host.guest(shard)
        fences.may_run(here.record, command.move, command.epoch)
        self._host.epochs.accept(shard, command.epoch)
        async with here.busy:
            self._host.epochs.accept(shard, command.epoch)
            if fences.may_run(here.record, command.move, command.epoch):
                try:
                    if (await here.migration()).startswith(POST_COPY):
                        # QEMU never lets it run again. Its disk has every write: the store has given the shard back.
                        await self._host.end_guest(here)
                        raise NotFound("part of its memory was sent away for good")
                    await self._stop_sending(here)
                    await self._run_on(here)
                except NotFound as silence:
                    # A process that dies closes its monitor some time before it is dead.
                    if not await self._dies(here):
                        raise MoveFailed(f"the guest of shard {shard} does not answer", why=str(silence)) from silence
                    here.save(move=None, ceded_epoch=0)  # the shard is this node's, so its disk may be booted again
                    raise NotFound(f"the guest of shard {shard} is gone", why=str(silence)) from silence
        return await self.source_status(shard)

    async def _dies(self, here: Guest) -> bool:
        """Whether a guest whose monitor is silent is dead, or will be in a moment."""

        async def dead() -> bool:
            return not here.alive

        try:
            await poll(dead, seconds=_DYING_SECONDS, every=0.02)
        except MoveFailed:
            return False
        return True

    async def stop_given_away(self, here: Guest) -> None:
        """QEMU lets a guest run on when the rest cannot be sent; but the store has given this one away already."""
        if here.record.ceded_epoch:
            running = bool((await here.monitor.execute("query-status"))["running"])
            if fences.must_stop(here.record, running=running):
                await here.monitor.execute("stop")

    async def _stop_sending(self, here: Guest) -> None:
        await quietly(here, "migrate_cancel")

        async def stopped() -> bool:
            return await here.migration() in ENDED

        await poll(stopped, seconds=_CANCEL_SECONDS, what="giving up the move")
        await quietly(here, "block-job-cancel", device=MIRROR_JOB, force=True)
        await poll(lambda: no_jobs(here), seconds=_CANCEL_SECONDS, what="giving up the mirror")
        await self._drop_target(here)

    async def _run_on(self, here: Guest) -> None:
        if not (await here.monitor.execute("query-status"))["running"]:
            await here.monitor.execute("cont")
            await quietly(here, "announce-self", initial=20, max=300, rounds=6, step=60)
        here.mirrored = False
        here.save(move=None, ceded_epoch=0)
        await self._host.apply_limits(here, here.record.resources)

    async def _drop_target(self, here: Guest) -> None:
        await quietly(here, "blockdev-del", node_name=_TARGET)
        await quietly(here, "object-del", id=_TLS)

    # -- both

    @asynccontextmanager
    async def driven(
        self, shard: ShardId, command: MoveCommand, allowed: _Rule = fences.in_move
    ) -> AsyncIterator[Guest]:
        """Alone with the guest. What was right when the command came is read again when its turn comes."""
        here = self._host.guest(shard)
        self._admit(here, command, allowed)
        async with here.busy:
            self._admit(here, command, allowed)
            yield here

    def _admit(self, here: Guest, command: MoveCommand, allowed: _Rule) -> None:
        allowed(here.record, command)
        self._host.epochs.accept(here.record.shard, command.epoch)
        here.heard_now()

    def _tls_object(self, here: Guest, endpoint: str) -> dict[str, Any]:
        # Added for one move, so that QEMU reads the certificate that is valid now.
        user = guest.user_for(here.folder, here.record.profile.accelerator)
        return {
            "qom-type": "tls-creds-x509",
            "id": _TLS,
            "dir": guest.lend_tls(self._config.work / "tls", here.folder, user),
            "endpoint": endpoint,
            "verify-peer": True,
            "priority": TLS_PRIORITY,
        }


async def no_jobs(here: Guest) -> bool:
    return not await here.monitor.execute("query-block-jobs")


def _same_profile(record: GuestRecord, request: PrepareRequest) -> None:
    mine, wanted = record.profile, request.profile
    different = [
        f"{name}: {getattr(wanted, name)} there, {getattr(mine, name)} here"
        for name in type(mine).model_fields
        if getattr(mine, name) != getattr(wanted, name)
    ]
    if different:
        raise MoveFailed("source and destination cannot run the same guest", why="; ".join(different))
