"""The destination's half of a live move: a guest that waits for memory and disk, and runs once the store says so."""

import asyncio
import time

from agent import fences, landing_disk, memory, network
from agent.guest import GuestRecord
from agent.monitor import poll
from agent.move_side import GONE_SECONDS, LOOK_SECONDS, TLS, MoveSide
from agent.node_guest import Guest, quietly
from agent.postcopy import allow_post_copy, capabilities, has_post_copy
from agent.wire import (
    AbortRequest,
    CarveRequest,
    CommitRequest,
    Committed,
    DestinationStatus,
    GuestState,
    Landing,
    MoveCommand,
    PatchRequest,
    PrepareRequest,
    ReserveRequest,
)
from engine.errors import ConcurrentUpdate, MoveFailed, NotFound, UsageError
from engine.model.ids import ShardId

_AUTHZ = "authz-move"
_ARRIVAL_SECONDS = 5.0
_IMAGE_SECONDS = 30.0
"""For a shard's own image to come here; a later move finds what came meanwhile."""


class MoveDestination(MoveSide):
    """Each command may be repeated."""

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
                if await here.migration() != "none":
                    return self._landing(here.record, post_copy=request.post_copy and await has_post_copy(here))
                async with here.busy:  # an agent has died over it: it does not listen, and nothing has come
                    await self._host.discard(here)
            elif here is not None:
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
            told = {"incoming": False, "receiving": False, "move": None, "committing": True}
            put = None
            if here.record.incoming:
                # Beside the last of the copying: its mirror has ended, and the record is only to be put in its place.
                put = here.staged(**told)
                _, status = await asyncio.gather(landing_disk.close(here), self._arrived(shard))
            else:
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
            # Before it runs: from here on no rollback to the source is right. And in one piece: a guest that runs while
            # its move still stands in the record could never be moved again.
            if put is not None and status.arrived:
                put()
            else:
                here.save(**told | ({} if status.arrived else {"receiving": True, "move": command.move}))
            if put is None:
                await landing_disk.close(here)  # a repeat: the first may not have come to it
            began = await self._run_for_good(here)
        return Committed(seconds_since_running=time.perf_counter() - began)

    async def _run_for_good(self, here: Guest) -> float:
        """The end of a commit; may be repeated. Returns when the guest ran, by ``time.perf_counter``."""
        await here.monitor.execute("cont")
        began = time.perf_counter()
        await quietly(here, "announce-self", initial=20, max=300, rounds=6, step=60)
        await landing_disk.forget(here)
        if not here.record.receiving:
            await self._forget_tls(here)
        await self._host.apply_limits(here, here.record.resources)
        here.save(committing=False)
        return began

    async def _forget_tls(self, here: Guest) -> None:
        """Once nothing more comes: QEMU looks for it at every connection, also at one that is made again."""
        await quietly(here, "object-del", id=TLS)
        await quietly(here, "object-del", id=_AUTHZ)

    async def finish_commit(self, here: Guest) -> None:
        """Where an agent has died in the middle of it."""
        async with here.busy:
            if fences.must_finish(here.record):
                await landing_disk.close(here)
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
            last[:] = [await self.status(shard)]
            if not last[0].present:
                raise NotFound(f"the guest of shard {shard} is gone")
            return last[0].landed or last[0].committed

        try:
            await poll(look, seconds=_ARRIVAL_SECONDS, every=LOOK_SECONDS, woken_by=self._host.guest(shard).monitor)
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
        return await self.status(shard)

    async def status(self, shard: ShardId) -> DestinationStatus:
        """``present`` false is proof that the guest is dead: one that lives and does not answer is ``silent``."""
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
            migration, status = await asyncio.gather(here.migration(), here.monitor.execute("query-status"))
        except NotFound:
            if await here.dies(GONE_SECONDS):
                return gone
            return gone.model_copy(update={"present": True, "silent": True})
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
            fences.may_make_way(here.record, request)
            if not here.record.lives_here or await here.state() is GuestState.DEAD:
                await self._host.discard(here)
                return
        raise ConcurrentUpdate(f"shard {here.record.shard} is here already", why="its guest runs on this node")

    async def _listen(self, here: Guest, request: PrepareRequest) -> bool:
        """Accept disk and memory over TLS, from the source's certificate only; whether post-copy is possible."""
        execute, host = here.monitor.execute, self._config.underlay
        await execute("object-add", self.tls_object(here, "server"))
        await execute("object-add", {"qom-type": "authz-simple", "id": _AUTHZ, "identity": f"CN={request.source}"[:67]})
        await landing_disk.serve(here, host, authorized=_AUTHZ)
        await execute("migrate-set-parameters", {"tls-creds": TLS, "tls-authz": _AUTHZ})
        # Until `cont` the disk belongs to its mirror; without this QEMU opens it for the guest as memory arrives.
        await capabilities(here, late_block_activate=True, events=True)
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


def _same_profile(record: GuestRecord, request: PrepareRequest) -> None:
    mine, wanted = record.profile, request.profile
    different = [
        f"{name}: {getattr(wanted, name)} there, {getattr(mine, name)} here"
        for name in type(mine).model_fields
        if getattr(mine, name) != getattr(wanted, name)
    ]
    if different:
        raise MoveFailed("source and destination cannot run the same guest", why="; ".join(different))
