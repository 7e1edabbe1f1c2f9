"""What the kernel must hold for a view of the overlay, and what leads there from what it holds. Pure.

    guest ── tap ── its own bridge ── veth "swo…" ── swbrVNI ── swvxVNI (VXLAN) ── swwg… (WireGuard) ── peers

A tenant is a VNI with a bridge of its own; bridges are joined by nothing. Nothing is learned from frames: where a MAC
lives is an entry of the view. Two filters hold what is forged: a frame from the tunnel is taken only from the peer that
the entry names (WireGuard proves the peer), a frame from a guest only with the guest's own MAC and address.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from agent.overlay_wire import OverlayView
from engine.errors import StaleEpoch
from engine.model.ids import NodeId, ShardId

VXLAN_PORT = 4789
VXLAN_OVERHEAD = 50
"""Outer IPv4 (20), UDP (8), VXLAN (8) and the guest's Ethernet header (14)."""
TABLE = "shardwright"
FILTERS = (("ip", "arriving"), ("bridge", "leaving"))
"""(family, chain) of the two."""
_FLOOD = "00:00:00:00:00:00"


def guest_mtu(tunnel_mtu: int) -> int:
    return tunnel_mtu - VXLAN_OVERHEAD


def bridge_name(vni: int) -> str:
    return f"swbr{vni}"


def vxlan_name(vni: int) -> str:
    return f"swvx{vni}"


@dataclass(frozen=True)
class KernelState:
    """Every field is a set of things that are there or not; nothing else of a view reaches the kernel."""

    tunnel: str = ""
    tenants: frozenset[int] = frozenset()
    attached: frozenset[tuple[str, int]] = frozenset()
    """(a guest's link, VNI)"""
    floods: frozenset[tuple[int, str]] = frozenset()
    """(VNI, peer) for broadcasts"""
    remote: frozenset[tuple[str, int, str]] = frozenset()
    """(MAC, VNI, peer)"""
    local: frozenset[tuple[str, int, str]] = frozenset()
    """(MAC, VNI, a guest's link)"""
    speakers: frozenset[tuple[str, int, str, str]] = frozenset()
    """(peer, VNI, MAC, address) that frames may arrive with"""
    guests: frozenset[tuple[str, str, str]] = frozenset()
    """(a guest's link, MAC, address) that frames may leave with"""
    gateways: frozenset[tuple[int, str, str]] = frozenset()
    """(VNI, address, MAC) of this host itself"""


@dataclass(frozen=True)
class Batches:
    """Lines for ``nft -f``, ``ip -batch`` and ``bridge -batch``, to be run in this order."""

    nft: list[str] = field(default_factory=list)
    ip: list[str] = field(default_factory=list)
    bridge: list[str] = field(default_factory=list)


def check_newer(known: OverlayView | None, offered: OverlayView) -> None:
    """Raises StaleEpoch for a view that goes back behind the known one, in its generation or in an entry's epoch."""
    if known is None:
        return
    if offered.generation < known.generation:
        raise StaleEpoch(
            f"the overlay is at generation {known.generation} here", why=f"a view of {offered.generation} was offered"
        )
    epochs = {(entry.shard, entry.mac): entry.epoch for entry in known.entries}
    for entry in offered.entries:
        if entry.epoch < (before := epochs.get((entry.shard, entry.mac), 0)):
            raise StaleEpoch(
                f"{entry.shard} is at epoch {before} on the overlay here", why=f"an entry of {entry.epoch} was offered"
            )


