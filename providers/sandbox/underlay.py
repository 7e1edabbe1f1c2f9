"""The sandbox's "internet": a namespace with a bridge, and one namespace per node or client attached to it.

    root namespace                 underlay namespace                    node namespace
    TAGu 10.77.0.2/16 ── veth ── r0 ┐                        ┌ v7 ── veth ── eth0 10.77.1.7/16
                                    ub 10.77.0.1/16 (bridge) ┤
                                       169.254.169.254/32    └ …

The root side lets the control plane dial nodes; nothing listens on it. The overlay is no part of this: the agents of
nodes and clients make it among themselves, as they do at a real provider. Every name starts with the sandbox's tag,
which is written down before anything is made.
"""

import ipaddress
import json
import re
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Network

from engine.model.value import Value
from providers.sandbox import netns
from providers.sandbox.netns import NetworkSetupFailed, batch

METADATA_ADDRESS = "169.254.169.254"
_CANDIDATES = tuple(IPv4Network(f"10.{second}.0.0/16") for second in range(77, 127))
_GATEWAY_MAC = "02:53:57:00:00:01"
"""A bridge without an address of its own takes the lowest of its ports': a new port would change it, and every node
would lose metadata and control plane for the half minute that its neighbour table takes to notice."""
_PER_NET = 250
_MOST_ATTACHED = 250 * _PER_NET


class Attachment(Value):
    """A namespace on the underlay."""

    name: str
    namespace: str
    underlay_address: str


def free_subnet(in_use: Sequence[IPv4Network]) -> IPv4Network:
    """The first candidate that overlaps nothing this machine routes or owns."""
    for candidate in _CANDIDATES:
        if not any(candidate.overlaps(used) for used in in_use):
            return candidate
    raise NetworkSetupFailed(
        "no free underlay subnet", why=f"{_CANDIDATES[0]} to {_CANDIDATES[-1]} overlap this machine's routes"
    )


def networks_in_use() -> list[IPv4Network]:
    """Every IPv4 network that the root namespace has an address in or a route to, the default route left out."""
    found = []
    for route in json.loads(netns.query("-j", "-4", "route", "show", "table", "all") or "[]"):
        try:
            found.append(IPv4Network(route.get("dst", ""), strict=False))
        except ValueError:  # "default"
            continue
    return [network for network in found if network.prefixlen > 0]


def node_commands(address: str, gateway: str) -> list[str]:
    """``ip`` lines for the inside of one node's namespace."""
    return [
        "link set lo up",
        f"address add {address}/16 dev eth0",
        "link set eth0 up",
        f"route add default via {gateway}",
        f"route add {METADATA_ADDRESS}/32 via {gateway}",
    ]


class Underlay:
    """Owns the namespaces of one sandbox. Not for use by two threads at once, except through its own lock."""

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self.namespace = f"{tag}-inet"
        self.subnet = _CANDIDATES[0]
        self._lock = threading.Lock()
        self._attached: dict[str, Attachment] = {}
        self._indexes: dict[str, int] = {}
        self._last_index = 0

    @property
    def gateway(self) -> str:
        """The underlay namespace's own address: relay and metadata server are here."""
        return str(self.subnet[1])

    @property
    def root_address(self) -> str:
        return str(self.subnet[2])

    def create(self) -> None:
        """The underlay namespace, its bridge and the root-side link."""
        root_link = f"{self.tag}u"
        with _subnet_lock():
            self.subnet = free_subnet(networks_in_use())
            batch("ip", [f"netns add {self.namespace}"])
            netns.quiet(self.namespace)
            batch("ip", [f"link add {root_link} type veth peer name r0 netns {self.namespace}"])
            batch("ip", [f"address add {self.root_address}/16 dev {root_link}", f"link set {root_link} up"])
        inner = [
            "link set lo up",
            f"link add ub address {_GATEWAY_MAC} type bridge forward_delay 0",
            f"address add {self.gateway}/16 dev ub",
            f"address add {METADATA_ADDRESS}/32 dev ub",
            "link set ub up",
            "link set r0 master ub up",
        ]
        batch("ip", inner, namespace=self.namespace)

    def attach_node(self, name: str) -> Attachment:
        """A namespace with an underlay address and a default route. Raises NetworkSetupFailed."""
        with self._lock:
            return self._attach(name)

    def attach_client(self, name: str) -> Attachment:
        """The same for the host of a client; the same name again is the same client."""
        with self._lock:
            key = f"client-{name}"
            return self._attached[key] if key in self._attached else self._attach(key)

    def detach(self, name: str) -> None:
        """Remove the namespace. Not attached = success. Its processes must be gone."""
        with self._lock:
            attachment = self._attached.pop(name, None)
            if attachment is None:
                return
            index = self._indexes.pop(name)
            batch("ip", [f"link del v{index}"], namespace=self.namespace, force=True)
            batch("ip", [f"netns del {attachment.namespace}"], force=True)

    def link(self, name: str) -> str:
        """The attachment's end of its cable, in the underlay namespace."""
        with self._lock:
            return f"v{self._indexes[name]}"

    def attached(self) -> tuple[Attachment, ...]:
        with self._lock:
            return tuple(self._attached.values())

    def _attach(self, name: str) -> Attachment:
        if name in self._attached:
            raise NetworkSetupFailed(f"{name} is attached already")
        index = self._free_index()
        attachment = Attachment(
            name=name,
            namespace=namespace_name(self.tag, name),
            underlay_address=node_address(self.subnet, index),
        )
        batch("ip", [f"netns add {attachment.namespace}"])
        try:
            self._wire(attachment, index)
        except NetworkSetupFailed:
            batch("ip", [f"netns del {attachment.namespace}"], force=True)
            raise
        self._attached[name], self._indexes[name] = attachment, index
        return attachment

    def _free_index(self) -> int:
        # Round and round, so that a new node does not get the address of one that has just gone.
        used = set(self._indexes.values())
        for step in range(_MOST_ATTACHED):
            index = (self._last_index + step) % _MOST_ATTACHED + 1
            if index not in used:
                self._last_index = index
                return index
        raise NetworkSetupFailed("no underlay address is free", why=f"{_MOST_ATTACHED} are in use")

    def _wire(self, attachment: Attachment, index: int) -> None:
        netns.quiet(attachment.namespace)
        link = f"v{index}"
        outer = [
            f"link add {link} type veth peer name eth0 netns {attachment.namespace}",
            f"link set {link} master ub up",
        ]
        batch("ip", outer, namespace=self.namespace)
        batch("ip", node_commands(attachment.underlay_address, self.gateway), namespace=attachment.namespace)


def namespace_name(tag: str, name: str) -> str:
    """A name that ``ip netns`` takes, whatever a tag value at a provider may hold."""
    return f"{tag}-{re.sub(r'[^A-Za-z0-9._-]', '_', name)[:80]}"


def node_address(subnet: IPv4Network, index: int) -> str:
    """Underlay address of the index-th attachment (1 …): x.y.1.1, x.y.1.2, …"""
    net, host = divmod(index - 1, _PER_NET)
    return str(ipaddress.IPv4Address(int(subnet.network_address) + ((net + 1) << 8) + host + 1))


@contextmanager
def _subnet_lock() -> Iterator[None]:
    """Two sandboxes that start together must not pick one subnet. The kernel frees the lock with its process."""
    lock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    waiting = threading.Event()
    try:
        for _ in range(200):
            try:
                lock.bind("\0shardwright-underlay")
                break
            except OSError:
                waiting.wait(0.05)
        else:
            raise NetworkSetupFailed("another sandbox has been choosing its subnet for ten seconds")
        yield
    finally:
        lock.close()
