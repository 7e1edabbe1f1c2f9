"""An end for a whole call. A time-out per read alone lets a host that sends a byte now and then hold its caller.

    context.sslsocket_class = EndingSocket
    with call_ends_after(45.0):
        http.request(...)  # in this thread: whatever it reads or writes past the end raises TimeoutError

Costs a look at the clock for each read and write.
"""

import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class _Calls(threading.local):
    end: float | None = None
    """Of this thread's call, on the monotonic clock, which alone the socket's own time-outs know."""


_calls = _Calls()


@contextmanager
def call_ends_after(seconds: float) -> Iterator[None]:
    _calls.end = time.monotonic() + seconds
    try:
        yield
    finally:
        _calls.end = None


class EndingSocket(ssl.SSLSocket):
    """Never waits past the end of its thread's call."""

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        self._end_in_time()
        return super().recv(buflen, flags)

    def send(self, data: Any, flags: int = 0) -> int:
        self._end_in_time()
        return super().send(data, flags)

    def _end_in_time(self) -> None:
        if _calls.end is None:
            return
        left, wait = _calls.end - time.monotonic(), self.gettimeout()
        if left <= 0:
            raise TimeoutError("the call takes too long")
        if wait is None or wait > left:
            self.settimeout(left)
