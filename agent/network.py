"""A shard's network on this node: a tap with a link to the overlay, or QEMU's own network where there is no overlay."""

import errno
import fcntl
import hashlib
import json
import os
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

from agent.probe_port import confirmation, introduction
from engine.errors import MissingPart
from engine.model.ids import NodeId, ShardId

_COMMAND_SECONDS = 10
_FLOOD_SOURCE = bytes.fromhex("025357000001")
_EXPERIMENTAL = bytes.fromhex("88b5")
"""The EtherType that IEEE keeps for local experiments: no program listens to it."""
_ARP = 0x0806
_FLOOD_PAUSE_SECONDS = 0.001
_GET_MTU, _SET_INTERFACE = 0x8921, 0x400454CA
_TAP_FLAGS = 0x0002 | 0x1000 | 0x4000
"""IFF_TAP, IFF_NO_PI, IFF_VNET_HDR: what QEMU sets when it opens a tap itself."""
_LEAST_BURST_BYTES = 32 * 1024


def tap_name(node: NodeId, shard: ShardId) -> str:
    """At most 15 letters, different for two nodes that share a namespace."""
    return "sw" + hashlib.sha256(f"{node}/{shard}".encode()).hexdigest()[:10]


def guest_link(node: NodeId, shard: ShardId) -> str:
    """The end of the shard's veth pair that the overlay takes in."""
    return _links(tap_name(node, shard))[2]


def add_tap(name: str, mtu: int) -> None:
    """A fresh tap with a link of its own for the overlay; what was left behind under the name is replaced.

    The tap sits on a bridge of its own, from which a veth pair leads out: a queue shapes only what leaves a device, so
    what the shard sends is shaped where it leaves that small bridge, and what it receives at the tap. The pair's outer
    end is on no bridge until the overlay puts it on its tenant's.
    """
    remove_tap(name)
    own, inner, outer = _links(name)
    lines = [
        f"link add {own} mtu {mtu} type bridge forward_delay 0",
        f"link add {inner} mtu {mtu} type veth peer name {outer} mtu {mtu}",
        f"tuntap add dev {name} mode tap",
        *(f"link set {link} addrgenmode none" for link in (own, inner, outer, name)),  # they say nothing themselves
        f"link set {name} mtu {mtu} master {own} up",
        f"link set {inner} master {own} up",
        f"link set {outer} up",
        f"link set {own} up",
    ]
    _run(["ip", "-batch", "-"], stdin="\n".join(lines) + "\n")


def remove_tap(name: str) -> None:
    """With its link to the overlay. Not there = success."""
    own, inner, _outer = _links(name)
    lines = "".join(f"link del {link}\n" for link in (name, inner, own))
    _try(["ip", "-force", "-batch", "-"], stdin=lines)


@contextmanager
def opened_tap(name: str) -> Iterator[int]:
    """A descriptor of the tap, for a QEMU that may not open it. Raises MissingPart."""
    handle = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        try:
            fcntl.ioctl(handle, _SET_INTERFACE, struct.pack("16sH22x", name.encode(), _TAP_FLAGS))
        except OSError as problem:
            raise MissingPart(f"tap {name} cannot be opened", why=problem.strerror or "") from problem
        yield handle
    finally:
        os.close(handle)


def shape(name: str, mbps: float) -> None:
    """Limit what the shard receives, and what it sends, in Mbit/s each; 0 lifts it. Works on a running shard."""
    _own, inner, _outer = _links(name)
    if mbps <= 0:
        for link in (name, inner):
            _try(["tc", "qdisc", "del", "dev", link, "root"])
        return
    burst = max(_LEAST_BURST_BYTES, int(mbps * 1_000_000 / 8 / 100))
    bucket = f"tbf rate {int(mbps * 1000)}kbit burst {burst} latency 50ms"
    lines = "".join(f"qdisc replace dev {link} root {bucket}\n" for link in (name, inner))
    _run(["tc", "-batch", "-"], stdin=lines)


