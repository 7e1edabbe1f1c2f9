import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.probe_port import (
    checksum,
    confirmation,
    hardware_address,
    introduction,
    packet,
    probe_port,
    read_answer,
    segment,
)

HERE, THERE = socket.inet_aton("10.9.255.254"), socket.inet_aton("10.9.1.1")
SYN_ACK, RST_ACK, DATA = 0x12, 0x14, 0x18


def answer(port: int = 7000, our_port: int = 40000, flags: int = SYN_ACK, acknowledged: int = 8) -> bytes:
    tcp = struct.pack("!HHIIBBHHH", port, our_port, 99, acknowledged, 5 << 4, flags, 1024, 0, 0)
    return bytes(12) + b"\x08\x00" + packet(THERE, HERE, tcp)


def test_an_answer_is_told_from_everything_else() -> None:
    assert read_answer(answer(), 7000, 40000) == (SYN_ACK, 8)
    assert read_answer(answer(flags=RST_ACK), 7000, 40000) == (RST_ACK, 8)
    assert read_answer(answer(port=22), 7000, 40000) is None
    assert read_answer(answer(our_port=1), 7000, 40000) is None
    assert read_answer(answer(flags=0x02), 7000, 40000) is None
    assert read_answer(answer()[:40], 7000, 40000) is None
    assert read_answer(bytes(12) + b"\x08\x06" + bytes(60), 7000, 40000) is None


def test_checksums_are_right() -> None:
    """A receiver that sums up the header with its checksum gets nothing."""
    sent = packet(HERE, THERE, segment(HERE, THERE, 40000, 7000, 7, 2))
    assert checksum(sent[:20]) == 0
    assert checksum(HERE + THERE + struct.pack("!BBH", 0, 6, 20) + sent[20:]) == 0


def test_the_introduction_asks_for_the_guests_own_address() -> None:
    asked = introduction(b"\x02" * 6, HERE, THERE)
    assert (asked[14:18], asked[24:28], asked[7]) == (HERE, THERE, 1)


def test_the_confirmation_is_an_answer_to_the_guest() -> None:
    told = confirmation(b"\x02" * 6, HERE, b"\x04" * 6, THERE)
    assert (told[14:18], told[18:24], told[24:28], told[7]) == (HERE, b"\x04" * 6, THERE, 2)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes a network namespace")


@pytest.fixture(scope="module")
def neighbour() -> Iterator[tuple[str, str]]:
    """(our end of a link, the MAC of the other): a kernel with 10.9.1.1 that serves port 7000, in a namespace."""
    name = f"swp{os.getpid()}"[:10]
    peer = Path(f"/var/run/netns/{name}")
    lines = [
        f"netns add {name}",
        f"link add {name}a type veth peer name {name}b netns {name}",
        f"link set {name}a up",
        f"-n {name} link set {name}b up",
        f"-n {name} link set lo up",
        f"-n {name} addr add 10.9.1.1/16 dev {name}b",
    ]
    server = None
    try:
        for line in lines:
            done = subprocess.run(["ip", *line.split()], capture_output=True, text=True, timeout=10, check=False)
            if done.returncode != 0:
                pytest.skip(f"no namespaces here: {done.stderr.strip()}")
        serve = "import socket,sys; s=socket.create_server(('10.9.1.1',7000)); print('on',flush=True); sys.stdin.read()"
        server = subprocess.Popen(
            ["nsenter", f"--net={peer}", "--", "python3", "-c", serve],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert server.stdout is not None
        assert server.stdout.readline() == "on\n"
        shown = subprocess.run(
            ["ip", "-n", name, "-o", "link", "show", f"{name}b"], capture_output=True, text=True, check=True, timeout=10
        )
        yield f"{name}a", shown.stdout.split("link/ether ")[1].split()[0]
    finally:
        if server is not None:
            server.communicate(timeout=10)
        subprocess.run(["ip", "netns", "del", name], capture_output=True, timeout=10, check=False)


@needs_root
def test_a_port_of_a_real_kernel_is_open_closed_or_silent(neighbour: tuple[str, str]) -> None:
    link, mac = neighbour

    def probe(address: str, port: int, seconds: float = 5.0) -> tuple[bool, str]:
        found = probe_port(link, link, mac, address, port, seconds)
        return found.open, found.reason

    assert probe("10.9.1.1/16", 7000) == (True, "")
    assert probe("10.9.1.1/16", 7001) == (False, "port 7001 is closed")
    assert probe("10.9.1.2/16", 7000, 0.2) == (False, "port 7000 does not answer within 0.2 s")
    with pytest.raises(OSError, match="No such device"):
        probe_port("swnothere", "swnothere", mac, "10.9.1.1/16", 7000, 0.1)


@needs_root
def test_a_real_kernel_learns_from_an_introduction_and_keeps_what_is_confirmed(neighbour: tuple[str, str]) -> None:
    link, mac = neighbour
    ours, theirs = hardware_address(link), bytes.fromhex(mac.replace(":", ""))
    asker = socket.inet_aton("10.9.255.253")
    state = ("ip", "-n", link[:-1], "neigh", "show", "10.9.255.253")

    def told(frame: bytes) -> str:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
            sender.bind((link, 0))
            sender.send(theirs + ours + b"\x08\x06" + frame)
        return subprocess.run(state, capture_output=True, text=True, check=True, timeout=10).stdout.split()[-1]

    known = introduction(ours, asker, THERE)
    assert told(known) == "STALE"
    assert told(confirmation(ours, asker, theirs, THERE)) == "REACHABLE"
    assert told(known) == "REACHABLE"
