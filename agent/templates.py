"""Guests that have booted already: a checkpoint of one that waits for its identity, from which others are restored.

A guest whose image speaks boots to the point where it would become somebody: no address, no byte read from its disk,
nothing served, nothing secret. There it waits for a line on its console (``Identity``). What it is at that moment is
kept once for every shape of guest, and every shard of the shape begins as a copy of it with a new disk, so its boot
takes some tenths of a second.
"""

import asyncio
import hashlib
import logging
import os
import secrets
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from agent import guest, processes
from agent.monitor import GuestRefused, poll
from agent.node_guest import Guest
from agent.reseed import SEED_BYTES
from agent.wire import GuestProfile
from engine.clock import Clock
from engine.errors import MoveFailed, NotFound

_SOCKET = "template.sock"
_SECONDS = 30.0
_MOST_KEPT = 6
"""About 90 MB each for a small guest."""
_FAILURES = (GuestRefused, MoveFailed, NotFound, OSError)
_LOG = logging.getLogger("agent.templates")


def identity(here: Guest, mtu: int, clock: Clock) -> str:
    """What makes the guest this shard, as one line for its console. The seed is used once and kept nowhere."""
    record = here.record
    now, seed = int(clock.now().timestamp()), secrets.token_hex(SEED_BYTES)
    return f"become {record.address} {record.mac} {mtu} {now} {record.shard[:64]} {seed}"


def key(line: Sequence[str], profile: GuestProfile) -> str:
    """Names the shape of a guest: QEMU's command line, but for what differs between two shards, and the profile."""
    return hashlib.sha256("\0".join((*line, profile.model_dump_json())).encode()).hexdigest()


class Templates:
    """In a folder that only the agent's user can read. Agents of one host share it; whoever is late finds it there."""

    def __init__(self, folder: Path) -> None:
        """Made once by each agent, when it begins: what one that died has left half goes."""
        self._folder = folder
        processes.remove_scratch(folder, mine=True)

    def find(self, name: str) -> Path | None:
        path = self._folder / name
        with suppress(OSError):
            os.utime(path)
            return path
        return None

    def forget(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)

    async def keep(self, name: str, here: Guest) -> Path | None:
        """Of a guest that waits for its identity, and is stopped with this. None: it could not be had."""
        scratch = self._folder / f".{name}.{os.getpid()}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with _listening(here) as listener:
                receiving = asyncio.create_task(asyncio.to_thread(_receive, listener, scratch))
                try:
                    await here.monitor.execute("stop")
                    await here.monitor.execute("migrate-set-parameters", {"max-bandwidth": 0})
                    await here.monitor.execute("migrate", {"uri": f"unix:{_SOCKET}"})
                    await _completed(here)
                except _FAILURES:
                    with suppress(OSError):  # whoever waits for a connection is woken
                        listener.shutdown(socket.SHUT_RDWR)
                        await receiving
                    raise
                await receiving
            return self._enter(scratch, name)
        except _FAILURES as problem:
            _LOG.warning("no template of %s: %s", here.record.shard, problem)
            return None
        finally:
            scratch.unlink(missing_ok=True)

    async def restore(self, path: Path, here: Guest) -> bool:
        """Into a QEMU that was started to wait; False: it could not be, and the template is thrown away."""
        try:
            await here.monitor.execute("migrate-incoming", {"uri": f"unix:{_SOCKET}"})
            await asyncio.to_thread(_send, path, here.run)
            await _completed(here)
            await here.monitor.execute("cont")
        except _FAILURES as problem:
            _LOG.warning("template %s is of no use: %s", path.name[:16], problem)
            path.unlink(missing_ok=True)
            return False
        return True

    def _enter(self, scratch: Path, name: str) -> Path:
        path = self._folder / name
        scratch.rename(path)
        kept = sorted(self._folder.glob("[0-9a-f]*"), key=lambda one: one.stat().st_mtime, reverse=True)
        for old in kept[_MOST_KEPT:]:
            old.unlink(missing_ok=True)
        return path


@contextmanager
def _listening(here: Guest) -> Iterator[socket.socket]:
    """A socket in the guest's own folder, which its QEMU's user may open."""
    path = here.run / _SOCKET
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener, _reachable(here.run) as short:
        listener.settimeout(_SECONDS)
        listener.bind(short)
        listener.listen(1)
        user = guest.user_for(here.folder, here.record.profile.accelerator)
        if user is not None:
            os.chown(path, user, user, follow_symlinks=False)  # the folder is its QEMU's user's
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def _reachable(run: Path) -> Iterator[str]:
    """A socket's path may have 107 letters; through the folder's handle it always fits."""
    handle = os.open(run, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{handle}/{_SOCKET}"
    finally:
        os.close(handle)


def _receive(listener: socket.socket, path: Path) -> None:
    connection, _ = listener.accept()
    with connection, os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        connection.settimeout(_SECONDS)
        while chunk := connection.recv(1 << 20):
            out.write(chunk)
        out.flush()
        os.fsync(out.fileno())


def _send(path: Path, run: Path) -> None:
    with path.open("rb") as source, socket.socket(socket.AF_UNIX) as connection, _reachable(run) as short:
        connection.settimeout(_SECONDS)
        connection.connect(short)
        connection.sendfile(source)


async def _completed(here: Guest) -> None:
    async def ended() -> str | None:
        said = await here.migration()
        return said if said in ("completed", "failed", "cancelled") else None

    if (said := await poll(ended, seconds=_SECONDS, every=0.005, what="the checkpoint")) != "completed":
        raise MoveFailed("the checkpoint failed", why=f"QEMU says {said}")