def flood(name: str, mac: str, seconds: float) -> None:
    """Send a shard frames that its kernel counts and throws away, as fast as they are let through. Blocks."""
    frame = bytes.fromhex(mac.replace(":", "")) + _FLOOD_SOURCE + _EXPERIMENTAL
    end = time.monotonic() + seconds
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as link:
        link.bind((name, 0))
        frame += bytes(_mtu(link, name))
        while time.monotonic() < end:
            try:
                link.send(frame)
            except OSError as problem:
                if problem.errno != errno.ENOBUFS:
                    raise
                time.sleep(_FLOOD_PAUSE_SECONDS)


def nobody(address: str) -> IPv4Address:
    """An address of the shard's overlay that nobody has: the last one. What is sent there gets no further than here."""
    return IPv4Interface(address).network.broadcast_address - 1


def introduce(name: str, mac: str, address: str) -> None:
    """Let a shard know where ``nobody`` is, at this node's bridge, for as long as this is done again every few seconds.

    A question alone is not enough: Linux believes its sender for eight seconds, then asks back itself and stops sending
    while nobody answers.
    """
    shard, asker, shard_mac = (
        IPv4Interface(address).ip.packed,
        nobody(address).packed,
        bytes.fromhex(mac.replace(":", "")),
    )
    ours = _mac_beyond(_links(name)[2])
    head = shard_mac + ours + struct.pack("!H", _ARP)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as link:
        link.bind((name, 0))
        link.send(head + introduction(ours, asker, shard))
        link.send(head + confirmation(ours, asker, shard_mac, shard))


def taken_mbps(name: str, mac: str, address: str, seconds: float) -> float:
    """Mbit/s that the overlay takes from a shard that floods ``nobody``, shaped. Blocks; counts after a second."""
    _own, _inner, outer = _links(name)
    introduce(name, mac, address)
    time.sleep(1.0)
    first, began = _received_bytes(outer), time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        introduce(name, mac, address)
        time.sleep(min(1.0, seconds - passed))
    return round((_received_bytes(outer) - first) * 8 / 1e6 / (time.monotonic() - began), 3)


def _mac_beyond(link: str) -> bytes:
    """Of the tenant's bridge, from which no frame goes further; of the link's own end while that is on none."""
    described = json.loads(_run(["ip", "-json", "link", "show", "dev", link]))[0]
    if "master" in described:
        described = json.loads(_run(["ip", "-json", "link", "show", "dev", described["master"]]))[0]
    return bytes.fromhex(described["address"].replace(":", ""))


def _received_bytes(link: str) -> int:
    for line in Path("/proc/self/net/dev").read_text().splitlines():
        found, _, counts = line.partition(":")
        if found.strip() == link:
            return int(counts.split()[0])
    raise MissingPart(f"the link {link} is gone")


def _links(tap: str) -> tuple[str, str, str]:
    """(the shard's own bridge, the veth's end on it, its outer end: a prefix of its own, for the overlay's filter)"""
    return f"{tap}b", f"{tap}u", f"swo{tap.removeprefix('sw')}"


def _mtu(link: socket.socket, name: str) -> int:
    answer = fcntl.ioctl(link, _GET_MTU, struct.pack("16sI12x", name.encode(), 0))
    return int(struct.unpack("16sI12x", answer)[1])


def own_bridge(tap: str) -> str:
    """The small bridge that the tap sits on."""
    return _links(tap)[0]


def free_port(host: str) -> int:
    """A TCP port that nothing listens on now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _try(command: list[str], stdin: str | None = None) -> "subprocess.CompletedProcess[str]":
    """Whatever it answers. Raises MissingPart where it does not."""
    try:
        return subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False
        )
    except OSError as problem:
        raise MissingPart(f"{command[0]} is not installed", next_step="install iproute2") from problem
    except subprocess.TimeoutExpired as problem:
        raise MissingPart(f"{command[0]} does not end", why=f"not within {_COMMAND_SECONDS} s") from problem


def _run(command: list[str], stdin: str | None = None) -> str:
    done = _try(command, stdin)
    if done.returncode != 0:
        raise MissingPart(f"{command[0]} cannot set up the shard's network", why=done.stderr.strip())
    return done.stdout
