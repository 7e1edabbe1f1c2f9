"""Hands agents the overlay: each waits at the control plane for the next change and gets the view of that moment."""

import asyncio
import threading
from contextlib import suppress

import structlog
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from agent.overlay_wire import OverlayRequest, OverlayView
from engine.model.ids import NodeId
from engine.store.overlay_map import OverlayMap

WAIT_SECONDS = 20.0
"""An agent asks again after this long without a change: below its own time-out."""
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
        self._generation = 0
        self._closing = False

    async def view(self, host: NodeId, request: OverlayRequest) -> OverlayView:
        """Enter what the host says about itself; the view, once it is newer than the host's or after the wait.

        Raises AuthenticationFailed.
        """
        if await run_in_threadpool(self._overlay.register, host, request):
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
        """The store has changed: everybody who waits is answered."""
        with self._lock:
            loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._wake)

    def close(self) -> None:
        """Nobody waits any longer; who asks is answered with what is known."""
        self._closing = True
        self.changed()

    async def watch(self) -> None:
        """Until cancelled: notices what other processes change."""
        with self._lock:
            self._loop = asyncio.get_running_loop()
        while True:
            try:
                generation = await run_in_threadpool(self._overlay.generation)
            except SQLAlchemyError as problem:
                _log.warning("the overlay's generation cannot be read", error=type(problem).__name__)
            else:
                if generation != self._generation:
                    self._generation = generation
                    self._wake()
            await asyncio.sleep(LOOK_SECONDS)

    def _wake(self) -> None:
        for news in self._waiting:
            news.set()
