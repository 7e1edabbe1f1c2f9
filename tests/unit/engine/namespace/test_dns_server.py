"""Real sockets, both protocols."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress

import pytest

from engine.namespace.dns import NOERROR, TYPE_A, TYPE_SRV
from engine.namespace.dns_server import CONNECTIONS, DnsServer
from engine.namespace.names import NameQuery
from engine.namespace.resolver import Location, Resolver
from tests.dns_packets import NAME, Crowd, Reply, opt, question, read, with_records


@contextmanager
def serving(resolver: Resolver, **how: float | Callable[[Exception], None]) -> Iterator[DnsServer]:
    with closing(DnsServer(resolver, service_port=7000, **how)) as server:  # type: ignore[arg-type]
        yield server


@contextmanager
def udp(server: DnsServer) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.settimeout(5)
        asker.connect(("127.0.0.1", server.port))
        yield asker


def ask_udp(server: DnsServer, packet: bytes) -> Reply:
    with udp(server) as asker:
        asker.send(packet)
        return read(asker.recv(4096))


def tcp(server: DnsServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=5)


def send(asker: socket.socket, packet: bytes) -> None:
    asker.sendall(struct.pack("!H", len(packet)) + packet)


def receive(asker: socket.socket) -> Reply:
    with asker.makefile("rb") as stream:
        (length,) = struct.unpack("!H", stream.read(2))
        return read(stream.read(length))


def ask_tcp(server: DnsServer, packet: bytes) -> Reply:
    with tcp(server) as asker:
        send(asker, packet)
        return receive(asker)


def ended(asker: socket.socket) -> bool:
    try:
        return asker.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("type_", [TYPE_A, TYPE_SRV])
def test_forty_replicas_are_had_whole_over_tcp_when_udp_says_that_they_do_not_fit(type_: int) -> None:
    with serving(Crowd(40)) as server:
        first = ask_udp(server, question(NAME, type_))
        assert (first.code, first.truncated) == (NOERROR, True)
        whole = ask_tcp(server, question(NAME, type_))
        assert (whole.code, whole.truncated, len(whole.records)) == (NOERROR, False, 40)
        assert whole.owners == [NAME] * 40


def test_forty_replicas_fit_into_a_packet_for_who_takes_longer_ones() -> None:
    with serving(Crowd(40)) as server:
        cookie = struct.pack("!2H", 10, 8) + b"8 bytes."
        reply = ask_udp(server, with_records(question(NAME), opt(options=cookie)))
        assert (reply.truncated, len(reply.records)) == (False, 40)
        padding = struct.pack("!2H", 12, 600) + bytes(600)
        assert len(ask_udp(server, with_records(question(NAME), opt(options=padding))).records) == 40


def test_a_connection_may_ask_again_and_in_pieces() -> None:
    with serving(Crowd(3)) as server, tcp(server) as asker:
        for _ in range(2):
            send(asker, question(NAME))
            assert len(receive(asker).records) == 3
        packet = question(NAME)
        for byte in struct.pack("!H", len(packet)) + packet:
            asker.sendall(bytes([byte]))
        assert len(receive(asker).records) == 3


@pytest.mark.parametrize(
    "sent",
    [b"", b"\0", b"\0\0", b"\0\x05stump", b"\xff\xffearly", struct.pack("!H", 40) + question(NAME, flags=0x8000)],
)
def test_rubbish_over_tcp_ends_its_connection_alone(sent: bytes) -> None:
    complaints: list[Exception] = []
    with serving(Crowd(3), complain=complaints.append) as server:
        with tcp(server) as asker:
            asker.sendall(sent)
            with suppress(OSError):  # it may have ended by now
                asker.shutdown(socket.SHUT_WR)
            assert ended(asker)
        assert len(ask_tcp(server, question(NAME)).records) == 3
        assert len(ask_udp(server, question(NAME)).records) == 3
    assert complaints == []


def test_who_dawdles_is_cut_off_and_holds_nobody_up_for_longer() -> None:
    with serving(Crowd(3), connection_seconds=1) as server:
        idle = [tcp(server) for _ in range(CONNECTIONS)]
        try:
            assert len(ask_tcp(server, question(NAME)).records) == 3, "once a place is free"
            assert all(ended(asker) for asker in idle)
        finally:
            for asker in idle:
                asker.close()


def test_an_open_connection_does_not_hold_up_the_end() -> None:
    with closing(DnsServer(Crowd(3), service_port=7000)) as server:
        idle = [tcp(server) for _ in range(CONNECTIONS + 1)]
        send(idle[0], question(NAME))
        assert len(receive(idle[0]).records) == 3
    assert ended(idle[0])
    for asker in idle:
        asker.close()
    assert not {"dns-udp", "dns-tcp"} & {thread.name for thread in threading.enumerate()}
    with closing(DnsServer(Crowd(3), port=server.port, service_port=7000)) as again:
        assert again.port == server.port


def test_a_port_whose_other_half_is_taken_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(OSError, match="in use"):
        DnsServer(Crowd(), port=other.getsockname()[1], service_port=7000)


class Broken(Crowd):
    """As a resolver whose store is away until it is mended."""

    mended = False

    def locate(self, query: NameQuery) -> tuple[Location, ...]:
        if not self.mended:
            raise TypeError("no store")
        return super().locate(query)


def test_it_survives_a_broken_store() -> None:
    complained = threading.Semaphore(0)
    complaints: list[Exception] = []

    def complain(problem: Exception) -> None:
        complaints.append(problem)
        complained.release()

    resolver = Broken(3)
    with serving(resolver, complain=complain) as server:
        with udp(server) as asker:
            asker.send(question(NAME))
            asker.send(b"rubbish")
            assert complained.acquire(timeout=5)
        with tcp(server) as asker:
            send(asker, question(NAME))
            assert ended(asker)
        assert [type(problem) for problem in complaints] == [TypeError, TypeError]
        resolver.mended = True
        assert len(ask_udp(server, question(NAME)).records) == 3
        assert len(ask_tcp(server, question(NAME)).records) == 3
