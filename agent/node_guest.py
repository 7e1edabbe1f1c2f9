"""One guest of this node, as the agent holds it: its folder, its record, its monitor."""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from agent import guest
from agent.epochs import put_in_place, write_durably, written_beside
from agent.guest import GuestRecord
from agent.monitor import GuestRefused, Monitor, poll
from agent.wire import GuestState, MemoryDigest
from engine.errors import MoveFailed, NotFound

if TYPE_CHECKING:
    from agent.sending import FirstPass

_DYING_SECONDS = 1.0
_LOG = logging.getLogger("agent.node_guest")


class Guest:
    """A guest's folder, record and monitor. ``busy`` serialises commands; reading the status does not need it."""

    def __init__(self, folder: Path, record: GuestRecord) -> None:
        self.folder, self.record = folder, record
        self.run = folder / guest.RUN_FOLDER
        self.monitor = Monitor(self.run)
        self.busy = asyncio.Lock()
        self.digesting: asyncio.Task[MemoryDigest] | None = None
        """Begun when a switchover paused the guest."""
        self.first_pass: FirstPass | None = None
        """While its memory is sent in one pass (agent.sending)."""
        self.exact = False
        """It has lost no page on its way. Not kept over the agent's death: then memory is compared."""
        self.mirrored = False
        """A switchover has ended the mirror. Not kept over the agent's death: then the move is given up."""
        self.sending_rest: asyncio.Task[None] | None = None
        """Since a switchover that sent the rest at once: sees to it that the guest does not run on by itself."""
        self.sent_at: float | None = None
        """When all its memory was seen to be sent, by ``time.perf_counter``."""
        self.heard_now()

    def heard_now(self) -> None:
        """Somebody drives its move, or the agent has just begun to look."""
        self.heard = time.monotonic()

    def save(self, **changes: object) -> None:
        """Change the record, on disk first."""
        fresh = self.record.model_copy(update=changes)
        write_durably(self.folder / "shard.json", fresh.model_dump_json().encode())
        self.record = fresh

    def staged(self, **changes: object) -> Callable[[], None]:
        """``save`` in two parts: the change is on disk on return, and in force once what is returned was called."""
        before = self.record
        fresh = before.model_copy(update=changes)
        scratch = written_beside(self.folder / "shard.json", fresh.model_dump_json().encode())

        def put() -> None:
            if self.record is not before:  # somebody has saved meanwhile
                self.save(**changes)
                return
            put_in_place(scratch, self.folder / "shard.json")
            self.record = fresh

        return put

    @property
    def alive(self) -> bool:
        return guest.alive(self.record)

    async def dies(self, seconds: float) -> bool:
        """Whether a guest whose monitor is silent is dead, or will be within that time.

        A process that dies closes its monitor some time before it is dead; one that lives may have stalled.
        """

        async def dead() -> bool:
            return not self.alive

        try:
            await poll(dead, seconds=seconds, every=0.02)
        except MoveFailed:
            return False
        return True

    async def state(self) -> GuestState:
        if not self.alive:
            return GuestState.DEAD
        if self.record.incoming:
            return GuestState.INCOMING
        if guest.stopped(self.record):  # by the watchdog: its monitor cannot answer
            return GuestState.PAUSED
        try:
            said = await self.monitor.execute("query-status")
        except NotFound:
            return GuestState.DEAD if await self.dies(_DYING_SECONDS) else GuestState.HUNG
        return GuestState.RUNNING if said["running"] else GuestState.PAUSED

    async def migration(self) -> str:
        """QEMU's word about its last migration, "none" before the first. Raises NotFound."""
        return str((await self.monitor.execute("query-migrate")).get("status", "none"))


async def quietly(here: Guest, command: str, **arguments: object) -> None:
    """For clean-up: what is not there any more needs no removal."""
    try:
        await here.monitor.execute(
            command, {name.replace("_", "-"): value for name, value in arguments.items()} or None
        )
    except (GuestRefused, NotFound) as problem:
        _LOG.debug("%s: %s", command, problem)
