"""The node's WireGuard tunnel: its own key, the kernel's device or wireguard-go, and the other nodes as peers.

Both kinds of device are configured by ``wg`` (wireguard-tools). WireGuard takes packets from a peer only with a source
address that the peer was given, so who sent a packet is certain.
"""

import base64
import hashlib
import logging
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from agent.epochs import write_durably
from agent.overlay_wire import UNDERLAY_MTU, OverlayPeer, checked_endpoint
from agent.wireguard_go import find_wireguard_go
from engine.errors import MissingPart
from engine.model.ids import NodeId

TUNNEL_OVERHEAD = 80
"""Outer IPv6 (40, IPv4 is less), UDP (8), WireGuard's header and tag (32)."""
TUNNEL_PREFIX = 16
_KEEPALIVE_SECONDS = 25
"""Every tunnel is up before it is needed, and stays so behind a translating router."""
_COMMAND_SECONDS, _START_SECONDS = 10, 5.0
_SOCKETS = Path("/var/run/wireguard")
_LOG = logging.getLogger("agent.wireguard")


def interface_name(node: NodeId, work: Path) -> str:
    """At most 15 letters; wireguard-go's sockets share one folder, whatever namespace they serve."""
    return "swwg" + hashlib.sha256(f"{node}:{work.resolve()}".encode()).hexdigest()[:8]


def tunnel_mtu(underlay_mtu: int) -> int:
    return underlay_mtu - TUNNEL_OVERHEAD


class Tunnel:
    """Files under ``folder``: wireguard.key (0600), which never leaves the node, and wireguard.log."""

    def __init__(self, name: str, folder: Path, port: int, underlay_mtu: int = UNDERLAY_MTU) -> None:
        self.name, self.port, self.mtu = name, port, tunnel_mtu(underlay_mtu)
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._private = self._load_key()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def public_key(self) -> str:
        raw = X25519PrivateKey.from_private_bytes(base64.b64decode(self._private)).public_key()
        return base64.b64encode(raw.public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()

    def up(self) -> bool:
        """Make the device where it is not there (any more). True when it was made anew. Raises MissingPart."""
        if self.there():
            return False
        if shutil.which("wg") is None:
            raise MissingPart("wg is not installed", next_step="install wireguard-tools")
        if not _succeeds(["ip", "link", "add", self.name, "type", "wireguard"]):
            self._start_userspace()
        return True

    def configure(self, address: str, peers: Sequence[OverlayPeer]) -> None:
        """Up with exactly these peers, and the node's own address in it. What stays the same is not disturbed.

        A peer with an endpoint that is none is left out, and named: ``wg`` would take none of them.
        """
        run(["ip", "link", "set", self.name, "mtu", str(self.mtu), "up"])
        run(["ip", "address", "replace", f"{address}/{TUNNEL_PREFIX}", "dev", self.name])
        # By standard input: the private key is in it.
        run(["wg", "syncconf", self.name, "/dev/stdin"], stdin=settings(self._private, self.port, _usable(peers)))

    def there(self) -> bool:
        """Whether the kernel has the device, with nobody in it perhaps."""
        if self._process is not None:
            self._process.poll()  # one that has died is no zombie of ours
        try:
            socket.if_nametoindex(self.name)
        except OSError:
            return False
        return True

    def _start_userspace(self) -> None:
        found = find_wireguard_go()
        if found is None:
            raise MissingPart(
                "this node has no WireGuard",
                why="its kernel has no module for it, and wireguard-go is not installed",
                next_step="make setup builds wireguard-go where Go is installed",
            )
        with (self._folder / "wireguard.log").open("ab") as log:
            # In a session of its own: like the guests, it outlives the agent.
            process = self._process = subprocess.Popen(
                [str(found), "-f", self.name], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        end = time.monotonic() + _START_SECONDS
        while not (self.there() and (_SOCKETS / f"{self.name}.sock").exists()):
            if process.poll() is not None or time.monotonic() > end:
                process.kill()
                raise MissingPart("wireguard-go does not start", why=_last_line(self._folder / "wireguard.log"))
            time.sleep(0.01)
        _LOG.info("the kernel has no WireGuard: %s serves %s", found, self.name)

    def _load_key(self) -> str:
        file = self._folder / "wireguard.key"
        if not file.exists():
            fresh = X25519PrivateKey.generate().private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
            write_durably(file, base64.b64encode(fresh) + b"\n")
        return file.read_text().strip()


def _usable(peers: Sequence[OverlayPeer]) -> list[OverlayPeer]:
    good = []
    for peer in peers:
        try:
            checked_endpoint(peer.endpoint)
        except ValueError as problem:
            _LOG.warning("%s is left out of the tunnel: its endpoint %r %s", peer.node, peer.endpoint, problem)
        else:
            good.append(peer)
    return good


def settings(private_key: str, port: int, peers: Sequence[OverlayPeer]) -> str:
    """In the format of ``wg setconf``."""
    lines = ["[Interface]", f"PrivateKey = {private_key}", f"ListenPort = {port}"]
    for peer in peers:
        lines += ["[Peer]", f"PublicKey = {peer.public_key}", f"Endpoint = {peer.endpoint}"]
        lines += [f"AllowedIPs = {peer.tunnel}/32", f"PersistentKeepalive = {_KEEPALIVE_SECONDS}"]
    return "\n".join(lines) + "\n"


def run(command: list[str], stdin: str | None = None) -> str:
    """Raises MissingPart with what the command said, never with what it was given."""
    try:
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise MissingPart(f"{command[0]} cannot be run", why=type(problem).__name__) from problem
    if done.returncode != 0:
        raise MissingPart(f"{' '.join(command[:4])} failed", why=done.stderr.strip()[-400:])
    return done.stdout


def _succeeds(command: list[str]) -> bool:
    try:
        run(command)
    except MissingPart as problem:
        if isinstance(problem.__cause__, subprocess.TimeoutExpired):
            raise
        return False
    return True


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
    return lines[-1] if lines else ""
