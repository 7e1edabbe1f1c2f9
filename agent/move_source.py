"""The source's half of a live move: disk and memory are sent, then the guest stands still until the store decides."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from agent import fences, guest, memory, mirror, sending
from agent.monitor import GuestRefused, poll
from agent.move_side import GONE_SECONDS, LOOK_SECONDS, TLS, MoveSide
from agent.node_guest import Guest, quietly
from agent.postcopy import POST_COPY, capabilities, start_post_copy
from agent.sending import ENDED
from agent.wire import (
    Landing,
    MemoryDigest,
    MemoryPatch,
    MemoryRequest,
    MirrorRequest,
    MoveCommand,
    Proceeded,
    SendRequest,
    SourceStatus,
    SwitchoverRequest,
    TuneRequest,
)
from engine.errors import MoveFailed, NotFound, ProviderUnavailable, ShardwrightError, UsageError
from engine.model.ids import ShardId

_NO_THROTTLE, _THROTTLE = 100, 50
"""Per cent of what is sent that a guest may dirty before auto-converge slows it down; 100: as good as never."""
_SWITCH_SECONDS = 30.0
_CANCEL_SECONDS = 15.0
_DYING_SECONDS = 3.0
_HEAD_START_SECONDS = 0.001
"""For QEMU to be told before this process goes on: what QEMU then does takes longer than what is done beside it."""
_LOG = logging.getLogger("agent.move_source")


class MoveSource(MoveSide):
    """Each command may be repeated."""

    async def status(self, shard: ShardId) -> SourceStatus:
        """Raises NotFound for a guest that is dead, or stopped since its run lease is over; ProviderUnavailable for one
        that lives and does not answer: its memory is there still, so it must not be given up for dead.
        """
        here = self._host.guest(shard)
        if not here.alive:
            raise NotFound(f"the guest of shard {shard} is gone")
        questions = ("query-migrate", "query-status", "query-block-jobs")
        try:
            said, status, jobs = await asyncio.gather(*(here.monitor.execute(question) for question in questions))
        except NotFound as silence:
            if guest.stopped(here.record) or await here.dies(GONE_SECONDS):
                raise
            raise ProviderUnavailable(f"QEMU of shard {shard} does not answer", why=str(silence)) from silence
        return _told(here, said, running=bool(status["running"]), jobs=jobs)

    async def mirror(self, shard: ShardId, request: MirrorRequest) -> SourceStatus:
        """Start copying the disk; from now on every write goes to both sides before the guest hears of it."""
        async with self.driven(shard, request, fences.may_join) as here:
            here.save(move=request.move, committing=False)
            status = await self.status(shard)
            if not status.mirror_present and status.migration in ENDED and fences.may_mirror(here.record):
                await self._start_mirror(here, request.landing)
        return await self.status(shard)

    async def _start_mirror(self, here: Guest, landing: Landing) -> None:
        if here.sending_rest is not None:
            here.sending_rest.cancel()
        # What an earlier move has found.
        here.mirrored, here.exact, here.digesting, here.sending_rest, here.sent_at = False, False, None, None, None
        self._host.lift_cpu(here)
        await mirror.forget(here)
        await quietly(here, "object-del", id=TLS)
        await here.monitor.execute("object-add", self.tls_object(here, "client"))
        await mirror.start(here, landing)

    async def precopy(self, shard: ShardId, request: SendRequest) -> SourceStatus:
        """Start sending memory; QEMU will wait for us before it hands over."""
        async with self.driven(shard, request) as here:
            status = await self.status(shard)
            if not (status.mirror_ready or status.migration not in ENDED):
                raise MoveFailed("memory cannot go before the disk is mirrored", why=status.error)
            if status.migration in ENDED:
                parameters = {
                    "tls-creds": TLS,
                    "tls-hostname": request.landing.node,
                    "max-bandwidth": 0,
                    "downtime-limit": sending.first_limit_ms(here),
                    "throttle-trigger-threshold": _NO_THROTTLE,
                }
                await capabilities(
                    here,
                    events=True,
                    pause_before_switchover=True,
                    postcopy_ram=request.landing.post_copy,
                    auto_converge=request.auto_converge,
                )
                await here.monitor.execute("migrate-set-parameters", parameters)
                here.save(sent_for=request.move)
                await sending.start(here, f"tcp:{request.landing.host}:{request.landing.memory_port}")
        return await self.status(shard)

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
        return await self.status(shard)

    async def switchover(self, shard: ShardId, command: SwitchoverRequest, wait_seconds: float) -> SourceStatus:
        """Wait until the guest is paused for the switchover, then end the mirror: both disks are equal on return.

        The rest of the memory is on its way then where ``command`` wants it. Nothing is decided by that: the guest runs
        on, here or there, by the store's word only. Returns the present status when the pause has not come in time
        (``migration`` is then still "active").
        """
        here = self._host.guest(shard)
        self.admit(here, command, fences.in_move)
        # Written now, in force once the guest stands still: then nothing is to be flushed but its place in the folder.
        hand_over = here.staged(handing_over=True) if command.send_rest else None
        said: dict[str, Any] = {}
        jobs: list[dict[str, Any]] = []

        async def reached() -> bool:
            nonlocal said, jobs
            said, jobs = await asyncio.gather(*map(here.monitor.execute, ("query-migrate", "query-block-jobs")))
            await sending.watch(here, said)
            return said.get("status", "none") in ("pre-switchover", "device", *ENDED)

        try:
            await poll(reached, seconds=wait_seconds, every=LOOK_SECONDS, woken_by=here.monitor)
        except MoveFailed:
            await reached()  # QEMU answers late while it stops the guest: the last look may be the one before the pause
        if said.get("status") != "pre-switchover":
            return await self.status(shard)
        async with self.driven(shard, command):
            if here.mirrored:
                return await self.status(shard)
            paused = _told(here, said, running=False, jobs=jobs)
            return await self._hand_over(here, paused, hand_over, exact=sending.exact(here, said))

    async def _hand_over(
        self, here: Guest, before: SourceStatus, hand_over: Callable[[], None] | None, *, exact: bool
    ) -> SourceStatus:
        """The guest stands still, so nothing is asked twice here and nothing waits that can be done beside it.

        ``before``: a look at it since the pause. A mirror that was ready then made both disks equal, and nothing has
        been written since.
        """
        if not before.mirror_ready:
            return before  # it broke off, or it was cut short: what is there is no copy
        ended = asyncio.create_task(mirror.end(here))
        try:
            if hand_over is not None:
                await asyncio.wait({ended}, timeout=_HEAD_START_SECONDS)
                hand_over()
        finally:
            await ended
        here.exact = exact
        if hand_over is not None:
            here.sending_rest = asyncio.create_task(self._send_rest(here))
            await asyncio.wait({here.sending_rest}, timeout=_HEAD_START_SECONDS)
        if not exact:
            # Beside the store's swap and the last of the copying: the guest is paused, its memory stays as it is.
            here.digesting = asyncio.create_task(asyncio.to_thread(memory.digest, here.record.pid))
        word = "pre-switchover" if hand_over is None else "device"
        return before.model_copy(update={"mirror_present": False, "mirrored": True, "exact": exact, "migration": word})

    async def _send_rest(self, here: Guest) -> None:
        """Whatever becomes of the controller: where the rest cannot be sent, the guest does not run on unasked."""
        move = here.record.move
        while here.alive and here.record.handing_over and here.record.move == move:
            try:
                await quietly(here, "migrate-continue", state="pre-switchover")
                await self._until_sent(here)
                async with here.busy:
                    if here.alive:  # or it was cleared away meanwhile, and another may be in its place
                        await self.stop_given_away(here)
                return
            except (ShardwrightError, GuestRefused) as problem:  # a dead link may keep QEMU at it for minutes
                _LOG.warning("shard %s, while its last memory is sent: %s", here.record.shard, problem)
                await asyncio.sleep(LOOK_SECONDS)

    async def _until_sent(self, here: Guest) -> None:
        async def ended() -> bool:
            said = await here.migration()
            return said in ENDED or said.startswith(POST_COPY)

        what = "the last part of the memory"
        await poll(ended, seconds=_SWITCH_SECONDS, every=LOOK_SECONDS, what=what, woken_by=here.monitor)
        here.sent_at = here.sent_at or time.perf_counter()

    async def proceed(self, shard: ShardId, command: MoveCommand) -> Proceeded:
        """After the store has given the shard away: send the rest, where it is not on its way or there already.

        The guest stays paused here as a rollback copy.
        """
        async with self.driven(shard, command) as here:
            if not here.record.ceded_epoch:
                here.save(ceded_epoch=command.epoch)
            await quietly(here, "migrate-continue", state="pre-switchover")
            await self._until_sent(here)
            sent = here.sent_at or time.perf_counter()
            await self.stop_given_away(here)
            status = await self.status(shard)
            sure = here.exact or status.migration != "completed"
            digest = None if sure else await self._digest(here)
            return Proceeded(status=status, memory=digest, seconds_since_sent=time.perf_counter() - sent)

    async def memory(self, shard: ShardId, request: MemoryRequest) -> MemoryPatch:
        """Chunks of what was sent, for a destination that has not got them."""
        here = self._host.guest(shard)
        self.admit(here, request, fences.in_move)
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
                    if not await here.dies(_DYING_SECONDS):
                        raise MoveFailed(f"the guest of shard {shard} does not answer", why=str(silence)) from silence
                    # The shard is this node's, so its disk may be booted again.
                    here.save(move=None, ceded_epoch=0, handing_over=False)
                    raise NotFound(f"the guest of shard {shard} is gone", why=str(silence)) from silence
        return await self.status(shard)

    async def stop_given_away(self, here: Guest) -> None:
        """QEMU lets a guest run on when the rest cannot be sent; but the store may have given this one away already."""
        if not fences.must_stop(here.record, running=True):
            return
        if fences.must_stop(here.record, running=bool((await here.monitor.execute("query-status"))["running"])):
            here.mirrored = False  # it has written since
            await here.monitor.execute("stop")

    async def _stop_sending(self, here: Guest) -> None:
        await quietly(here, "migrate_cancel")

        async def stopped() -> bool:
            return await here.migration() in ENDED

        await poll(stopped, seconds=_CANCEL_SECONDS, what="giving up the move")
        await mirror.give_up(here)
        await quietly(here, "object-del", id=TLS)

    async def _run_on(self, here: Guest) -> None:
        # Before it runs, or an agent that comes after this one would stop it; and still in its move, so that one that
        # finds it paused asks about it.
        here.mirrored = False
        here.save(ceded_epoch=0, handing_over=False)
        if not (await here.monitor.execute("query-status"))["running"]:
            await here.monitor.execute("cont")
            await quietly(here, "announce-self", initial=20, max=300, rounds=6, step=60)
        here.save(move=None)
        await self._host.apply_limits(here, here.record.resources)


def _told(here: Guest, said: dict[str, Any], *, running: bool, jobs: list[dict[str, Any]]) -> SourceStatus:
    """From what QEMU has answered."""
    word = fences.word_on(here.record, said.get("status", "none"))
    if word == "none":
        said = {}
    job = mirror.under_way(jobs)
    memory = said.get("ram", {})
    return SourceStatus(
        running=running,
        mirror_present=job is not None,
        mirror_ready=bool(job and job["ready"]),
        mirrored=fences.still_mirrored(here.record, here.mirrored, running=running, migration=word),
        exact=here.exact,
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
