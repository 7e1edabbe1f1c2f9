"""The resolver over DNS: A and SRV for ``[N.]COMPONENT.WORKLOAD.NAMESPACE.shard.internal``, over UDP.

Only what a stub resolver needs of RFC 1035 and RFC 2782: one question, no recursion, no compression on the way out.
Foreign names are refused, unknown ones do not exist, malformed packets get FORMERR or, without an id, no answer.
"""

import socket
import struct
import threading
from collections.abc import Callable
from ipaddress import IPv4Address

from engine.errors import ShardwrightError, UnknownName
from engine.model.value import Value
from engine.namespace.names import dns_name, parse_dns
from engine.namespace.resolver import Location, Resolver

TYPE_A, TYPE_SRV, TYPE_ANY, CLASS_IN = 1, 33, 255, 1
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = 0, 1, 2, 3, 4, 5
TTL_SECONDS = 5
_HEADER = struct.Struct("!6H")
_RESPONSE, _AUTHORITATIVE, _TRUNCATED, _RECURSION_DESIRED, _OPCODE = 0x8000, 0x0400, 0x0200, 0x0100, 0x7800
_MAX_PACKET = 512
_MAX_NAME = 255


class Question(Value):
    name: str
    type: int
    raw: bytes
    """As it came, to be sent back."""


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
    return Question(name=".".join(labels), type=type_, raw=packet[_HEADER.size : at + 4])


def encode_name(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode("ascii") for label in name.split(".")) + b"\0"


def answer(packet: bytes, resolver: Resolver, *, port: int) -> bytes | None:
    """The response to one packet; None where none is due. ``port`` is what SRV records say."""
    if len(packet) < _HEADER.size:
        return None
    ident, flags = _HEADER.unpack_from(packet)[:2]
    if flags & _RESPONSE:
        return None
    if flags & _OPCODE:
        return _response(ident, flags, NOTIMP, b"", [])
    try:
        question = read_question(packet)
    except MalformedQuestion:
        return _response(ident, flags, FORMERR, b"", [])
    query = parse_dns(question.name)
    if query is None:
        return _response(ident, flags, REFUSED, question.raw, [])
    try:
        locations = resolver.locate(query)
    except UnknownName:
        return _response(ident, flags, NXDOMAIN, question.raw, [])
    except ShardwrightError:
        return _response(ident, flags, SERVFAIL, question.raw, [])
    return _response(ident, flags, NOERROR, question.raw, _records(question, locations, port))


def _records(question: Question, locations: tuple[Location, ...], port: int) -> list[bytes]:
    records = []
    owner = encode_name(question.name)
    for location in locations:
        if question.type in (TYPE_A, TYPE_ANY):
            records.append(_record(owner, TYPE_A, IPv4Address(location.address).packed))
        if question.type in (TYPE_SRV, TYPE_ANY):
            priority = weight = 0
            target = encode_name(dns_name(location.name))
            records.append(_record(owner, TYPE_SRV, struct.pack("!3H", priority, weight, port) + target))
    return records


def _record(owner: bytes, type_: int, data: bytes) -> bytes:
    return owner + struct.pack("!2HIH", type_, CLASS_IN, TTL_SECONDS, len(data)) + data


def _response(ident: int, flags: int, code: int, question: bytes, records: list[bytes]) -> bytes:
    """Whole records only: what does not fit into 512 bytes is left out and the answer marked as truncated."""
    room = _MAX_PACKET - _HEADER.size - len(question)
    fitting: list[bytes] = []
    for record in records:
        room -= len(record)
        if room < 0:
            break
        fitting.append(record)
    out = _RESPONSE | _AUTHORITATIVE | (flags & _RECURSION_DESIRED) | code
    if len(fitting) < len(records):
        out |= _TRUNCATED
    return _HEADER.pack(ident, out, 1 if question else 0, len(fitting), 0, 0) + question + b"".join(fitting)


class DnsServer:
    """Answers on a UDP port of loopback from one thread."""

    def __init__(
        self,
        resolver: Resolver,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        service_port: int,
        complain: Callable[[Exception], None] | None = None,
    ) -> None:
        """``service_port``: the port that shards serve on, for SRV. Raises OSError when ``port`` is taken."""
        self._resolver, self._service_port = resolver, service_port
        self._complain = complain or (lambda _: None)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.bind((host, port))
        except OSError:
            self._socket.close()
            raise
        self.port: int = self._socket.getsockname()[1]
        self._closing = False
        self._thread = threading.Thread(target=self._serve, name="dns", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing = True
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", self._socket.getsockname())
        self._thread.join(timeout=2)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            packet, asker = self._socket.recvfrom(_MAX_PACKET)
            if self._closing:
                return
            try:
                reply = answer(packet, self._resolver, port=self._service_port)
                if reply is not None:
                    self._socket.sendto(reply, asker)
            except Exception as error:  # one bad packet, or a store that is away, must not end the service
                self._complain(error)
