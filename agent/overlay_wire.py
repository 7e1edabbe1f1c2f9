"""What control plane and agents say to each other about the overlay between nodes; the rest is in agent.wire."""

from ipaddress import IPv4Address
from typing import Annotated

from pydantic import AfterValidator, Field

from agent.wire import NAME, Ipv4, Mac
from engine.model.ids import NodeId, ShardId
from engine.model.placement import Epoch
from engine.model.value import Value

LARGEST_VNI = (1 << 24) - 1
UNDERLAY_MTU = 1500
"""What the way between two providers carries, if nothing else is known."""


def checked_endpoint(text: str) -> str:
    """Raises ValueError for what WireGuard could not send to: ``wg`` refuses all peers for the sake of one.

    A host name is none: every other host would have to resolve it, and one that cannot would lose all peers too.
    """
    address, _, port = text.rpartition(":")
    try:
        host, number = IPv4Address(address), int(port)
    except ValueError:
        host, number = IPv4Address(0), 0
    if str(number) != port or not 1 <= number <= 65535 or host.is_unspecified or host.is_multicast:
        raise ValueError("must be ADDRESS:PORT, the IPv4 address of a host and a UDP port from 1 to 65535")
    return text


Endpoint = Annotated[str, AfterValidator(checked_endpoint)]
"""IPv4 address and UDP port."""


class OverlayRequest(Value):
    """Over mutual TLS: how the node in the certificate can be reached by its peers, and which view it has already."""

    public_key: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$")]
    """WireGuard's; the private half never leaves the node."""
    endpoint: Endpoint
    generation: Annotated[int, Field(ge=0)] = 0
    """Of the view that it has; the answer waits for a newer one, for a while."""


class OverlayPeer(Value):
    """Another node or gateway, as WireGuard knows it."""

    node: Annotated[NodeId, NAME]
    public_key: str
    endpoint: str
    """Not checked here: a view in which it is wrong is good but for this one peer, which the agent leaves out."""
    tunnel: Ipv4
    """The only source address that its packets may have."""


class OverlayEntry(Value):
    """Where a MAC and its address live: frames of theirs are taken from that node only, and sent there only."""

    shard: Annotated[ShardId, NAME]
    """Or the name of a gateway."""
    node: Annotated[NodeId, NAME]
    epoch: Epoch
    vni: Annotated[int, Field(ge=1, le=LARGEST_VNI)]
    """Of the tenant: one number per namespace."""
    address: Ipv4
    mac: Mac


class OverlayView(Value):
    """The whole overlay at one generation. A lower generation, or a lower epoch of an entry, is refused."""

    generation: Annotated[int, Field(ge=0)]
    tunnel: Ipv4
    """The asking node's own address in the tunnel."""
    peers: tuple[OverlayPeer, ...]
    entries: tuple[OverlayEntry, ...]
