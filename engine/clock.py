"""Time as something that is handed in."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    def now(self) -> datetime:
        """Aware UTC."""
        ...

    def sleep(self, seconds: float) -> None: ...


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class ManualClock:
    """Stands still until it is told to move; ``sleep`` moves it. For tests and for the lab."""

    def __init__(self, start: datetime) -> None:
        self._now = start

    def now(self) -> datetime:
        return self._now

    def sleep(self, seconds: float) -> None:
        self.advance(timedelta(seconds=seconds))

    def advance(self, by: timedelta) -> None:
        self._now += by


def wait_until(ready: Callable[[], bool], clock: Clock, *, timeout_seconds: float, every_seconds: float = 0.1) -> bool:
    """Poll ``ready`` until it is true (True) or the time is up (False)."""
    deadline = clock.now() + timedelta(seconds=timeout_seconds)
    while not ready():
        if clock.now() >= deadline:
            return False
        clock.sleep(every_seconds)
    return True
