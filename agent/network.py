"""A shard's network on this node: a tap on the overlay bridge, or QEMU's own network where there is no bridge."""

import fcntl
import hashlib
import os
import socket
import struct
import subprocess

from agent.wire import NetworkMode
from engine.errors import MissingPart
from engine.model.ids import NodeId, ShardId

BRIDGE = "br0"
"""Made by whoever prepares the node, together with the VXLAN link to the other nodes."""
_COMMAND_SECONDS = 10
_GET_MTU = 0x8921
_LEAST_BURST_BYTES = 32 * 1024


def detect() -> NetworkMode:
    """BRIDGE where this network namespace has an overlay bridge and we may make taps on it."""
    try:
        socket.if_nametoindex(BRIDGE)
    except OSError:
        return NetworkMode.USER
    usable = os.geteuid() == 0 and os.access("/dev/net/tun", os.R_OK | os.W_OK)
    return NetworkMode.BRIDGE if usable else NetworkMode.USER


def bridge_mtu() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        answer = fcntl.ioctl(handle, _GET_MTU, struct.pack("16sI12x", BRIDGE.encode(), 0))
    return int(struct.unpack("16sI12x", answer)[1])


def tap_name(node: NodeId, shard: ShardId) -> str:
    """At most 15 letters, different for two nodes that share a namespace."""
    return "sw" + hashlib.sha256(f"{node}/{shard}".encode()).hexdigest()[:10]


def add_tap(name: str) -> None:
    """A fresh tap on the bridge; one of that name that was left behind is replaced."""
    remove_tap(name)
    lines = [f"tuntap add dev {name} mode tap", f"link set {name} mtu {bridge_mtu()} master {BRIDGE} up"]
    _run(["ip", "-batch", "-"], stdin="\n".join(lines) + "\n")


def remove_tap(name: str) -> None:
    """Not there = success."""
    subprocess.run(["ip", "link", "del", name], capture_output=True, timeout=_COMMAND_SECONDS, check=False)


def shape(name: str, mbps: float) -> None:
    """Limit what the shard receives, in Mbit/s; 0 lifts the limit. Works on a running shard."""
    if mbps <= 0:
        command = ["tc", "qdisc", "del", "dev", name, "root"]
        subprocess.run(command, capture_output=True, timeout=_COMMAND_SECONDS, check=False)
        return
    burst = max(_LEAST_BURST_BYTES, int(mbps * 1_000_000 / 8 / 100))
    rate = f"{int(mbps * 1000)}kbit"
    _run(["tc", "qdisc", "replace", "dev", name, "root", "tbf", "rate", rate, "burst", str(burst), "latency", "50ms"])


def free_port(host: str) -> int:
    """A TCP port that nothing listens on now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _run(command: list[str], stdin: str | None = None) -> None:
    try:
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False
        )
    except OSError as problem:
        raise MissingPart(f"{command[0]} is not installed", next_step="install iproute2") from problem
    if done.returncode != 0:
        raise MissingPart(f"{command[0]} cannot set up the shard's network", why=done.stderr.strip())