def wanted(view: OverlayView, here: NodeId, links: Mapping[ShardId, str], gateway: str | None = None) -> KernelState:
    """``links``: the guests' links that are on this host, those that only wait for a move too.

    ``gateway``: the name of this host's own entry, where it is a gateway.
    """
    peers = {peer.node: peer.tunnel for peer in view.peers}
    own = frozenset(
        (entry.vni, entry.address, entry.mac) for entry in view.entries if entry.node == here and entry.shard == gateway
    )
    attached = frozenset((links[entry.shard], entry.vni) for entry in view.entries if entry.shard in links)
    tenants = {vni for _, vni in attached} | {vni for vni, _, _ in own}
    mine = [entry for entry in view.entries if entry.node == here and entry.shard in links]
    away = [
        (peers[entry.node], entry) for entry in view.entries
        if entry.vni in tenants and entry.node != here and entry.node in peers
    ]  # fmt: skip
    return KernelState(
        tunnel=view.tunnel,
        tenants=frozenset(tenants),
        attached=attached,
        floods=frozenset((entry.vni, peer) for peer, entry in away),
        remote=frozenset((entry.mac, entry.vni, peer) for peer, entry in away),
        local=frozenset((entry.mac, entry.vni, links[entry.shard]) for entry in mine),
        speakers=frozenset((peer, entry.vni, entry.mac, entry.address) for peer, entry in away),
        guests=frozenset((links[entry.shard], entry.mac, entry.address) for entry in mine),
        gateways=own,
    )


def ruleset(tunnel: str, *, gateway: bool) -> list[str]:
    """The two filters, empty: nothing arrives and nothing leaves. ``tunnel``: WireGuard's interface.

    Offsets are bits from the UDP header: VNI at 96, the inner frame's source MAC at 176 and EtherType at 224, the
    source address of IPv4 at 336 and of ARP at 352.
    """
    vxlan = f'iifname "{tunnel}" udp dport {VXLAN_PORT}'
    speaker = "ip saddr . @th,96,24 . @th,176,48"
    lines = [
        f"table ip {TABLE}", f"delete table ip {TABLE}", f"table bridge {TABLE}", f"delete table bridge {TABLE}",
        f"add table ip {TABLE}",
        f"add set ip {TABLE} speakers {{ typeof {speaker} . @th,336,32; }}",
        f"add chain ip {TABLE} arriving {{ type filter hook input priority -150; policy accept; }}",
        f'add rule ip {TABLE} arriving iifname != "{tunnel}" udp dport {VXLAN_PORT} drop',
        f"add rule ip {TABLE} arriving {vxlan} @th,224,16 0x0800 {speaker} . @th,336,32 @speakers accept",
        f"add rule ip {TABLE} arriving {vxlan} @th,224,16 0x0806 {speaker} . @th,352,32 @speakers accept",
        f'add rule ip {TABLE} arriving iifname "{tunnel}" counter drop',
        f"add table bridge {TABLE}",
        f"add set bridge {TABLE} guests {{ typeof iifname . ether saddr . ip saddr; }}",
        f"add chain bridge {TABLE} leaving {{ type filter hook prerouting priority -300; policy accept; }}",
        f'add rule bridge {TABLE} leaving iifname != "swo*" accept',
        f"add rule bridge {TABLE} leaving ether type ip iifname . ether saddr . ip saddr @guests accept",
        f"add rule bridge {TABLE} leaving ether type arp iifname . ether saddr . arp saddr ip @guests accept",
        f"add rule bridge {TABLE} leaving counter drop",
    ]  # fmt: skip
    if not gateway:  # the node itself is nobody's neighbour: no frame of a guest reaches, or is routed by, its kernel
        lines += [
            f"add chain bridge {TABLE} host {{ type filter hook input priority 0; policy accept; }}",
            f'add rule bridge {TABLE} host iifname "sw*" drop',
        ]
    return lines


