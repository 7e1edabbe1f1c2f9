"""The overlay with real tunnels, links and filters: three hosts on an underlay, guests stood for by namespaces.

Views come from the control store; only the way over HTTPS is left out (tests/unit/engine/fleet/test_overlay.py).
"""

import base64
import os
import random
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import pytest

from agent.network import guest_link
from agent.overlay import Overlay
from agent.overlay_wire import OverlayPeer, OverlayRequest, OverlayView
from agent.wireguard import interface_name
from engine.clock import ManualClock
from engine.errors import MissingPart, StaleEpoch
from engine.model.capacity import Resources
from engine.model.ids import CellId, NodeId, PoolId, ShardId
from engine.model.market import PurchaseOption
from engine.model.money import usd
from engine.model.placement import ComponentName, Node, NodeState, Shard
from engine.store.database import Database, metadata
from engine.store.overlay_map import OverlayMap
from engine.store.shard_map import ShardMap
from providers.sandbox import netns
from providers.sandbox.distance import Distance
from providers.sandbox.teardown import new_tag, tear_down
from providers.sandbox.underlay import Attachment, Underlay

pytestmark = [
    pytest.mark.root, pytest.mark.timeout(60),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes network namespaces"),
]  # fmt: skip
SIZE = Resources(vcpus=1, memory_gib=0.125)
HOSTS = ("a", "b", "c")
PORT, LARGEST_PAYLOAD = 7000, 1370 - 28
ARRIVES, NEVER = 3.0, 0.3
T = TypeVar("T")


class Mesh:
    """Hosts a, b and c; shard ``s-HOST`` of tenant one on each; on c also ``near`` of one, and ``other`` of two."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.underlay = folder, Underlay(new_tag())
        self.database = Database(f"sqlite:///{folder / 'control.sqlite'}")
        metadata.create_all(self.database.engine)
        self.map = ShardMap(self.database, ManualClock(datetime(2026, 11, 29, tzinfo=UTC)))
        self.store = OverlayMap(self.database)
        self.places: dict[str, Attachment] = {}
        self.overlays: dict[str, Overlay] = {}
        self.started: list[Overlay] = []
        self.shards: dict[str, Shard] = {}
        self.copies: dict[tuple[str, str], str] = {}

    def build(self) -> None:
        self.underlay.create()
        for host in HOSTS:
            self.places[host] = self.underlay.attach_node(host)
            node = Node(
                id=NodeId(host), cell=CellId(f"test/1/{host}"), zone="z", instance_type="t", option=PurchaseOption.SPOT,
                hourly_price=usd("0.1"), resources=SIZE, state=NodeState.JOINED,
            )  # fmt: skip
            self.map.put_node(node)
            self.start_overlay(host)
        for host in HOSTS:
            self.add_shard(f"s-{host}", host, "one")
        self.add_shard("near", "c", "one")
        self.add_shard("other", "c", "two")
        self.spread()

    def start_overlay(self, host: str) -> None:
        """As an agent does that starts (again)."""
        made = self.inside(host, lambda: Overlay(NodeId(host), self.folder / host, 51820))
        endpoint = f"{self.places[host].underlay_address}:51820"
        self.store.register(NodeId(host), OverlayRequest(public_key=made.public_key, endpoint=endpoint))
        self.started.append(made)
        self.overlays[host] = made

    def add_shard(self, shard: str, host: str, namespace: str) -> None:
        made = self.map.add_shard(ShardId(shard), shard_type="t", pool=PoolId("p"), node=NodeId(host), nominal=SIZE)
        self.map.bind(ComponentName(namespace=namespace, workload="w", component=shard), made.id)
        self.shards[shard] = made
        self.put_copy(shard, host)

    def put_copy(self, shard: str, host: str) -> None:
        """A guest of the shard on the host, in a namespace of its own that holds the shard's MAC and address."""
        made, link, space = self.shards[shard], guest_link(NodeId(host), ShardId(shard)), self.places[host].namespace
        guest = self.copies[shard, host] = f"{self.underlay.tag}-g-{shard}-{host}"
        netns.batch("ip", [f"netns add {guest}"])
        netns.quiet(guest)
        pair = f"link add {link} mtu 1370 type veth peer name eth0 mtu 1370 address {made.mac} netns {guest}"
        netns.batch("ip", [pair, f"link set {link} up"], namespace=space)
        inner = ["link set lo up", f"address add {made.address}/16 dev eth0", "link set eth0 up"]
        netns.batch("ip", inner, namespace=guest)

    def spread(self, hosts: tuple[str, ...] = HOSTS) -> dict[str, OverlayView]:
        views = {host: self.store.view(NodeId(host)) for host in hosts}
        for host, view in views.items():
            self.inside(host, lambda host=host, view=view: self.overlays[host].apply(view))
        return views

    def inside(self, host: str, act: Callable[[], T]) -> T:
        return netns.inside(self.places[host].namespace, act)

    def told(self, host: str, command: str) -> str:
        return self.inside(host, lambda: subprocess.check_output(["sh", "-c", command], text=True))

    def arrives(self, sender: str, receiver: str, *, size: int = 20, within: float = ARRIVES) -> bool:
        """Whether a datagram gets from one copy of a shard to another; each is SHARD@HOST."""
        (source, source_host), (target, target_host) = (one.split("@") for one in (sender, receiver))
        return sees(self.copies[target, target_host], self.shards[target].address, self.copies[source, source_host],
                    lambda send: send.sendto(bytes(size), (self.shards[target].address, PORT)), within)  # fmt: skip


