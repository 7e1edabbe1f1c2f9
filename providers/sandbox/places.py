"""Where nodes run: network namespaces on the underlay, or bare loopback addresses where those cannot be had."""

import socket
import threading
from ipaddress import IPv4Network
from typing import Protocol

from providers.sandbox import netns
from providers.sandbox.metadata import MetadataServer
from providers.sandbox.netns import NetworkSetupFailed
from providers.sandbox.nodes import Place
from providers.sandbox.processes import in_namespaces, namespace_inodes
from providers.sandbox.underlay import METADATA_ADDRESS, Underlay, node_address

_LOOPBACK_NETWORKS = tuple(IPv4Network(f"127.{second}.0.0/16") for second in range(77, 127))
LOOPBACK_LIMITS = (
    "no network namespaces: nodes are processes on loopback addresses (127.77.x.y and up)",
    "no overlay network: shards have no address of their own and clients cannot follow a move",
    "no isolation between nodes, and instance metadata only at SHARDWRIGHT_METADATA_URL",
)


class Places(Protocol):
    def attach(self, name: str) -> Place:
        """A new place of that name."""
        ...

    def detach(self, place: Place) -> None:
        """Already gone = success; its processes have been ended."""
        ...

    def pids(self, place: Place) -> set[int]:
        """Processes that are there because of where they run."""
        ...

    def command(self, place: Place, argv: list[str]) -> list[str]:
        """``argv`` so that it runs in the place."""
        ...


class NamespacePlaces:
    def __init__(self, underlay: Underlay) -> None:
        self._underlay = underlay

    def attach(self, name: str) -> Place:
        attached = self._underlay.attach_node(name)
        return Place(
            name=name,
            namespace=attached.namespace,
            address=attached.underlay_address,
            metadata_url=f"http://{METADATA_ADDRESS}",
        )

    def detach(self, place: Place) -> None:
        self._underlay.detach(place.name)

    def pids(self, place: Place) -> set[int]:
        return in_namespaces(namespace_inodes([place.namespace] if place.namespace else []))

    def command(self, place: Place, argv: list[str]) -> list[str]:
        # Not `ip netns exec`: that hides /sys/fs/cgroup behind a fresh /sys.
        return ["nsenter", f"--net={netns.NAMESPACES / str(place.namespace)}", "--", *argv]


class LoopbackNetwork:
    """A range of loopback addresses that no other sandbox on this machine uses: agents listen on fixed ports there.

    Kept by a name in the kernel that goes with the process that took it, however that ends.
    """

    def __init__(self) -> None:
        for subnet in _LOOPBACK_NETWORKS:
            claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                claim.bind(f"\0shardwright-loopback-{subnet}")
            except OSError:
                claim.close()
                continue
            self.subnet, self._claim = subnet, claim
            return
        raise NetworkSetupFailed(
            "no loopback network is free for nodes", why=f"{len(_LOOPBACK_NETWORKS)} sandboxes run without namespaces"
        )

    def close(self) -> None:
        self._claim.close()


class LoopbackPlaces:
    def __init__(self, metadata: MetadataServer, network: LoopbackNetwork) -> None:
        self._metadata, self._network = metadata, network
        self._lock = threading.Lock()
        self._used: set[str] = set()

    def attach(self, name: str) -> Place:
        with self._lock:
            address = self._free_address()
            self._used.add(address)
        _, port = self._metadata.listen(netns.listen(address, 0), by_called_address=True)
        return Place(name=name, namespace=None, address=address, metadata_url=f"http://{address}:{port}")

    def detach(self, place: Place) -> None:
        self._metadata.stop_listening(place.address)
        with self._lock:
            self._used.discard(place.address)

    def pids(self, place: Place) -> set[int]:
        return set()

    def command(self, place: Place, argv: list[str]) -> list[str]:
        return argv

    def _free_address(self) -> str:
        index = 1
        while (address := node_address(self._network.subnet, index)) in self._used:
            index += 1
        return address
