import socket
import threading
from collections.abc import Iterator

import pytest

from providers.sandbox import netns
from providers.sandbox.relay import Relay

OUTSIDE = "127.0.0.2"
"""Stands for the underlay: another address, the same port."""


@pytest.fixture
def relay() -> Iterator[Relay]:
    relay = Relay(lambda port: netns.listen(OUTSIDE, port))
    yield relay
    relay.close()


def test_bytes_pass_both_ways_and_an_end_passes_too(relay: Relay) -> None:
    with netns.listen("127.0.0.1", 0) as control:
        port = control.getsockname()[1]
        relay.open(port)
        relay.open(port)
        payload = bytes(range(256)) * 4096

        def serve() -> None:
            connection, _ = control.accept()
            with connection:
                heard = b""
                while chunk := connection.recv(65536):
                    heard += chunk
                connection.sendall(heard[::-1])

        thread = threading.Thread(target=serve)
        thread.start()
        with socket.create_connection((OUTSIDE, port), timeout=5) as agent:
            agent.sendall(payload)
            agent.shutdown(socket.SHUT_WR)
            echoed = b""
            while chunk := agent.recv(65536):
                echoed += chunk
        thread.join()
        assert echoed == payload[::-1]


def test_without_a_control_plane_the_connection_is_closed_and_later_ones_work(relay: Relay) -> None:
    with netns.listen("127.0.0.1", 0) as control:
        port = control.getsockname()[1]
    relay.open(port)
    with socket.create_connection((OUTSIDE, port), timeout=5) as agent:
        assert agent.recv(10) == b""
    with netns.listen("127.0.0.1", port) as control, socket.create_connection((OUTSIDE, port), timeout=5) as agent:
        connection, _ = control.accept()
        connection.sendall(b"back")
        assert agent.recv(10) == b"back"
        connection.close()


def test_a_port_that_is_taken_is_an_error(relay: Relay) -> None:
    with netns.listen(OUTSIDE, 0) as taken, pytest.raises(OSError, match="in use"):
        relay.open(taken.getsockname()[1])