def sees(target: str, address: str, source: str, send: Callable[[socket.socket], object], within: float) -> bool:
    """Sends every 50 ms from ``source`` until something is received in ``target``."""

    def open_receiver() -> socket.socket:
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        receiver.bind((address, PORT))
        receiver.settimeout(0.05)
        return receiver

    def open_sender() -> socket.socket:
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sender.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO: whole or not at all
        return sender

    with netns.inside(target, open_receiver) as receiver, netns.inside(source, open_sender) as sender:
        for _ in range(round(within / 0.05)):
            send(sender)
            try:
                receiver.recv(2048)
            except TimeoutError:
                continue
            return True
    return False


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    with tempfile.TemporaryDirectory(prefix="swt-") as folder:
        made = Mesh(Path(folder))
        try:
            try:
                made.build()
            except MissingPart as problem:
                pytest.skip(f"no overlay can be had here: {problem}")
            yield made
        finally:
            made.database.dispose()
            assert tear_down(made.underlay.tag, None) == []


def test_guests_of_one_tenant_reach_each_other_with_the_largest_packets(mesh: Mesh) -> None:
    assert mesh.overlays["a"].mtu == 1370
    for sender, receiver in (("s-a@a", "s-b@b"), ("s-b@b", "s-c@c"), ("s-c@c", "s-a@a")):
        assert mesh.arrives(sender, receiver, size=LARGEST_PAYLOAD)


def test_it_works_over_a_long_and_lossy_way(mesh: Mesh) -> None:
    """40 ms each way between a and b, and every fifth datagram lost."""

    def open_port() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((mesh.underlay.gateway, 0))
        return made

    far = Distance(
        lambda: netns.inside(mesh.underlay.namespace, open_port), random.Random(7), delay_seconds=0.04, loss=0.2
    )
    try:
        for host in ("a", "b"):
            endpoint = far.add(mesh.places[host].underlay_address, 51820)
            mesh.store.register(
                NodeId(host), OverlayRequest(public_key=mesh.overlays[host].public_key, endpoint=endpoint)
            )
        mesh.spread()
        assert mesh.arrives("s-a@a", "s-b@b", size=LARGEST_PAYLOAD, within=30)
        assert far.passed > 0
    finally:
        far.close()
        for host in ("a", "b"):
            mesh.start_overlay(host)
        mesh.spread()
    assert mesh.arrives("s-a@a", "s-b@b")


