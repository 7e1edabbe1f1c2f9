"""The metadata server: one address for every node, each answered as its own provider would.

With namespaces it listens on 169.254.169.254:80 inside the underlay namespace and knows a node by the address it
calls from. Without, it listens on a port of each node's loopback address and knows the node by the address called.
"""

import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

from engine.clock import Clock
from providers.sandbox.metadata_formats import Answer, Answerer, Question, answerers
from providers.sandbox.nodes import HostedNodes
from providers.sandbox.signers import InstanceSigners

_IDLE_SECONDS = 30


class MetadataServer:
    """Threads of this process; ``close`` ends them."""

    def __init__(self, nodes: HostedNodes, clock: Clock, signers: InstanceSigners) -> None:
        self._nodes, self._clock = nodes, clock
        self._answerers: dict[str, Answerer] = answerers(signers)
        self._servers: dict[tuple[str, int], ThreadingHTTPServer] = {}
        self._lock = threading.Lock()

    def listen(self, listener: socket.socket, *, by_called_address: bool = False) -> tuple[str, int]:
        """Serve on a listening socket; (address, port). ``by_called_address``: see the module's text."""
        address: tuple[str, int] = listener.getsockname()[:2]
        server = http_server(listener, _handler(self._answer, by_called_address=by_called_address))
        with self._lock:
            self._servers[address] = server
        return address

    def stop_listening(self, address: str) -> None:
        """Close what listens on an address. Nothing there = success."""
        with self._lock:
            gone = [key for key in self._servers if key[0] == address]
            servers = [self._servers.pop(key) for key in gone]
        for server in servers:
            server.shutdown()
            server.server_close()

    def close(self) -> None:
        for address in {address for address, _ in self._servers}:
            self.stop_listening(address)

    def _answer(self, address: str, question: Question) -> Answer:
        node = self._nodes.at(address)
        if node is None:
            return Answer(404, "no instance has this address\n")
        with self._lock:  # the AWS answerer keeps tokens
            return self._answerers[node.kind].answer(node, question, self._clock.now())


def http_server(listener: socket.socket, handler: type[BaseHTTPRequestHandler]) -> ThreadingHTTPServer:
    """Serve a listening socket from a daemon thread."""
    server = ThreadingHTTPServer(("", 0), handler, bind_and_activate=False)
    server.socket.close()
    server.socket = listener
    server.server_address = listener.getsockname()
    server.daemon_threads = True
    server.block_on_close = False
    threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.25}, name=f"http-{server.server_address}", daemon=True
    ).start()
    return server


def _handler(answer: Callable[[str, Question], Answer], *, by_called_address: bool) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        server_version, sys_version = "metadata", ""
        timeout = _IDLE_SECONDS

        def _respond(self) -> None:
            unread = int(self.headers.get("Content-Length") or 0) > 0  # no question here has a body
            parts = urlsplit(self.path)
            question = Question(
                method=self.command,
                path=parts.path,
                headers={name.lower(): value for name, value in self.headers.items()},
                query=dict(parse_qsl(parts.query)),
            )
            node_address = self.connection.getsockname()[0] if by_called_address else self.client_address[0]
            reply = answer(node_address, question)
            body = reply.body.encode()
            self.send_response(reply.status)
            for name, value in (
                ("Content-Type", reply.content_type),
                ("Content-Length", str(len(body))),
                *reply.headers,
                *((("Connection", "close"),) if unread else ()),  # said, or the client would ask again on it
            ):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_POST = _respond  # noqa: N815 (the names that http.server calls)

        def log_message(self, format: str, *args: object) -> None:
            """Requests are not logged: they carry tokens."""

    return Handler