def changes(old: KernelState, new: KernelState, mtu: int) -> Batches:
    """From one to the other. Lines that take away may find nothing left to take."""
    out = Batches()
    _filter(out, old, new)
    for vni in sorted(new.tenants - old.tenants):
        _add_tenant(out, vni, new.tunnel, mtu)
    for link, vni in sorted(new.attached - old.attached):
        out.ip.append(f"link set {link} master {bridge_name(vni)} up")
        out.bridge.append(f"link set dev {link} learning off flood off")
    for vni, address, mac in sorted(new.gateways - old.gateways):
        bridge = bridge_name(vni)
        out.ip.extend([f"link set {bridge} address {mac}", f"address add {address}/16 dev {bridge}"])
    _forward(out, old, new)
    for link in sorted({link for link, _ in old.attached} - {link for link, _ in new.attached}):
        out.ip.append(f"link set {link} nomaster")
    for vni in sorted(old.tenants - new.tenants):
        out.ip.extend([f"link del {vxlan_name(vni)}", f"link del {bridge_name(vni)}"])
    return out


def _filter(out: Batches, old: KernelState, new: KernelState) -> None:
    for verb, speakers, guests in (
        ("delete", old.speakers - new.speakers, old.guests - new.guests),
        ("add", new.speakers - old.speakers, new.guests - old.guests),
    ):
        if speakers:
            listed = ", ".join(map(_speaker, sorted(speakers)))
            out.nft.append(f"{verb} element ip {TABLE} speakers {{ {listed} }}")
        if guests:
            listed = ", ".join(f'"{link}" . {mac} . {address}' for link, mac, address in sorted(guests))
            out.nft.append(f"{verb} element bridge {TABLE} guests {{ {listed} }}")


def _add_tenant(out: Batches, vni: int, tunnel: str, mtu: int) -> None:
    bridge, vxlan = bridge_name(vni), vxlan_name(vni)
    out.ip.extend(
        [
            f"link add {bridge} mtu {mtu} type bridge forward_delay 0 mcast_snooping 0",
            f"link add {vxlan} mtu {mtu} type vxlan id {vni} dstport {VXLAN_PORT} local {tunnel} nolearning",
            f"link set {bridge} addrgenmode none",
            f"link set {vxlan} addrgenmode none",
            f"link set {vxlan} master {bridge} up",
            f"link set {bridge} up",
        ]
    )
    out.bridge.append(f"link set dev {vxlan} learning off flood off")


def _forward(out: Batches, old: KernelState, new: KernelState) -> None:
    """A MAC that changes its place is replaced, never absent: what is deleted is only what goes for good."""
    for vni, peer in sorted(old.floods - new.floods):
        if vni in new.tenants:
            out.bridge.append(f"fdb del {_FLOOD} dev {vxlan_name(vni)} dst {peer}")
    for vni, peer in sorted(new.floods - old.floods):
        out.bridge.append(f"fdb append {_FLOOD} dev {vxlan_name(vni)} dst {peer}")
    here = {(mac, vni) for mac, vni, _ in new.local}
    away = {(mac, vni) for mac, vni, _ in new.remote}
    for mac, vni, link in sorted(old.local - new.local):
        if (mac, vni) not in here | away and vni in new.tenants:
            out.bridge.append(f"fdb del {mac} dev {link} master")
    for mac, vni, _peer in sorted(old.remote - new.remote):
        if (mac, vni) not in away and vni in new.tenants:
            out.bridge.append(f"fdb del {mac} dev {vxlan_name(vni)} self")
            if (mac, vni) not in here:
                out.bridge.append(f"fdb del {mac} dev {vxlan_name(vni)} master")
    for mac, vni, peer in sorted(new.remote - old.remote):
        out.bridge.append(f"fdb replace {mac} dev {vxlan_name(vni)} self dst {peer}")
        out.bridge.append(f"fdb replace {mac} dev {vxlan_name(vni)} master static")
    for mac, _vni, link in sorted(new.local - old.local):
        out.bridge.append(f"fdb replace {mac} dev {link} master static")


def _speaker(item: tuple[str, int, str, str]) -> str:
    peer, vni, mac, address = item
    return f"{peer} . 0x{vni:06x} . 0x{mac.replace(':', '')} . 0x{int(IPv4Address(address)):08x}"