def test_one_peer_that_cannot_be_reached_costs_nobody_the_others(mesh: Mesh) -> None:
    """With the real ``wg``, which takes no peer at all for the sake of such a one."""
    view = mesh.store.view(NodeId("a"))
    key = base64.b64encode(bytes(range(32))).decode()
    typo = OverlayPeer(node=NodeId("typo"), public_key=key, endpoint="10.0.0.300:51820", tunnel="10.99.9.9")
    mesh.inside("a", lambda: mesh.overlays["a"].apply(view.model_copy(update={"peers": (typo, *view.peers)})))
    listed = mesh.told("a", f"wg show {interface_name(NodeId('a'), mesh.folder / 'a')} peers").split()
    assert set(listed) == {peer.public_key for peer in view.peers}
    mesh.spread()
    assert mesh.arrives("s-a@a", "s-b@b")


def test_the_key_stays_on_its_host(mesh: Mesh) -> None:
    key = mesh.folder / "a" / "overlay" / "wireguard.key"
    assert key.stat().st_mode & 0o077 == 0
    dump = b"".join(path.read_bytes() for path in mesh.folder.glob("control.sqlite*"))
    assert key.read_bytes().strip() not in dump
    assert mesh.overlays["a"].public_key.encode() in dump


def test_tenants_do_not_reach_each_other(mesh: Mesh) -> None:
    """Neither on one host nor over the tunnel, whoever begins."""
    assert mesh.arrives("s-b@b", "s-c@c")
    for sender, receiver in (("other@c", "s-c@c"), ("other@c", "s-a@a"), ("s-a@a", "other@c"), ("s-c@c", "other@c")):
        assert not mesh.arrives(sender, receiver, within=NEVER)


def frame(to_mac: str, from_mac: str, from_address: str, to_address: str) -> bytes:
    """An Ethernet frame with a datagram for PORT, its checksums right."""
    datagram = PORT.to_bytes(2) * 2 + (12).to_bytes(2) + bytes(2) + b"evil"
    addresses = socket.inet_aton(from_address) + socket.inet_aton(to_address)
    header = b"\x45\x00" + (20 + len(datagram)).to_bytes(2) + bytes(4) + b"\x40\x11" + bytes(2) + addresses
    total = sum(int.from_bytes(header[at : at + 2]) for at in range(0, 20, 2))
    check = 0xFFFF - (total % 0xFFFF)
    header = header[:10] + check.to_bytes(2) + header[12:]
    macs = bytes.fromhex(to_mac.replace(":", "")) + bytes.fromhex(from_mac.replace(":", ""))
    return macs + b"\x08\x00" + header + datagram


@pytest.mark.parametrize(
    ("guest", "mac_of", "address_of", "passes"),
    [
        ("s-b@b", "s-b", "s-b", True),  # the frame is well made
        ("s-b@b", "s-a", "s-a", False),
        ("s-b@b", "s-b", "s-a", False),
        ("s-b@b", "s-a", "s-b", False),
        ("near@c", "near", "near", True),
        ("near@c", "s-b", "s-b", False),
        ("near@c", "near", "s-b", False),
        ("other@c", "other", "other", False),
        ("other@c", "s-a", "s-a", False),
        ("other@c", "s-c", "s-c", False),
    ],
)
def test_forged_frames_go_nowhere(mesh: Mesh, guest: str, mac_of: str, address_of: str, passes: bool) -> None:
    shard, host = guest.split("@")
    victim = mesh.shards["s-c"]
    forged = frame(victim.mac, mesh.shards[mac_of].mac, mesh.shards[address_of].address, victim.address)

    def open_raw() -> socket.socket:
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        raw.bind(("eth0", 0))
        return raw

    with netns.inside(mesh.copies[shard, host], open_raw) as raw:
        arrived = sees(mesh.copies["s-c", "c"], victim.address, mesh.copies[shard, host], lambda _: raw.send(forged),
                       ARRIVES if passes else NEVER)  # fmt: skip
    assert arrived is passes


