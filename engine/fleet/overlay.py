"""Hands agents the overlay: each waits at the control plane for the next change and gets the view of that moment."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress

import structlog
from starlette.concurrency import run_in_threadpool

from agent.overlay_wire import OverlayRequest, OverlayView
from engine.model.ids import NodeId
from engine.store.overlay_map import OverlayMap

WAIT_SECONDS = 20.0
"""An agent asks again after this long without a change: below its own time-out."""
SETTLE_SECONDS = 0.03
"""Between a change and its answers: several at once (the swaps of an evacuation) are one answer then, and who made it
goes first: a move's next command, for which a guest stands still, waited for the views of all hosts.
"""
LOOK_SECONDS = 0.5
"""How often the store is looked at for changes that another process has made."""
_log = structlog.get_logger()


class OverlayDesk:
    """``changed`` is called from any thread, everything else from the listener's event loop."""

    def __init__(self, overlay: OverlayMap, *, wait_seconds: float = WAIT_SECONDS) -> None:
        self._overlay, self._wait_seconds = overlay, wait_seconds
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: set[asyncio.Event] = set()
        self._waking: asyncio.TimerHandle | None = None
        self._generation = 0
        self._closing = False

    async def view(self, host: NodeId, request: OverlayRequest, key_sha256: str | None = None) -> OverlayView:
        """Enter what the host says about itself; the view, once it is newer than the host's or after the wait.

        ``key_sha256``: see ``OverlayMap.register``. Raises AuthenticationFailed.
        """
        if await run_in_threadpool(self._overlay.register, host, request, key_sha256):
            self.changed()
        end = asyncio.get_running_loop().time() + self._wait_seconds
        while True:
            news = asyncio.Event()
            self._waiting.add(news)  # before looking: what changes meanwhile is not missed
            try:
                generation = await run_in_threadpool(self._overlay.generation)
                left = end - asyncio.get_running_loop().time()
                if generation != request.generation or left <= 0 or self._closing:
                    return await run_in_threadpool(self._overlay.view, host)
                with suppress(TimeoutError):
                    await asyncio.wait_for(news.wait(), left)
            finally:
                self._waiting.discard(news)

    def changed(self) -> None:
        """The store has changed: everybody who waits is answered, in a moment."""
        self._soon(self._wake_in_a_moment)

    def close(self) -> None:
        """Nobody waits any longer; who asks is answered with what is known."""
        self._closing = True
        self._soon(self._wake)

    async def watch(self) -> None:
        """Until cancelled: notices what other processes change."""
        with self._lock:
            self._loop = asyncio.get_running_loop()
        while True:
            try:
                generation = await run_in_threadpool(self._overlay.generation)
            except Exception as problem:
                # Whatever it was: without this loop no host hears any more of what another process changes.
                _log.warning("the overlay's generation cannot be read", error=f"{type(problem).__name__}: {problem}")
            else:
                if generation != self._generation:
                    self._generation = generation
                    self._wake()
            await asyncio.sleep(LOOK_SECONDS)

    def _soon(self, act: Callable[[], None]) -> None:
        with self._lock:
            loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(act)

    def _wake_in_a_moment(self) -> None:
        if self._waking is None:
            self._waking = asyncio.get_running_loop().call_later(SETTLE_SECONDS, self._wake)

    def _wake(self) -> None:
        if self._waking is not None:
            self._waking.cancel()
            self._waking = None
        for news in self._waiting:
            news.set()
