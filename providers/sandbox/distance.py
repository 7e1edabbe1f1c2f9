"""Distance between hosts that stand side by side: their tunnels' datagrams are held back, and some are lost.

A host is known by a port here. What comes to B's port from A is sent on to B from A's port, so that each sees the other
where it was told that the other is. Datagrams from strangers are dropped.
"""

import heapq
import random
import selectors
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

Endpoint = tuple[str, int]
_LARGEST = 65_536
_ROUND_SECONDS = 0.05


@dataclass(frozen=True)
class _Host:
    endpoint: Endpoint
    port: socket.socket


class Distance:
    """One thread. ``delay_seconds`` each way, ``loss`` of 1; both may be changed at any time."""

    def __init__(
        self, open_port: Callable[[], socket.socket], rng: random.Random, *, delay_seconds: float, loss: float = 0.0
    ) -> None:
        """``open_port`` makes a bound UDP socket, in whichever namespace."""
        self._open_port, self._rng = open_port, rng
        self.delay_seconds, self.loss = delay_seconds, loss
        self.passed, self.lost = 0, 0
        self._hosts: dict[Endpoint, _Host] = {}
        self._held: list[tuple[float, int, socket.socket, Endpoint, bytes]] = []
        self._selector = selectors.DefaultSelector()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="distance", daemon=True)
        self._thread.start()

    def add(self, address: str, port: int) -> str:
        """The endpoint ADDRESS:PORT under which others reach the host that listens there."""
        opened = self._open_port()
        opened.setblocking(False)
        host = self._hosts[address, port] = _Host((address, port), opened)
        self._selector.register(opened, selectors.EVENT_READ, host)
        return "{}:{}".format(*opened.getsockname()[:2])

    def close(self) -> None:
        self._closing.set()
        self._thread.join(timeout=5)
        for host in self._hosts.values():
            host.port.close()
        self._selector.close()

    def _run(self) -> None:
        while not self._closing.is_set():
            wait = min(_ROUND_SECONDS, self._held[0][0] - time.monotonic()) if self._held else _ROUND_SECONDS
            for key, _ in self._selector.select(max(0.0, wait)):
                self._take(key.data)
            while self._held and self._held[0][0] <= time.monotonic():
                _, _, sender, target, datagram = heapq.heappop(self._held)
                with suppress(OSError):  # as on any way: what cannot go on is lost
                    sender.sendto(datagram, target)

    def _take(self, host: _Host) -> None:
        """Everything that has come for the host."""
        while True:
            try:
                datagram, source = host.port.recvfrom(_LARGEST)
            except (BlockingIOError, ConnectionRefusedError):
                return
            sender = self._hosts.get((source[0], source[1]))
            if sender is None or self._rng.random() < self.loss:
                self.lost += 1
                continue
            self.passed += 1
            due = time.monotonic() + self.delay_seconds
            heapq.heappush(self._held, (due, self.passed, sender.port, host.endpoint, datagram))
