"""Whether a guest is up: what its image says about that, looked at from outside the guest."""

import asyncio
import random
import socket
import struct
import time
from ipaddress import IPv4Interface
from pathlib import Path

from agent import guest, network
from agent.guest import GuestRecord
from engine.model.workload_image import ReadyCheck

BOOT_SECONDS = 90.0
_ANSWER_SECONDS = 0.3
_ALL = 0x0003
_TCP, _ETHERNET, _SYN, _RST, _ACK = 6, 14, 0x02, 0x04, 0x10


def seconds(record: GuestRecord) -> float:
    """How long the guest may take."""
    image = record.profile.image
    return BOOT_SECONDS if image is None else image.ready.seconds


async def is_up(record: GuestRecord, run: Path) -> bool:
    """``run``: where its QEMU works."""
    image = record.profile.image
    if image is None:
        return guest.is_ready(run)
    check: ReadyCheck = image.ready
    if check.tcp_port is None:
        return check.console in guest.console(run)
    if record.tap is None:
        return await asyncio.to_thread(_answers_forwarded, record.forwarded_port or 0)
    return await asyncio.to_thread(answers, record.tap, record.address, record.mac, check.tcp_port)


def _answers_forwarded(port: int) -> bool:
    """QEMU takes the connection in any case, and closes it at once where the guest does not."""
    try:
        with socket.create_connection(("127.0.0.1", port), _ANSWER_SECONDS) as connection:
            connection.settimeout(_ANSWER_SECONDS)
            return connection.recv(1) != b""
    except TimeoutError:
        return True
    except OSError:
        return False


def answers(tap: str, address: str, mac: str, port: int) -> bool:
    """Whether the guest accepts a connection there. Blocks for _ANSWER_SECONDS at most.

    The node has no address in the overlay, so it asks in the name of ``network.nobody``, by hand; the half-open
    connection is taken back at once.
    """
    ours, theirs = network.nobody(address).packed, IPv4Interface(address).ip.packed
    source_port, sequence = random.randrange(20_000, 60_000), random.randrange(1 << 32)  # noqa: S311 - no secret
    ethernet = bytes.fromhex(mac.replace(":", "")) + network.bridge_mac() + b"\x08\x00"
    # All frames: those of one kind only would be seen behind the bridge, which takes them off the tap.
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL)) as link:
        link.bind((tap, _ALL))
        network.introduce(tap, address)
        link.send(ethernet + packet(ours, theirs, source_port, port, sequence, 0, _SYN))
        end = time.monotonic() + _ANSWER_SECONDS
        while (left := end - time.monotonic()) > 0:
            link.settimeout(left)
            try:
                said = answered(link.recv(2048)[_ETHERNET:], theirs, ours, port, source_port)
            except TimeoutError:
                return False
            if said is None:
                continue
            flags, acknowledged = said
            if not flags & _RST:
                link.send(ethernet + packet(ours, theirs, source_port, port, acknowledged, 0, _RST))
            return bool(flags & _SYN and flags & _ACK)
    return False


def packet(
    source: bytes, target: bytes, source_port: int, target_port: int, sequence: int, acknowledged: int, flags: int
) -> bytes:
    """An IPv4 packet with a TCP segment that carries nothing."""
    segment = struct.pack("!HHIIBBHHH", source_port, target_port, sequence, acknowledged, 5 << 4, flags, 8192, 0, 0)
    pseudo = source + target + struct.pack("!BBH", 0, _TCP, len(segment))
    segment = segment[:16] + struct.pack("!H", _checksum(pseudo + segment)) + segment[18:]
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(segment), 0, 0, 64, _TCP, 0, source, target)
    return header[:10] + struct.pack("!H", _checksum(header)) + header[12:] + segment


def answered(data: bytes, source: bytes, target: bytes, source_port: int, target_port: int) -> tuple[int, int] | None:
    """(flags, acknowledged number) of a TCP segment between those two; None: it is something else."""
    length = (data[0] & 0x0F) * 4 if data else 0
    if len(data) < length + 20 or data[0] >> 4 != 4 or data[9] != _TCP or data[12:20] != source + target:
        return None
    ports = struct.unpack_from("!HH", data, length)
    acknowledged, _offset, flags = struct.unpack_from("!IBB", data, length + 8)
    return (flags, acknowledged) if ports == (source_port, target_port) else None


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
