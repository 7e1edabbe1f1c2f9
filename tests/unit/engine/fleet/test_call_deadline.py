"""Real TLS over a pair of sockets, whose own time-outs are a minute."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from agent.peer import client_context
from engine.fleet.call_deadline import EndingSocket, call_ends_after
from tests.unit.engine.fleet.test_agent_client import NODE, node_context


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[tuple[ssl.SSLSocket, ssl.SSLSocket]]:
    """Ours and the node's."""
    theirs = node_context(tmp_path, client_certificate=False)
    ours = client_context(ca=tmp_path / "fleet" / "ca.pem")
    ours.sslsocket_class = EndingSocket
    left, right = socket.socketpair()
    left.settimeout(60)
    right.settimeout(60)
    accepted: list[ssl.SSLSocket] = []
    serving = threading.Thread(target=lambda: accepted.append(theirs.wrap_socket(right, server_side=True)))
    serving.start()
    with closing(ours.wrap_socket(left, server_hostname=NODE)) as mine:
        serving.join()
        with closing(accepted[0]) as others:
            yield mine, others


def test_a_silent_end_is_waited_for_until_the_calls_end(ends: tuple[ssl.SSLSocket, ssl.SSLSocket]) -> None:
    mine, _ = ends
    with call_ends_after(0.02), pytest.raises(TimeoutError):
        mine.recv(10)


def test_past_its_end_nothing_is_read_or_written_though_it_could_be(
    ends: tuple[ssl.SSLSocket, ssl.SSLSocket],
) -> None:
    mine, others = ends
    others.send(b"x")
    with call_ends_after(0):
        with pytest.raises(TimeoutError, match="takes too long"):
            mine.recv(10)
        with pytest.raises(TimeoutError, match="takes too long"):
            mine.send(b"y")


def test_before_it_and_outside_of_calls_nothing_changes(ends: tuple[ssl.SSLSocket, ssl.SSLSocket]) -> None:
    mine, others = ends
    for _ in range(2):
        others.send(b"x")
    with call_ends_after(3600):
        assert mine.recv(10) == b"x"
        assert mine.send(b"y") == 1
    assert mine.recv(10) == b"x"
    assert mine.gettimeout() == 60


def test_a_thread_has_its_own_end(ends: tuple[ssl.SSLSocket, ssl.SSLSocket]) -> None:
    mine, others = ends
    others.send(b"x")
    read: list[bytes] = []
    with call_ends_after(0):
        other = threading.Thread(target=lambda: read.append(mine.recv(10)))
        other.start()
        other.join()
    assert read == [b"x"]
