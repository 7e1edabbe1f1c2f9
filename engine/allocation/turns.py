"""Turns: so many threads at once, in the order in which they asked."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock


class Turns:
    """A fair semaphore: a turn that ends goes to whoever has waited longest, never to a thread that has just come.

    Under many threads a plain lock, like a pool of connections, lets some of them wait for as long as the rush lasts.
    Not re-entrant.
    """

    def __init__(self, slots: int) -> None:
        self._free = slots
        self._waiting: deque[Lock] = deque()
        self._guard = Lock()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @contextmanager
    def turn(self) -> Iterator[None]:
        self._take()
        try:
            yield
        finally:
            self._pass_on()

    def _take(self) -> None:
        with self._guard:
            if self._free:
                self._free -= 1
                return
            mine = Lock()
            mine.acquire()
            self._waiting.append(mine)
        try:
            mine.acquire()
        except BaseException:
            self._leave(mine)
            raise

    def _pass_on(self) -> None:
        with self._guard:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._free += 1

    def _leave(self, mine: Lock) -> None:
        """Interrupted while waiting: give up the place, or the turn that came in that very moment."""
        with self._guard:
            if mine in self._waiting:
                self._waiting.remove(mine)
                return
        self._pass_on()
