from concurrent.futures import ThreadPoolExecutor

import pytest
import structlog
from sqlalchemy import update

from agent.overlay_wire import OverlayEntry, OverlayRequest
from engine.clock import ManualClock
from engine.errors import AuthenticationFailed, UnknownName, UsageError
from engine.model.capacity import Resources
from engine.model.ids import CellId, NodeId, PoolId, ShardId
from engine.model.market import PurchaseOption
from engine.model.money import usd
from engine.model.placement import ComponentName, Node, NodeState, ShardState
from engine.store.database import Database
from engine.store.overlay_map import OverlayMap
from engine.store.overlay_tables import overlay_hosts
from engine.store.shard_map import ShardMap

SIZE = Resources(vcpus=1, memory_gib=1)
A, B, CLIENT = NodeId("a"), NodeId("b"), NodeId("client")


def key(letter: str) -> OverlayRequest:
    return OverlayRequest(public_key=letter * 42 + "A=", endpoint=f"192.0.2.{ord(letter)}:51820")


@pytest.fixture
def shard_map(store: Database, clock: ManualClock) -> ShardMap:
    made = ShardMap(store, clock)
    for node in (A, B):
        made.put_node(
            Node(
                id=node,
                cell=CellId("p/1/r"),
                zone="z",
                instance_type="t",
                option=PurchaseOption.SPOT,
                hourly_price=usd("1"),
                resources=SIZE,
                state=NodeState.JOINED,
            )
        )
    return made


@pytest.fixture
def overlay(store: Database, shard_map: ShardMap) -> OverlayMap:
    made = OverlayMap(store)
    assert made.register(A, key("A"))
    assert made.register(B, key("B"))
    return made


def bound(shard_map: ShardMap, shard: str, node: NodeId, namespace: str = "shop") -> None:
    shard_map.add_shard(ShardId(shard), shard_type="t", pool=PoolId("p"), node=node, nominal=SIZE)
    shard_map.bind(ComponentName(namespace=namespace, workload="w", component=shard), ShardId(shard))


def entries(overlay: OverlayMap, host: NodeId = A) -> dict[str, OverlayEntry]:
    return {entry.shard: entry for entry in overlay.view(host).entries}


def test_each_host_sees_the_others_and_its_own_tunnel_address(overlay: OverlayMap) -> None:
    a, b = overlay.view(A), overlay.view(B)
    assert [one.node for one in a.peers] == [B]
    assert b.peers[0].tunnel == a.tunnel != b.tunnel
    assert a.peers[0].endpoint == key("B").endpoint


def test_the_same_key_again_changes_nothing_and_a_new_one_does(overlay: OverlayMap) -> None:
    before = overlay.generation()
    assert not overlay.register(A, key("A"))
    assert overlay.generation() == before
    assert overlay.register(A, key("C"))
    assert overlay.generation() == before + 1


def test_a_host_that_was_entered_with_an_endpoint_that_is_none_is_nobodys_peer(
    store: Database, overlay: OverlayMap
) -> None:
    """As an older version took it: it keeps its own view, and says something better when it has been mended."""
    wrong = update(overlay_hosts).where(overlay_hosts.c.name == B).values(endpoint="10.0.0.300:51820")
    with store.transaction() as connection:
        connection.execute(wrong)
    with structlog.testing.capture_logs() as logs:
        assert overlay.view(A).peers == ()
    assert [(one["event"], one["host"]) for one in logs] == [("nobody's peer", "b")]
    assert [one.node for one in overlay.view(B).peers] == [A]
    overlay.register(B, key("B"))
    assert [one.node for one in overlay.view(A).peers] == [B]


def test_every_change_of_what_agents_are_told_raises_the_generation(shard_map: ShardMap, overlay: OverlayMap) -> None:
    told: list[int] = []
    shard_map.on_overlay_change(lambda: told.append(overlay.generation()))
    bound(shard_map, "s", A)
    shard_map.move(ShardId("s"), expected_epoch=1, to_node=B)
    shard_map.unbind(ComponentName(namespace="shop", workload="w", component="s"))
    shard_map.set_state(ShardId("s"), ShardState.RELEASED)
    shard_map.remove(ShardId("s"))
    shard_map.update_node(A, state=NodeState.RECLAIMING)
    assert told == list(range(told[0], told[0] + 6)), "each told after its commit, and by one"


