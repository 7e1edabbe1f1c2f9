"""Files of own images on this node: each is had once, proved by its digest, and kept under it.

A file comes from the node's image folder (whoever runs the node has put it there) or over https. Nothing is used, and
nothing gets its name under ``files/``, before the digest of all of it is the one that was asked for.
"""

import asyncio
import hashlib
import logging
import os
import shutil
import ssl
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from threading import Event
from urllib.parse import urlsplit

import httpx

from agent import processes
from agent.detached import Detached
from agent.image import GuestImage
from engine.errors import MissingPart, UsageError
from engine.model.workload_image import ImageFile, WorkloadImage

LARGEST_BYTES = 64 << 30
_SPARE_BYTES = 1 << 30
"""Of the file system, that no image may take."""
_CHUNK_BYTES = 1 << 20
_TRIES, _PAUSE_SECONDS = 3, 2.0
_TIMEOUT = httpx.Timeout(30.0, connect=10.0)
_TOTAL_SECONDS = 1800.0
_FETCHES = 2
"""At a time, in threads of their own: a slow server must not take those that the rest of the agent works in."""
_NOT_RAW = {b"QFI\xfb": "qcow2", b"KDMV": "vmdk", b"vhdx": "vhdx"}
_LOG = logging.getLogger("agent.image_store")


