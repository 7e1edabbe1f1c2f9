import struct
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.namespace import dns
from engine.namespace.dns import TYPE_A, TYPE_ANY, TYPE_SRV, answer
from engine.namespace.resolver import Resolver
from tests.dns_packets import NAME, Crowd, opt, question, read, with_records


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


@pytest.mark.parametrize("type_", [TYPE_A, TYPE_SRV, TYPE_ANY])
def test_more_than_a_packet_holds_is_cut_at_a_record_and_marked(type_: int) -> None:
    packet = answer(question(NAME, type_), Crowd(), port=7000)
    reply = read(packet)
    assert packet is not None
    assert len(packet) <= 512
    assert reply.truncated
    assert 0 < len(reply.records) < 40


def test_two_dozen_addresses_fit_into_a_plain_packet() -> None:
    reply = read(answer(question(NAME), Crowd(24), port=7000))
    assert (reply.truncated, len(reply.records)) == (False, 24)
    assert set(reply.owners) == {NAME}


def test_over_tcp_everything_fits() -> None:
    for type_ in (TYPE_A, TYPE_SRV, TYPE_ANY):
        reply = read(answer(question(NAME, type_), Crowd(), port=7000, over_tcp=True))
        assert (reply.truncated, len(reply.records)) == (False, 80 if type_ == TYPE_ANY else 40)


@pytest.mark.parametrize(
    ("payload", "room", "whole"), [(0, 512, False), (600, 600, False), (1232, 1232, True), (65535, 1232, True)]
)
def test_an_asker_that_takes_more_gets_more_up_to_what_no_path_cuts(payload: int, room: int, whole: bool) -> None:
    asked = with_records(question(NAME), opt(payload, options=b"\0\x0a\0\x08cookiecookie"[:12]))
    packet = answer(asked, Crowd(), port=7000)
    assert packet is not None
    reply = read(packet)
    assert len(packet) <= room
    assert (reply.truncated, len(reply.records) == 40) == (not whole, whole)
    assert reply.edns == (dns.UDP_PAYLOAD, 0)
    crowd = read(answer(with_records(question(NAME), opt(payload)), Crowd(300), port=7000))
    assert crowd.truncated


@pytest.mark.parametrize(
    ("name", "code"), [(NAME, dns.NOERROR), ("api." + NAME, dns.REFUSED), ("x.y.z.shard.internal", dns.NXDOMAIN)]
)
def test_who_speaks_edns_is_answered_in_it(name: str, code: int) -> None:
    reply = read(answer(with_records(question(name), opt()), Crowd(1), port=7000))
    assert (reply.code, reply.edns) == (code, (dns.UDP_PAYLOAD, 0))
    assert read(answer(question(name), Crowd(1), port=7000)).edns is None


def test_a_later_edns_is_told_which_version_is_spoken() -> None:
    reply = read(answer(with_records(question(NAME), opt(version=1)), Crowd(1), port=7000))
    assert (reply.code, reply.edns, reply.records) == (0, (dns.UDP_PAYLOAD, dns.BADVERS << 20), [])


def test_records_that_say_nothing_to_us_are_passed_over() -> None:
    signature = b"\xc0\x0c" + struct.pack("!2HIH", 250, 255, 0, 3) + b"sig"
    assert len(read(answer(with_records(question(NAME), opt(), signature), Crowd(1), port=7000)).records) == 1


@pytest.mark.parametrize(
    "packet",
    [
        with_records(question(NAME), opt(), opt()),
        with_records(question(NAME), opt(owner=b"\x01a\0")),
        with_records(question(NAME), opt())[:-1],
        with_records(question(NAME), opt(options=b"1234")[:-1]),
        with_records(question(NAME), b"\x80" + opt()),
        with_records(question(NAME), b""),
    ],
)
def test_records_that_cannot_be_read_are_malformed(packet: bytes) -> None:
    assert read(answer(packet, Crowd(1), port=7000)).code == dns.FORMERR


@given(st.binary(max_size=80), st.booleans())
def test_no_packet_whatsoever_breaks_the_server(packet: bytes, over_tcp: bool) -> None:
    reply = answer(packet, Crowd(), port=1, over_tcp=over_tcp)
    assert reply is None or reply[:2] == packet[:2]