def test_a_host_of_the_fleet_cannot_speak_for_what_lives_elsewhere(mesh: Mesh) -> None:
    """As root of its own node: VXLAN by hand, into the tunnel that its peers take its packets from."""
    victim = mesh.shards["s-c"]
    vni = next(entry.vni for entry in mesh.store.view(NodeId("b")).entries if entry.shard == "s-c")
    tunnel = next(peer.tunnel for peer in mesh.store.view(NodeId("b")).peers if peer.node == "c")
    for speaker, passes in (("s-b", True), ("s-a", False)):
        inner = frame(victim.mac, mesh.shards[speaker].mac, mesh.shards[speaker].address, victim.address)
        packet = b"\x08\0\0\0" + vni.to_bytes(3) + b"\0" + inner
        assert passes is sees(
            mesh.copies["s-c", "c"], victim.address, mesh.places["b"].namespace,
            lambda send, packet=packet: send.sendto(packet, (tunnel, 4789)), ARRIVES if passes else NEVER,
        )  # fmt: skip


def test_a_stale_copy_on_a_host_that_is_cut_off_is_not_heard(mesh: Mesh) -> None:
    """a hears nothing of the move, and its copy goes on sending; b and c have the new entry."""
    before = mesh.spread()["c"]
    mesh.put_copy("s-a", "b")
    assert mesh.arrives("s-a@a", "s-c@c")
    mesh.map.move(ShardId("s-a"), expected_epoch=1, to_node=NodeId("b"))
    mesh.spread(("b", "c"))
    assert mesh.arrives("s-a@b", "s-c@c")
    assert not mesh.arrives("s-a@a", "s-c@c", within=NEVER)
    assert not mesh.arrives("s-a@a", "s-b@b", within=NEVER)
    assert mesh.arrives("s-c@c", "s-a@b")
    assert not mesh.arrives("s-c@c", "s-a@a", within=NEVER)
    with pytest.raises(StaleEpoch, match="generation"):
        mesh.inside("c", lambda: mesh.overlays["c"].apply(before))
    newer = before.model_copy(update={"generation": 1000})
    with pytest.raises(StaleEpoch, match="epoch 2"):
        mesh.inside("c", lambda: mesh.overlays["c"].apply(newer))
    assert not mesh.arrives("s-a@a", "s-c@c", within=NEVER)
    mesh.spread()
    assert not mesh.arrives("s-a@a", "s-b@b", within=NEVER), "nor once its own host knows"


def test_an_agent_that_starts_again_disturbs_nothing_and_clears_up(mesh: Mesh) -> None:
    mesh.add_shard("short", "b", "one")
    mesh.spread()
    assert mesh.arrives("s-c@c", "short@b")
    mesh.map.remove(ShardId("short"))
    mesh.start_overlay("c")
    mesh.spread(("c",))
    assert mesh.arrives("s-b@b", "s-c@c")
    mac = mesh.shards["short"].mac
    assert mac not in mesh.told("c", "bridge fdb show; nft list ruleset")
    assert mesh.shards["s-b"].mac in mesh.told("c", "bridge fdb show")


def test_filters_that_somebody_has_flushed_come_back(mesh: Mesh) -> None:
    mesh.spread()
    before = mesh.told("c", "nft -s list ruleset")
    mesh.told("c", "nft flush ruleset")
    mesh.spread(("c",))
    assert mesh.told("c", "nft -s list ruleset") == before
    assert mesh.arrives("s-b@b", "s-c@c")


def test_a_node_that_is_gone_is_nobodys_peer(mesh: Mesh) -> None:
    key = mesh.overlays["a"].public_key
    assert key in mesh.told("c", "wg show all peers")
    mesh.map.update_node(NodeId("a"), state=NodeState.GONE)
    mesh.spread(("b", "c"))
    assert key not in mesh.told("c", "wg show all peers")