class ImageStore:
    """One per agent; files that two shards want are fetched once. Use from one event loop."""

    def __init__(self, folder: Path, tls: ssl.SSLContext | None = None, pause_seconds: float = _PAUSE_SECONDS) -> None:
        """``tls``: whose certificates are believed; None: the system's."""
        self._folder, self._tls, self._pause_seconds = folder, tls, pause_seconds
        self._coming: dict[str, asyncio.Task[Path]] = {}
        self._fetches = Detached(_FETCHES, "image")
        self._ending = Event()

    def close(self) -> None:
        """Give up what is on its way, without waiting for it."""
        self._ending.set()

    async def get(self, wanted: WorkloadImage, *, disk: bool, seconds: float) -> GuestImage:
        """The image, its files on this node. ``disk``: its disk, too (a shard that arrives by a move brings its own).

        What takes longer than ``seconds`` goes on coming in the background: then MissingPart, ask again.
        """
        files = {"kernel": wanted.kernel, "initrd": wanted.initrd, "disk": wanted.disk if disk else None}
        wanted_files = {name: file for name, file in files.items() if file is not None}
        paths = {name: str(kept) for name, file in wanted_files.items() if (kept := self._kept(file)).exists()}
        tasks = {name: self._task(file) for name, file in wanted_files.items() if name not in paths}
        if tasks:
            _, late = await asyncio.wait(tasks.values(), timeout=seconds)
            if late:
                raise MissingPart(
                    f"image {wanted.name} is not here yet", why=f"it has been fetched for {seconds:g} s and goes on",
                    next_step="ask again",
                )  # fmt: skip
        paths |= {name: str(await task) for name, task in tasks.items()}
        return GuestImage(
            name=wanted.name, digest=wanted.digest, kernel_version="",
            kernel=paths.get("kernel", ""), initrd=paths.get("initrd", ""), disk=paths.get("disk", ""),
        )  # fmt: skip

    def _task(self, file: ImageFile) -> asyncio.Task[Path]:
        task = self._coming.get(file.sha256)
        if task is None or task.done():
            task = self._coming[file.sha256] = asyncio.create_task(self._had(file))
            task.add_done_callback(_note)
        return task

    async def _had(self, file: ImageFile) -> Path:
        if file.is_fetched:
            return await self._fetches.run(partial(self._have, file))
        return await asyncio.to_thread(self._have, file)

    def _kept(self, file: ImageFile) -> Path:
        return self._folder / "files" / file.sha256

    def _have(self, file: ImageFile) -> Path:
        """Raises MissingPart, UsageError."""
        kept = self._kept(file)
        if kept.exists():
            return kept
        self._go_on(file)
        kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        processes.remove_scratch(kept.parent)
        scratch = kept.with_name(f".{file.sha256}.{os.getpid()}")
        try:
            for left in reversed(range(_TRIES)):
                try:
                    self._store(file, scratch)
                    break
                except httpx.HTTPError as problem:
                    if not left or not _may_pass(problem):
                        raise MissingPart(f"{_shown(file)} cannot be fetched", why=_reason(problem)) from problem
                    _LOG.warning("%s: %s; trying again", _shown(file), _reason(problem))
                    self._ending.wait(self._pause_seconds)
                    self._go_on(file)
            scratch.rename(kept)
        except OSError as problem:
            raise MissingPart(f"{_shown(file)} cannot be kept", why=problem.strerror or str(problem)) from problem
        finally:
            scratch.unlink(missing_ok=True)
        return kept

    def _store(self, file: ImageFile, target: Path) -> None:
        digest, head, size = hashlib.sha256(), b"", 0
        room = min(LARGEST_BYTES, shutil.disk_usage(target.parent).free - _SPARE_BYTES)
        with target.open("wb") as out:
            for chunk in self._fetched(file) if file.is_fetched else self._copied(file):
                self._go_on(file)
                size += len(chunk)
                if size > room:
                    raise MissingPart(f"{_shown(file)} is too large", why=f"at most {max(0, room)} bytes fit here")
                head = (head + chunk)[:4] if len(head) < 4 else head
                digest.update(chunk)
                if chunk.count(0) == len(chunk):
                    out.seek(len(chunk), os.SEEK_CUR)  # a hole
                else:
                    out.write(chunk)
            out.truncate(size)
            out.flush()
            os.fsync(out.fileno())
        if digest.hexdigest() != file.sha256:
            raise MissingPart(
                f"{_shown(file)} is not what was asked for", why=f"its SHA-256 is {digest.hexdigest()}",
                next_step=f"give that digest, or the file with {file.sha256}",
            )  # fmt: skip
        if head in _NOT_RAW:
            raise UsageError(
                f"{_shown(file)} is a {_NOT_RAW[head]} file", why="disks are raw",
                next_step="qemu-img convert -O raw",
            )  # fmt: skip

    def _copied(self, file: ImageFile) -> Iterator[bytes]:
        try:
            with (self._folder / file.source).open("rb") as source:
                while chunk := source.read(_CHUNK_BYTES):
                    yield chunk
        except OSError as problem:
            raise MissingPart(
                f"{_shown(file)} cannot be read", why=f"{problem.strerror} in {self._folder}",
                next_step="put it there, or give an https URL",
            ) from problem  # fmt: skip

    def _fetched(self, file: ImageFile) -> Iterator[bytes]:
        end = time.monotonic() + _TOTAL_SECONDS
        verify = True if self._tls is None else self._tls
        with (
            httpx.Client(verify=verify, timeout=_TIMEOUT, follow_redirects=False) as client,
            client.stream("GET", file.source, headers={"Accept-Encoding": "identity"}) as answer,
        ):
            answer.raise_for_status()  # a redirection is none
            held = bytearray()
            for piece in answer.iter_bytes():  # as it comes: a server that drips would else never be looked at
                self._go_on(file)
                if time.monotonic() > end:
                    raise MissingPart(f"{_shown(file)} comes too slowly", why=f"not whole in {_TOTAL_SECONDS:g} s")
                held += piece
                if len(held) >= _CHUNK_BYTES:
                    yield bytes(held)
                    held.clear()
            yield bytes(held)

    def _go_on(self, file: ImageFile) -> None:
        if self._ending.is_set():
            raise MissingPart(f"{_shown(file)} is not here yet", why="the agent ends")


def _note(task: asyncio.Task[Path]) -> None:
    """Whoever asked for the file may have gone away."""
    if not task.cancelled() and (problem := task.exception()) is not None:
        _LOG.warning("%s", problem)


def _shown(file: ImageFile) -> str:
    """Without what a URL may carry behind its path."""
    parts = urlsplit(file.source)
    return f"{parts.scheme}://{parts.netloc}{parts.path}" if file.is_fetched else file.source


def _may_pass(problem: httpx.HTTPError) -> bool:
    """Whether another try may go better."""
    if isinstance(problem, httpx.HTTPStatusError):
        return problem.response.status_code in (408, 429) or problem.response.status_code >= 500
    return isinstance(problem, httpx.TransportError)


def _reason(problem: httpx.HTTPError) -> str:
    if isinstance(problem, httpx.HTTPStatusError):
        return f"status {problem.response.status_code}"
    return str(problem) or type(problem).__name__
