import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import UnknownName
from engine.model.ids import ShardId
from engine.model.placement import ComponentName
from engine.namespace import dns
from engine.namespace.dns import TYPE_A, TYPE_SRV, DnsServer, answer
from engine.namespace.names import NameQuery
from engine.namespace.resolver import Location, Resolver
from engine.store.shard_map import ShardMap


def question(name: str, type_: int = TYPE_A, *, flags: int = 0x0100, class_: int = 1, count: int = 1) -> bytes:
    header = struct.pack("!6H", 4711, flags, count, 0, 0, 0)
    return header + dns.encode_name(name) + struct.pack("!2H", type_, class_)


@dataclass
class Reply:
    ident: int
    code: int
    truncated: bool
    records: list[tuple[int, bytes]]


def read(packet: bytes | None) -> Reply:
    assert packet is not None
    ident, flags, questions, answers, _, _ = struct.unpack_from("!6H", packet)
    at = 12

    def skip_name(at: int) -> int:
        while packet[at]:
            at += packet[at] + 1
        return at + 1

    for _ in range(questions):
        at = skip_name(at) + 4
    records = []
    for _ in range(answers):
        at = skip_name(at)
        type_, class_, ttl, length = struct.unpack_from("!2HIH", packet, at)
        assert (class_, ttl) == (1, 5)
        records.append((type_, packet[at + 10 : at + 10 + length]))
        at += 10 + length
    assert at == len(packet)
    return Reply(ident, flags & 0xF, bool(flags & 0x0200), records)


def test_a_records_hold_the_overlay_address(resolver: Resolver) -> None:
    reply = read(answer(question("1.web.shop.acme.shard.internal"), resolver, port=7000))
    assert (reply.ident, reply.code) == (4711, dns.NOERROR)
    assert reply.records == [(TYPE_A, IPv4Address("10.9.1.2").packed)]


def test_the_component_without_a_number_has_every_replica(resolver: Resolver) -> None:
    reply = read(answer(question("web.SHOP.acme.shard.internal"), resolver, port=7000))
    assert [str(IPv4Address(data)) for _, data in reply.records] == ["10.9.1.1", "10.9.1.2"]


def test_srv_records_name_each_replica_and_its_port(resolver: Resolver) -> None:
    reply = read(answer(question("web.shop.acme.shard.internal", TYPE_SRV), resolver, port=7000))
    assert [(type_, struct.unpack("!3H", data[:6])) for type_, data in reply.records] == [(TYPE_SRV, (0, 0, 7000))] * 2
    assert reply.records[1][1][6:] == dns.encode_name("1.web.shop.acme.shard.internal")


@pytest.mark.parametrize(
    ("packet", "code"),
    [
        (question("9.web.shop.acme.shard.internal"), dns.NXDOMAIN),
        (question("example.org"), dns.REFUSED),
        (question("1.web.shop.acme.shard.internal", class_=3), dns.FORMERR),
        (question("1.web.shop.acme.shard.internal", count=2), dns.FORMERR),
        (question("1.web.shop.acme.shard.internal")[:-3], dns.FORMERR),
        (question("1.web.shop.acme.shard.internal", flags=0x2800), dns.NOTIMP),
        (question("1.web.shop.acme.shard.internal", 28), dns.NOERROR),
    ],
)
def test_what_cannot_be_answered_gets_its_code(resolver: Resolver, packet: bytes, code: int) -> None:
    reply = read(answer(packet, resolver, port=7000))
    assert (reply.code, reply.records) == (code, [])


def test_responses_and_stumps_get_no_answer(resolver: Resolver) -> None:
    assert answer(question("web.shop.acme.shard.internal", flags=0x8000), resolver, port=7000) is None
    assert answer(b"\0" * 11, resolver, port=7000) is None


class Crowd(Resolver):
    """A component with more replicas than fit into a packet."""

    def __init__(self) -> None:
        pass

    def locate(self, query: NameQuery) -> tuple[Location, ...]:
        if query.component != "web":
            raise UnknownName("no such name")
        return tuple(
            Location.model_construct(
                name=ComponentName(namespace="acme", workload="shop", component="web", index=i),
                shard=ShardId(f"s{i}"),
                address=f"10.9.1.{i + 1}",
            )
            for i in range(40)
        )


def test_more_than_a_packet_holds_is_cut_at_a_record_and_marked() -> None:
    packet = answer(question("web.shop.acme.shard.internal"), Crowd(), port=7000)
    reply = read(packet)
    assert packet is not None
    assert len(packet) <= 512
    assert reply.truncated
    assert 0 < len(reply.records) < 40


@given(st.binary(max_size=80))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_packet_whatsoever_breaks_the_server(packet: bytes) -> None:
    reply = answer(packet, Crowd(), port=1)
    assert reply is None or reply[:2] == packet[:2]


def test_it_answers_over_udp_and_survives_a_broken_store(resolver: Resolver, shard_map: ShardMap) -> None:
    complaints: list[Exception] = []
    server = DnsServer(resolver, service_port=7000, complain=complaints.append)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
            asker.settimeout(5)
            address = ("127.0.0.1", server.port)
            locate, resolver.locate = resolver.locate, None  # type: ignore[assignment,method-assign]
            asker.sendto(question("0.web.shop.acme.shard.internal"), address)
            asker.sendto(b"rubbish", address)
            for _ in range(500):
                if complaints:
                    break
                asker.settimeout(0.01)
                with pytest.raises(TimeoutError):
                    asker.recv(512)
            assert isinstance(complaints[0], TypeError)
            resolver.locate = locate  # type: ignore[method-assign]
            asker.settimeout(5)
            asker.sendto(question("0.web.shop.acme.shard.internal"), address)
            assert read(asker.recv(512)).records == [(TYPE_A, IPv4Address("10.9.1.1").packed)]
    finally:
        server.close()
