"""Which nodes stand behind which instances right now, shared by the node host, the metadata server and the market."""

import threading
from collections.abc import Iterable, Mapping

from engine.errors import UsageError
from engine.model.value import Value
from providers.sandbox.contract import SandboxInstance, SandboxNotice


class Place(Value):
    """Where a node runs: a namespace with an underlay address, or (without namespaces) a loopback address."""

    name: str
    namespace: str | None
    address: str
    metadata_url: str


class HostedNode(Value):
    """An instance and the node behind it."""

    provider: str
    kind: str
    account: str
    place: Place
    instance: SandboxInstance
    notice: SandboxNotice | None = None

    @property
    def node(self) -> str:
        """The node's id, or the instance's where the instance carries none."""
        return self.instance.node or self.instance.instance_id


class HostedNodes:
    """Written by the node host, read by many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_address: Mapping[str, HostedNode] = {}

    def replace(self, nodes: Iterable[HostedNode]) -> None:
        fresh = {node.place.address: node for node in nodes}
        with self._lock:
            self._by_address = fresh

    def put(self, node: HostedNode) -> None:
        with self._lock:
            self._by_address = {**self._by_address, node.place.address: node}

    def at(self, address: str) -> HostedNode | None:
        with self._lock:
            return self._by_address.get(address)

    def all(self) -> tuple[HostedNode, ...]:
        with self._lock:
            return tuple(self._by_address.values())

    def named(self, node: str) -> HostedNode:
        """By node id or instance id. Raises UsageError."""
        for hosted in self.all():
            if node in (hosted.node, hosted.instance.instance_id):
                return hosted
        known = ", ".join(sorted(hosted.node for hosted in self.all())) or "none"
        raise UsageError(f"the sandbox runs no node {node!r}", why=f"running: {known}")
