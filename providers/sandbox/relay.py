"""The way from nodes to a control plane that listens on loopback only: a TCP relay inside the underlay namespace.

The listening sockets live in the namespace, the outgoing ones in the root namespace. Bytes pass untouched, so mutual
TLS stays between agent and control plane.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Coroutine
from typing import Any

_CHUNK = 64 * 1024
_CONNECT_SECONDS = 5.0


class Relay:
    """One event loop in one thread serves every relayed port. ``open_listener(port)`` makes the socket."""

    def __init__(self, open_listener: Callable[[int], socket.socket]) -> None:
        self._open_listener = open_listener
        self._loop = asyncio.new_event_loop()
        self._servers: dict[int, asyncio.Server] = {}
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)
        self._thread.start()

    def open(self, port: int) -> None:
        """Relay ``port`` to 127.0.0.1:``port``. Open already = success. Raises OSError when the port is taken."""
        self._call(self._serve(port))

    def close(self) -> None:
        self._call(self._shut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=2)
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=10)

    async def _serve(self, port: int) -> None:
        if port in self._servers:
            return

        async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await _relay_connection(reader, writer, port)

        self._servers[port] = await asyncio.start_server(serve_one, sock=self._open_listener(port))

    async def _shut(self) -> None:
        for server in self._servers.values():
            server.close()
        current = asyncio.current_task()
        others = [task for task in asyncio.all_tasks() if task is not current]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0)  # transports close in the loop's next turn


async def _relay_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    with contextlib.closing(writer):
        try:
            outward = asyncio.open_connection("127.0.0.1", port)
            target_reader, target_writer = await asyncio.wait_for(outward, _CONNECT_SECONDS)
        except (OSError, TimeoutError):
            return  # the agent sees a closed connection and tries again
        with contextlib.closing(target_writer):
            await asyncio.gather(_pump(reader, target_writer), _pump(target_reader, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until the end of one direction; then half-close the other side, as TCP itself would."""
    with contextlib.suppress(OSError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
        return
    writer.close()