def test_an_unbound_shard_is_on_no_overlay(shard_map: ShardMap, overlay: OverlayMap) -> None:
    shard_map.add_shard(ShardId("s"), shard_type="t", pool=PoolId("p"), node=A, nominal=SIZE)
    assert entries(overlay) == {}
    component = ComponentName(namespace="shop", workload="w", component="c")
    shard_map.bind(component, ShardId("s"))
    assert set(entries(overlay)) == {"s"}
    shard_map.unbind(component)
    assert entries(overlay) == {}


def test_the_entry_follows_the_epoch(shard_map: ShardMap, overlay: OverlayMap) -> None:
    bound(shard_map, "s", A)
    assert (entries(overlay)["s"].node, entries(overlay)["s"].epoch) == (A, 1)
    shard_map.move(ShardId("s"), expected_epoch=1, to_node=B)
    assert (entries(overlay)["s"].node, entries(overlay)["s"].epoch) == (B, 2)
    assert entries(overlay, B) == entries(overlay)


def test_a_namespace_is_a_tenant_with_one_number_for_good(shard_map: ShardMap, overlay: OverlayMap) -> None:
    bound(shard_map, "s1", A, "shop")
    bound(shard_map, "s2", A, "bank")
    bound(shard_map, "s3", B, "shop")
    vnis = {shard: entry.vni for shard, entry in entries(overlay).items()}
    assert vnis["s1"] == vnis["s3"] != vnis["s2"]
    for shard in ("s1", "s3"):
        shard_map.remove(ShardId(shard))
    bound(shard_map, "s4", A, "shop")
    assert entries(overlay)["s4"].vni == vnis["s1"]


def test_a_node_that_is_gone_is_nobodys_peer_and_gets_no_view(shard_map: ShardMap, overlay: OverlayMap) -> None:
    shard_map.update_node(B, state=NodeState.GONE)
    assert overlay.view(A).peers == ()
    with pytest.raises(AuthenticationFailed, match="no part"):
        overlay.view(B)
    with pytest.raises(AuthenticationFailed, match="gone"):
        overlay.register(B, key("B"))
    with pytest.raises(AuthenticationFailed, match="unknown"):
        overlay.register(NodeId("stranger"), key("D"))


def test_a_gateway_is_a_peer_with_an_address_in_its_namespace(shard_map: ShardMap, overlay: OverlayMap) -> None:
    bound(shard_map, "s", A, "shop")
    made = overlay.add_gateway(CLIENT, "shop")
    assert (made.address, made.joined) == ("10.9.255.1", False)
    assert overlay.add_gateway(CLIENT, "shop") == made
    assert "client" not in entries(overlay), "it has no key yet"
    overlay.register(CLIENT, key("E"))
    shown = entries(overlay)
    assert shown["client"].vni == shown["s"].vni
    assert shown["client"].address == made.address
    assert [one.node for one in overlay.view(CLIENT).peers] == [A, B]
    overlay.remove_gateway(CLIENT)
    assert [one.node for one in overlay.view(A).peers] == [B]
    assert overlay.gateways() == ()


def test_what_is_entered_at_once_gets_numbers_of_its_own(shard_map: ShardMap, overlay: OverlayMap) -> None:
    for number in range(8):
        shard_map.add_shard(ShardId(f"s{number}"), shard_type="t", pool=PoolId("p"), node=A, nominal=SIZE)

    def enter(number: int) -> None:
        component = ComponentName(namespace=f"tenant-{number}", workload="w", component="c")
        shard_map.bind(component, ShardId(f"s{number}"))
        overlay.add_gateway(NodeId(f"gate-{number}"), f"tenant-{number}")

    with ThreadPoolExecutor(max_workers=8) as pool:
        list(pool.map(enter, range(8)))
    assert len({entry.vni for entry in overlay.view(A).entries}) == 8
    assert len({gateway.address for gateway in overlay.gateways()}) == 8


def test_gateways_that_make_no_sense(overlay: OverlayMap) -> None:
    overlay.add_gateway(CLIENT, "shop")
    with pytest.raises(UsageError, match="taken"):
        overlay.add_gateway(CLIENT, "bank")
    with pytest.raises(UsageError, match="taken"):
        overlay.add_gateway(A, "shop")
    with pytest.raises(UnknownName, match="no gateway a"):
        overlay.remove_gateway(A)
