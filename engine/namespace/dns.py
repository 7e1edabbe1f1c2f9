"""The resolver over DNS: A and SRV for ``[N.]COMPONENT.WORKLOAD.NAMESPACE.shard.internal``. Packets in, packets out.

Only what a stub resolver needs of RFC 1035, RFC 2782 and RFC 6891 (EDNS0): one question, no recursion. Foreign names
are refused, unknown ones do not exist, malformed packets get FORMERR or, without an id, no answer.
"""

import struct
from collections.abc import Sequence
from ipaddress import IPv4Address

from engine.errors import ShardwrightError, UnknownName
from engine.model.value import Value
from engine.namespace.names import dns_name, parse_dns
from engine.namespace.resolver import Location, Resolver

TYPE_A, TYPE_SRV, TYPE_OPT, TYPE_ANY, CLASS_IN = 1, 33, 41, 255, 1
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16
TTL_SECONDS = 5
UDP_PAYLOAD = 1232
"""What fits unfragmented through any IPv6 path: the size that DNS software has agreed on (DNS flag day 2020)."""
_HEADER, _RECORD = struct.Struct("!6H"), struct.Struct("!2HIH")
_RESPONSE, _AUTHORITATIVE, _TRUNCATED, _RECURSION_DESIRED, _OPCODE = 0x8000, 0x0400, 0x0200, 0x0100, 0x7800
_PLAIN_UDP = 512
_TCP = 65535
_MAX_NAME = 255
_OWNER = struct.pack("!H", 0xC000 | _HEADER.size)
"""A compression pointer to the name in the question, which stands behind the header."""
_POINTER = 0xC0


class Edns(Value):
    """What an asker's OPT record says."""

    payload: int
    """Bytes of a UDP answer that it can take."""
    version: int


class Question(Value):
    name: str
    type: int
    raw: bytes
    """As it came, to be sent back."""
    edns: Edns | None = None


class MalformedQuestion(ShardwrightError):
    """Not a packet with exactly one question."""


def read_question(packet: bytes) -> Question:
    """Raises MalformedQuestion. Compression pointers are refused: a question has nothing to point at."""
    if len(packet) < _HEADER.size or _HEADER.unpack_from(packet)[2] != 1:
        raise MalformedQuestion("not one question")
    labels, at = [], _HEADER.size
    while True:
        length = packet[at] if at < len(packet) else None
        if length is None or length > 63 or at - _HEADER.size > _MAX_NAME:
            raise MalformedQuestion("the name cannot be read")
        at += 1
        if length == 0:
            break
        labels.append(packet[at : at + length].decode("ascii", errors="replace"))
        at += length
    if len(packet) < at + 4:
        raise MalformedQuestion("the packet ends early")
    type_, class_ = struct.unpack_from("!2H", packet, at)
    if class_ != CLASS_IN:
        raise MalformedQuestion("not of class IN")
    raw = packet[_HEADER.size : at + 4]
    return Question(name=".".join(labels), type=type_, raw=raw, edns=_read_edns(packet, at + 4))


def _read_edns(packet: bytes, at: int) -> Edns | None:
    """From the OPT record among those that follow the question. Raises MalformedQuestion, also on a second one."""
    found = None
    for _ in range(sum(_HEADER.unpack_from(packet)[3:])):
        start, at = at, _after_name(packet, at)
        if len(packet) < at + _RECORD.size:
            raise MalformedQuestion("a record ends early")
        type_, class_, ttl, length = _RECORD.unpack_from(packet, at)
        if type_ == TYPE_OPT:
            if found is not None or packet[start]:
                raise MalformedQuestion("more than one OPT record, or one with an owner")
            found = Edns(payload=class_, version=ttl >> 16 & 0xFF)
        at += _RECORD.size + length
        if at > len(packet):
            raise MalformedQuestion("a record ends early")
    return found


def _after_name(packet: bytes, at: int) -> int:
    while at < len(packet) and 0 < packet[at] < 64:
        at += packet[at] + 1
    if at >= len(packet) or 0 < packet[at] < _POINTER:
        raise MalformedQuestion("a name cannot be read")
    return at + (2 if packet[at] >= _POINTER else 1)


def encode_name(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode("ascii") for label in name.split(".")) + b"\0"


def answer(packet: bytes, resolver: Resolver, *, port: int, over_tcp: bool = False) -> bytes | None:
    """The response to one packet; None where none is due. ``port`` is what SRV records say.

    ``over_tcp``: 64 KiB of room. Over UDP there are 512 bytes, or up to 1232 where the asker says that it takes them.
    """
    if len(packet) < _HEADER.size:
        return None
    ident, flags = _HEADER.unpack_from(packet)[:2]
    if flags & _RESPONSE:
        return None
    if flags & _OPCODE:
        return _response(ident, flags, NOTIMP)
    try:
        question = read_question(packet)
    except MalformedQuestion:
        return _response(ident, flags, FORMERR)
    code, records = _found(question, resolver, port)
    return _response(ident, flags, code, question, records, over_tcp=over_tcp)


def _found(question: Question, resolver: Resolver, port: int) -> tuple[int, list[bytes]]:
    """Response code and answer records."""
    if question.edns is not None and question.edns.version > 0:
        return BADVERS, []
    query = parse_dns(question.name)
    if query is None:
        return REFUSED, []
    try:
        return NOERROR, _records(question.type, resolver.locate(query), port)
    except UnknownName:
        return NXDOMAIN, []
    except ShardwrightError:
        return SERVFAIL, []


def _records(wanted: int, locations: tuple[Location, ...], port: int) -> list[bytes]:
    records = []
    for location in locations:
        if wanted in (TYPE_A, TYPE_ANY):
            records.append(_record(TYPE_A, IPv4Address(location.address).packed))
        if wanted in (TYPE_SRV, TYPE_ANY):
            priority = weight = 0
            target = encode_name(dns_name(location.name))  # in full: RFC 2782 forbids to compress it
            records.append(_record(TYPE_SRV, struct.pack("!3H", priority, weight, port) + target))
    return records


def _record(type_: int, data: bytes) -> bytes:
    return _OWNER + _RECORD.pack(type_, CLASS_IN, TTL_SECONDS, len(data)) + data


def _response(
    ident: int,
    flags: int,
    code: int,
    question: Question | None = None,
    records: Sequence[bytes] = (),
    *,
    over_tcp: bool = False,
) -> bytes:
    """Whole records only: what does not fit is left out and the answer marked as truncated, to be asked over TCP."""
    edns = question.edns if question else None
    opt = b"\0" + _RECORD.pack(TYPE_OPT, UDP_PAYLOAD, code >> 4 << 24, 0) if edns else b""
    asked = question.raw if question else b""
    room = (_TCP if over_tcp else _udp_room(edns)) - _HEADER.size - len(asked) - len(opt)
    fitting: list[bytes] = []
    for record in records:
        room -= len(record)
        if room < 0:
            break
        fitting.append(record)
    out = _RESPONSE | _AUTHORITATIVE | (flags & _RECURSION_DESIRED) | (code & 0xF)
    if len(fitting) < len(records):
        out |= _TRUNCATED
    header = _HEADER.pack(ident, out, 1 if question else 0, len(fitting), 0, 1 if opt else 0)
    return header + asked + b"".join(fitting) + opt


def _udp_room(edns: Edns | None) -> int:
    return _PLAIN_UDP if edns is None else min(max(edns.payload, _PLAIN_UDP), UDP_PAYLOAD)
