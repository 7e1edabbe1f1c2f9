"""DNS packets as an asker writes and reads them, and a component with many replicas to ask for."""

import struct
from dataclasses import dataclass

from engine.errors import UnknownName
from engine.model.ids import ShardId
from engine.model.placement import ComponentName
from engine.namespace.dns import TYPE_A, TYPE_OPT, encode_name
from engine.namespace.names import NameQuery
from engine.namespace.resolver import Location, Resolver

NAME = "web.shop.acme.shard.internal"


def question(name: str, type_: int = TYPE_A, *, flags: int = 0x0100, class_: int = 1, count: int = 1) -> bytes:
    header = struct.pack("!6H", 4711, flags, count, 0, 0, 0)
    return header + encode_name(name) + struct.pack("!2H", type_, class_)


def with_records(packet: bytes, *records: bytes) -> bytes:
    """Additional ones behind the question."""
    return packet[:10] + struct.pack("!H", len(records)) + packet[12:] + b"".join(records)


def opt(payload: int = 1232, *, version: int = 0, owner: bytes = b"\0", options: bytes = b"") -> bytes:
    return owner + struct.pack("!2HIH", TYPE_OPT, payload, version << 16, len(options)) + options


@dataclass
class Reply:
    ident: int
    code: int
    truncated: bool
    owners: list[str]
    records: list[tuple[int, bytes]]
    edns: tuple[int, int] | None
    """Payload size and the field that stands for the time to live: extended code, version, flags."""


def read(packet: bytes | None) -> Reply:
    """Fails where the packet is not one whole DNS message."""
    assert packet is not None
    ident, flags, questions, answers, authorities, additional = struct.unpack_from("!6H", packet)
    assert authorities == 0
    at, owners, records, edns = 12, [], [], None
    for _ in range(questions):
        at = _name(packet, at)[1] + 4
    for _ in range(answers):
        owner, at = _name(packet, at)
        type_, class_, ttl, length = struct.unpack_from("!2HIH", packet, at)
        assert (class_, ttl) == (1, 5)
        owners.append(owner)
        records.append((type_, packet[at + 10 : at + 10 + length]))
        at += 10 + length
    for _ in range(additional):
        owner, at = _name(packet, at)
        type_, payload, field, length = struct.unpack_from("!2HIH", packet, at)
        assert (owner, type_, edns) == ("", TYPE_OPT, None)
        edns = payload, field
        at += 10 + length
    assert at == len(packet)
    return Reply(ident, flags & 0xF, bool(flags & 0x0200), owners, records, edns)


def _name(packet: bytes, at: int) -> tuple[str, int]:
    """The name at a place, and where it ends."""
    labels = []
    while packet[at]:
        if packet[at] >= 0xC0:
            target = struct.unpack_from("!H", packet, at)[0] & 0x3FFF
            return ".".join([*labels, _name(packet, target)[0]]), at + 2
        labels.append(packet[at + 1 : at + 1 + packet[at]].decode("ascii"))
        at += packet[at] + 1
    return ".".join(labels), at + 1


class Crowd(Resolver):
    """``acme/shop/web`` with so many replicas."""

    def __init__(self, replicas: int = 40) -> None:
        self._replicas = replicas

    def locate(self, query: NameQuery) -> tuple[Location, ...]:
        if query.component != "web":
            raise UnknownName("no such name")
        return tuple(
            Location.model_construct(
                name=ComponentName(namespace="acme", workload="shop", component="web", index=i),
                shard=ShardId(f"s{i}"),
                address=f"10.9.{i >> 8}.{i & 255}",
            )
            for i in range(self._replicas)
        )
