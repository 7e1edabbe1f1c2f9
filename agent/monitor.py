"""One guest's QMP monitor: connects on demand, survives the agent's restart, bounded waits."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from qemu.qmp import ExecuteError, QMPClient, QMPError

from engine.errors import MoveFailed, NotFound, ShardwrightError

SOCKET_NAME = "qmp.sock"
_COMMAND_SECONDS = 10.0
_CONNECT_SECONDS = 5.0
Arguments = dict[str, Any]
"""A QMP command's arguments, spelled as QEMU spells them."""


class GuestRefused(ShardwrightError):
    """QEMU answered a command with an error."""


class Monitor:
    """QEMU accepts one client at a time, so an agent keeps one of these per guest."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._client: QMPClient | None = None
        self.stirred = asyncio.Event()
        """Set, and replaced by a fresh one, whenever QEMU tells of something by itself."""
        self._connecting = asyncio.Lock()

    async def execute(self, command: str, arguments: Arguments | None = None) -> Any:
        """Raises GuestRefused (QEMU says no) or NotFound (no QEMU there)."""
        client = await self._connected()
        try:
            return await asyncio.wait_for(client.execute(command, arguments), _COMMAND_SECONDS)
        except ExecuteError as refusal:
            raise GuestRefused(f"QEMU refuses {command}", why=str(refusal)) from refusal
        except (QMPError, OSError, TimeoutError) as problem:
            await self.close()
            raise NotFound(f"QEMU does not answer {command}", why=str(problem) or type(problem).__name__) from problem

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            try:
                await asyncio.wait_for(client.disconnect(), 1.0)
            except (QMPError, OSError, TimeoutError, EOFError):
                return

    def _stir(self, _event: object) -> bool:
        """What has happened is asked for, not read from the event: whoever polls looks again at once."""
        before, self.stirred = self.stirred, asyncio.Event()
        before.set()
        return False

    async def _connected(self) -> QMPClient:
        async with self._connecting:
            if self._client is None or self._client.runstate.name != "RUNNING":
                self._client = await self._connect()
            return self._client

    async def _connect(self) -> QMPClient:
        client = QMPClient()
        client.events.event_filter = self._stir  # nobody reads them: they would pile up
        try:
            handle = os.open(self._folder, os.O_PATH | os.O_DIRECTORY)
        except OSError as problem:
            raise NotFound("the guest has no folder", why=problem.strerror or "") from problem
        try:
            # A socket's path may have 107 letters; through the folder's handle it always fits.
            path = f"/proc/self/fd/{handle}/{SOCKET_NAME}"
            await asyncio.wait_for(client.connect(path), _CONNECT_SECONDS)
        except (QMPError, OSError, TimeoutError, EOFError) as problem:
            raise NotFound("QEMU's monitor does not answer", why=str(problem)) from problem
        finally:
            os.close(handle)
        return client


async def poll(
    check: Callable[[], Awaitable[Any]],
    *,
    seconds: float,
    every: float = 0.005,
    what: str = "QEMU",
    woken_by: Monitor | None = None,
) -> Any:
    """Await ``check()`` until it returns something true; MoveFailed when the time is up.

    ``woken_by``: looks at once whenever that QEMU tells of something, and ``every`` so often in between all the same.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while True:
        stirred = woken_by.stirred if woken_by else asyncio.Event()  # before the look: what happens in it counts too
        found = await check()
        if found:
            return found
        if loop.time() >= end:
            raise MoveFailed(f"{what} took longer than {seconds:g} s")
        with suppress(TimeoutError):
            await asyncio.wait_for(stirred.wait(), every)
