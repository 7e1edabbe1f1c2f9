"""From nothing to a guest that is up: restored from a template where its image allows that, else booted."""

import logging
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from agent import console, guest, readiness
from agent.guest import GuestRecord
from agent.monitor import poll
from agent.node_guest import Guest
from agent.templates import Templates, identity, key
from engine.clock import Clock
from engine.errors import MissingPart
from engine.model.ids import ShardId

_IDENTITY_SECONDS = 10.0
USUAL_MTU = 1400
"""Where nothing says what the overlay carries."""
_LOG = logging.getLogger("agent.boots")


class Launcher(Protocol):
    async def launch(self, here: Guest, *, restoring: bool = False) -> None:
        """Start its QEMU; ``restoring``: one that waits for a template."""

    async def end_guest(self, here: Guest) -> None:
        """Prove its process dead."""


class Boots:
    """``turn``: whoever boots waits for it; guests that boot side by side without KVM starve each other.

    ``mtu``: of the guests' links.
    """

    def __init__(
        self,
        launcher: Launcher,
        templates: Templates,
        clock: Clock,
        turn: Callable[[], AbstractAsyncContextManager[None]],
        mtu: int = USUAL_MTU,
    ) -> None:
        self._launcher, self._templates, self._clock, self._turn = launcher, templates, clock, turn
        self._mtu = mtu

    async def boot(self, here: Guest) -> None:
        """Returns when the workload is up; an earlier try that never ended is ended first.

        The record says ``booting`` from then on, until the caller has done with the guest what else belongs to it.
        Raises MissingPart, MoveFailed when it takes too long; then nothing runs.
        """
        await self._launcher.end_guest(here)
        here.save(booting=True)
        try:
            await self._boot(here)
        except Exception:
            await self._launcher.end_guest(here)
            raise

    async def _boot(self, here: Guest) -> None:
        began = await self._restored(here) if may_be_copied(here.record) else None
        from_template = began is not None
        if began is not None:
            await self._come_up_restored(here)
        else:
            async with self._turn():
                began = time.monotonic()
                await self._launcher.launch(here)
                if here.record.speaks:
                    await self._until(here, "the guest's boot", guest.waits)
                await self._come_up(here)
        seconds = round(time.monotonic() - began, 3)
        here.save(measured=guest.measured(here.run, seconds, from_template=from_template))

    async def _come_up_restored(self, here: Guest) -> None:
        """A template of no use may restore well: the next try boots."""
        try:
            await self._come_up(here)
        except Exception:
            self._templates.forget(shape(here))
            raise

    async def _come_up(self, here: Guest) -> None:
        record = here.record
        if record.speaks:
            await console.ask(here.run, identity(here, self._mtu, self._clock), "identity", _IDENTITY_SECONDS)

        async def up() -> bool:
            _require_life(here)
            return await readiness.is_up(record, here.run)

        await poll(up, seconds=readiness.seconds(record), every=0.02, what="the guest's boot")

    async def _restored(self, here: Guest) -> float | None:
        """When that began, by ``time.monotonic``; None: there is no template to be had.

        The first guest of a shape makes the template, and is itself restored from it: all are alike.
        """
        name = shape(here)
        template = self._templates.find(name)
        if template is None:
            async with self._turn():
                template = self._templates.find(name) or await self._made(name, here)
        if template is None:
            return None
        began = time.monotonic()
        await self._launcher.launch(here, restoring=True)
        if await self._templates.restore(template, here):
            return began
        await self._launcher.end_guest(here)
        return None

    async def _made(self, name: str, here: Guest) -> Path | None:
        await self._launcher.launch(here)
        await self._until(here, "the first boot of its kind", guest.waits)
        template = await self._templates.keep(name, here)
        await self._launcher.end_guest(here)
        if template is not None:
            _LOG.info("template %s kept, %d MiB", name[:16], template.stat().st_size >> 20)
        return template

    async def _until(self, here: Guest, what: str, reached: Callable[[Path], bool]) -> None:
        async def look() -> bool:
            _require_life(here)
            return reached(here.run)

        await poll(look, seconds=readiness.seconds(here.record), every=0.02, what=what)


def may_be_copied(record: GuestRecord) -> bool:
    """Whether a template can be made of it. Not where its disk holds code: that has run by the time it waits."""
    own = record.profile.image
    return record.speaks and record.tap is not None and record.attached is None and (own is None or own.disk is None)


def shape(here: Guest) -> str:
    """The template's name: what two guests must share so that one's memory may become the other's."""
    anybody = {"shard": ShardId("any"), "mac": "52:54:00:00:00:00", "address": "0.0.0.0/0", "incoming": False}
    alike = here.record.model_copy(update=anybody)
    direct = guest.supports_direct_io(here.folder / "disk.raw")
    line = guest.command_line(alike, direct_io=direct, mtu=None, tap=0)
    # The disk's size is in the guest's memory, and in no argument.
    return key([*line, f"disk {here.record.disk_mib}"], here.record.profile)


def _require_life(here: Guest) -> None:
    if not here.alive:
        lines = guest.console(here.run).strip().splitlines()
        raise MissingPart("the guest died while booting", why=lines[-1] if lines else "")
