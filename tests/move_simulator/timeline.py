"""Simulated time: a queue of events. Whoever waits lets the others act; nothing takes real time."""

import heapq
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

_START = datetime(2026, 1, 1, tzinfo=UTC)


class Timeline:
    """A Clock (engine.clock). An event may itself wait: what is due meanwhile happens inside it, in order."""

    def __init__(self, after_each: Callable[[], None]) -> None:
        self.seconds = 0.0
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._after_each = after_each

    def now(self) -> datetime:
        return _START + timedelta(seconds=self.seconds)

    def sleep(self, seconds: float) -> None:
        self.until(lambda: False, seconds)

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._queue, (self.seconds + seconds, self._number, act))

    def until(self, true: Callable[[], bool], seconds: float) -> bool:
        """Let time pass until ``true()`` or for so long; whether it became true."""
        end = self.seconds + seconds
        while not true():
            if not self._queue or self._queue[0][0] > end:
                self.seconds = max(self.seconds, end)
                return true()
            due, _, act = heapq.heappop(self._queue)
            self.seconds = max(self.seconds, due)
            act()
            self._after_each()
        return True
