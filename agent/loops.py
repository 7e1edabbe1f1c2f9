"""The agent's endless work: begun again when it fails as nobody thought it would, ended together with the agent."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

PAUSE_SECONDS = 2.0
_LOG = logging.getLogger("agent.loops")


def begin(
    what: str, work: Callable[[], Awaitable[object]], *, pause_seconds: float = PAUSE_SECONDS
) -> asyncio.Task[None]:
    """A task that does ``work`` until it returns or is cancelled; ``what`` names it in the log when it fails.

    A full disk or a program that hangs must not end the work for good: nobody would notice before a guest is stopped.
    """
    return asyncio.create_task(_kept(what, work, pause_seconds), name=what)


async def end(tasks: Sequence[asyncio.Task[None]]) -> None:
    """All of them are over on return, however they end."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _kept(what: str, work: Callable[[], Awaitable[object]], pause_seconds: float) -> None:
    while True:
        try:
            await work()
            return
        except Exception:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # what failed was the ending
            _LOG.exception("%s failed, and is begun again", what)
        await asyncio.sleep(pause_seconds)
