"""Work that waits for others, in threads that end with the process: an agent that ends waits for no silent server."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


class Detached:
    """So many are waited for at a time. Unlike a pool's threads they do not keep Python from ending."""

    def __init__(self, at_once: int, name: str) -> None:
        self._room, self._name = asyncio.Semaphore(at_once), name

    async def run(self, act: Callable[[], T]) -> T:
        """What it returns, or raises; RuntimeError for what would end a thread or a loop (SystemExit …).

        Whoever is cancelled waits no longer and gives its place away, though its thread goes on until it has ended.
        """
        async with self._room:
            loop = asyncio.get_running_loop()
            ended: asyncio.Future[T] = loop.create_future()

            def tell(result: Callable[[], T]) -> None:
                if not ended.done():
                    try:
                        ended.set_result(result())
                    except Exception as problem:
                        ended.set_exception(problem)

            threading.Thread(target=_work, args=(act, tell, loop), name=self._name, daemon=True).start()
            return await ended


def _work(act: Callable[[], T], tell: Callable[[Callable[[], T]], None], loop: asyncio.AbstractEventLoop) -> None:
    try:
        found = act()
    except BaseException as problem:  # whatever it is, somebody waits
        common = isinstance(problem, Exception) and not isinstance(problem, StopIteration)
        raised = problem if common else RuntimeError(f"broken off by {problem!r}")

        def result() -> T:
            raise raised
    else:

        def result() -> T:
            return found

    with suppress(RuntimeError):  # the loop is closed: nobody wants to know any more
        loop.call_soon_threadsafe(tell, result)
