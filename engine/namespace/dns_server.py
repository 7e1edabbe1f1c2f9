"""The sockets of the resolver over DNS: UDP, and TCP on the same port for answers that do not fit into a packet."""

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from engine.namespace.dns import UDP_PAYLOAD, answer
from engine.namespace.resolver import Resolver

CONNECTIONS = 16
"""Over TCP at a time; who comes then waits until one ends, which the time-out sees to."""
_LENGTH = struct.Struct("!H")
_REDRAWS = 9
_PAUSE_SECONDS = 0.2


class DnsServer:
    """Answers on a port of loopback: one thread for UDP, one that accepts, one for each connection."""

    def __init__(
        self,
        resolver: Resolver,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        service_port: int,
        complain: Callable[[Exception], None] | None = None,
        connection_seconds: float = 10.0,
    ) -> None:
        """``service_port``: the port that shards serve on, for SRV; ``connection_seconds``: after which a connection
        is closed, whatever it still asks. Raises OSError when ``port`` is taken."""
        self._resolver, self._service_port = resolver, service_port
        self._complain = complain or (lambda _: None)
        self._connection_seconds = connection_seconds
        self._udp, self._tcp = bound(host, port)
        self.port: int = self._udp.getsockname()[1]
        self._closing = threading.Event()
        self._free = threading.Semaphore(CONNECTIONS)
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads = [
            threading.Thread(target=serve, name=name, daemon=True)
            for name, serve in (("dns-udp", self._serve_udp), ("dns-tcp", self._serve_tcp))
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._closing.set()
        with self._lock:
            for connection in self._open:
                _shut(connection)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", self._udp.getsockname())
        with suppress(OSError):
            socket.create_connection(self._tcp.getsockname(), timeout=1).close()
        for thread in self._threads:
            thread.join(timeout=2)
        self._udp.close()
        self._tcp.close()

    def _reply(self, packet: bytes, *, over_tcp: bool) -> bytes | None:
        try:
            return answer(packet, self._resolver, port=self._service_port, over_tcp=over_tcp)
        except Exception as error:  # one bad packet, or a store that is away, must not end the service
            self._complain(error)
            return None

    # -- UDP ------------------------------------------------------------------------------------------------------

    def _serve_udp(self) -> None:
        while True:
            packet, asker = self._udp.recvfrom(UDP_PAYLOAD)
            if self._closing.is_set():
                return
            reply = self._reply(packet, over_tcp=False)
            if reply is not None:
                try:
                    self._udp.sendto(reply, asker)
                except OSError as problem:  # an asker that cannot be reached
                    self._complain(problem)

    # -- TCP ------------------------------------------------------------------------------------------------------

    def _serve_tcp(self) -> None:
        while True:
            self._free.acquire()
            try:
                connection, _ = self._tcp.accept()
                admitted = self._admit(connection)
            except (OSError, RuntimeError) as problem:  # an asker that is gone again; no file or no thread left
                self._free.release()
                self._complain(problem)
                admitted = not self._closing.wait(_PAUSE_SECONDS)
            if not admitted:
                return

    def _admit(self, connection: socket.socket) -> bool:
        """Whether the service goes on. Under the lock, so that ``close`` misses no connection."""
        with self._lock:
            if self._closing.is_set():
                connection.close()
                return False
            self._open.add(connection)
        try:
            threading.Thread(target=self._converse, args=(connection,), name="dns-connection", daemon=True).start()
        except RuntimeError:
            self._end(connection)
            raise
        return True

    def _converse(self, connection: socket.socket) -> None:
        """Question after question, until the asker goes, takes too long or sends what cannot be answered."""
        until = monotonic() + self._connection_seconds
        try:
            while True:
                (length,) = _LENGTH.unpack(_received(connection, _LENGTH.size, until))
                reply = self._reply(_received(connection, length, until), over_tcp=True)
                if reply is None:
                    return
                connection.settimeout(_left(until))
                connection.sendall(_LENGTH.pack(len(reply)) + reply)
        except OSError:
            return
        finally:
            self._end(connection)
            self._free.release()

    def _end(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.discard(connection)
            connection.close()


def bound(host: str, port: int) -> tuple[socket.socket, socket.socket]:
    """A UDP and a TCP socket with one port. Any port (0) is drawn anew where only its UDP half is free."""
    for _ in range(0 if port else _REDRAWS):
        with suppress(OSError):
            return _both(host, port)
    return _both(host, port)


def _both(host: str, port: int) -> tuple[socket.socket, socket.socket]:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        udp.bind((host, port))
        return udp, socket.create_server((host, udp.getsockname()[1]))
    except OSError:
        udp.close()
        raise


def _received(connection: socket.socket, size: int, until: float) -> bytes:
    """Exactly so many bytes. Raises OSError where they do not come in time or at all."""
    got = bytearray()
    while len(got) < size:
        connection.settimeout(_left(until))
        part = connection.recv(size - len(got))
        if not part:
            raise ConnectionError("the asker has gone")
        got += part
    return bytes(got)


def _left(until: float) -> float:
    left = until - monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
