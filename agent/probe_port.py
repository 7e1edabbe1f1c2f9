"""Does a guest's TCP port answer? Asked on the guest's own tap, so that the node needs no address in the overlay.

A SYN goes in, an answer comes back, and a RST takes the half-open connection down again: the workload never sees it.
The sender's address is one that the overlay keeps for this; its MAC is that of the tap's own bridge, which throws away
what it is sent, so that nothing of it leaves the node. The guest is told that MAC beforehand, so it asks nobody.
"""

import ctypes
import fcntl
import os
import random
import socket
import struct
import time
from ipaddress import IPv4Interface

from agent.wire import Mac, OverlayInterface
from engine.model.value import Value

_ALL, _IPV4, _ARP, _TCP = 0x0003, 0x0800, 0x0806, 6
_SYN, _RST, _ACK = 0x02, 0x04, 0x10
_GET_HARDWARE_ADDRESS = 0x8927
_ATTACH_FILTER = 26
_FIRST_PORT, _PORTS = 32_768, 28_000


class PortAnswer(Value):
    open: bool
    reason: str = ""


def probe_port(tap: str, bridge: str, mac: Mac, address: OverlayInterface, port: int, seconds: float) -> PortAnswer:
    """Blocks for up to ``seconds``. ``bridge``: the one that the tap is on. Raises OSError where there is no tap."""
    guest = IPv4Interface(address)
    here, there = socket.inet_aton(str(guest.network.broadcast_address - 1)), guest.ip.packed
    our_mac, guest_mac = hardware_address(bridge), bytes.fromhex(mac.replace(":", ""))
    chooser = random.SystemRandom()
    our_port, number = _FIRST_PORT + chooser.randrange(_PORTS), chooser.randrange(2**32 - 1)

    def frame(flags: int, sequence: int) -> bytes:
        tcp = segment(here, there, our_port, port, sequence, flags)
        return guest_mac + our_mac + struct.pack("!H", _IPV4) + packet(here, there, tcp)

    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as link:
        _only_to(link, here)
        link.bind((tap, _ALL))
        link.send(guest_mac + our_mac + struct.pack("!H", _ARP) + introduction(our_mac, here, there))
        link.send(frame(_SYN, number))
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            link.settimeout(left)
            try:
                found = read_answer(link.recv(2048), port, our_port)
            except TimeoutError:
                break
            if found is None or found[1] != (number + 1) % 2**32:
                continue
            if found[0] & _RST:
                return PortAnswer(open=False, reason=f"port {port} is closed")
            link.send(frame(_RST, found[1]))
            return PortAnswer(open=True)
    return PortAnswer(open=False, reason=f"port {port} does not answer within {seconds:g} s")


def hardware_address(interface: str) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        answer = fcntl.ioctl(handle, _GET_HARDWARE_ADDRESS, struct.pack("16s24x", interface.encode()))
    return answer[18:24]


def introduction(mac: bytes, here: bytes, there: bytes) -> bytes:
    """An ARP question for the guest's own address: from it, Linux learns the asker's."""
    return struct.pack("!HHBBH", 1, _IPV4, 6, 4, 1) + mac + here + bytes(6) + there


def confirmation(mac: bytes, here: bytes, guest_mac: bytes, there: bytes) -> bytes:
    """An ARP answer to what the guest may be asking: sent to its own MAC, it keeps an asker that Linux has learnt."""
    return struct.pack("!HHBBH", 1, _IPV4, 6, 4, 2) + mac + here + guest_mac + there


def packet(here: bytes, there: bytes, tcp: bytes) -> bytes:
    """An IPv4 packet around a TCP segment."""

    def header(checksum: int) -> bytes:
        return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0x4000, 64, _TCP, checksum) + here + there

    return header(checksum(header(0))) + tcp


def segment(here: bytes, there: bytes, our_port: int, port: int, sequence: int, flags: int) -> bytes:
    def header(checksum: int) -> bytes:
        return struct.pack("!HHIIBBHHH", our_port, port, sequence, 0, 5 << 4, flags, 1024, checksum, 0)

    pseudo = here + there + struct.pack("!BBH", 0, _TCP, 20)
    return header(checksum(pseudo + header(0)))


def checksum(data: bytes) -> int:
    """RFC 1071, over an even number of bytes."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(~total & 0xFFFF)


def read_answer(frame: bytes, port: int, our_port: int) -> tuple[int, int] | None:
    """(flags, acknowledged number) of a segment from that port to ours; None for anything else."""
    if len(frame) < 54 or struct.unpack_from("!H", frame, 12)[0] != _IPV4 or frame[23] != _TCP:
        return None
    start = 14 + (frame[14] & 0x0F) * 4
    if len(frame) < start + 20 or struct.unpack_from("!HH", frame, start) != (port, our_port):
        return None
    flags = frame[start + 13]
    return (flags, int(struct.unpack_from("!I", frame, start + 8)[0])) if flags & _ACK else None


def _only_to(link: socket.socket, address: bytes) -> None:
    """Let the kernel drop everything but IPv4 to ``address``: a busy guest must not fill the queue."""
    wanted = int.from_bytes(address)
    rules = [
        (0x28, 0, 0, 12),  # the EtherType
        (0x15, 0, 3, _IPV4),
        (0x20, 0, 0, 30),  # the destination
        (0x15, 0, 1, wanted),
        (0x06, 0, 0, 2048),
        (0x06, 0, 0, 0),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *rule) for rule in rules))
    link.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, struct.pack("HL", len(rules), ctypes.addressof(code)))


def usable() -> bool:
    """Raw sockets are root's."""
    return os.geteuid() == 0
