import pytest

from agent.overlay_state import KernelState, changes, check_newer, guest_mtu, ruleset, wanted
from agent.overlay_wire import OverlayEntry, OverlayPeer, OverlayView
from agent.wireguard import tunnel_mtu
from engine.errors import StaleEpoch
from engine.model.ids import NodeId, ShardId

A, B = NodeId("a"), NodeId("b")


def peer(node: str, number: int) -> OverlayPeer:
    return OverlayPeer(
        node=NodeId(node), public_key="k", endpoint=f"192.0.2.{number}:51820", tunnel=f"10.99.0.{number}"
    )


def entry(shard: str, node: str, number: int, *, vni: int = 4097, epoch: int = 1) -> OverlayEntry:
    return OverlayEntry(
        shard=ShardId(shard), node=NodeId(node), epoch=epoch, vni=vni, address=f"10.9.1.{number}",
        mac=f"52:54:00:09:01:{number:02x}",
    )  # fmt: skip


def view(*entries: OverlayEntry, generation: int = 1) -> OverlayView:
    return OverlayView(generation=generation, tunnel="10.99.0.1", peers=(peer("b", 2), peer("c", 3)), entries=entries)


def test_a_guest_loses_what_every_header_on_the_way_takes() -> None:
    assert guest_mtu(tunnel_mtu(1500)) == 1370


def test_only_tenants_with_a_guest_here_reach_the_kernel() -> None:
    shown = view(entry("mine", "a", 1), entry("near", "b", 2), entry("foreign", "b", 3, vni=5000))
    state = wanted(shown, A, {ShardId("mine"): "swo1"})
    assert state.tenants == {4097}
    assert state.speakers == {("10.99.0.2", 4097, "52:54:00:09:01:02", "10.9.1.2")}
    assert state.guests == {("swo1", "52:54:00:09:01:01", "10.9.1.1")}
    assert state.floods == {(4097, "10.99.0.2")}


def test_a_guest_that_only_waits_for_a_move_is_on_the_bridge_but_may_not_speak() -> None:
    state = wanted(view(entry("s", "b", 1)), A, {ShardId("s"): "swo1"})
    assert state.attached == {("swo1", 4097)}
    assert state.guests == frozenset()
    assert state.remote == {("52:54:00:09:01:01", 4097, "10.99.0.2")}


def test_what_lives_on_a_node_that_is_nobodys_peer_lives_nowhere() -> None:
    state = wanted(view(entry("mine", "a", 1), entry("lost", "gone", 2)), A, {ShardId("mine"): "swo1"})
    assert (state.remote, state.speakers) == (frozenset(), frozenset())


def test_a_gateway_has_its_own_place_and_no_guests() -> None:
    state = wanted(view(entry("gate", "gate", 9), entry("s", "b", 1)), NodeId("gate"), {}, "gate")
    assert state.gateways == {(4097, "10.9.1.9", "52:54:00:09:01:09")}
    assert state.tenants == {4097}
    assert [one[0] for one in state.remote] == ["52:54:00:09:01:01"]


def test_a_move_replaces_the_place_and_never_takes_it_away_first() -> None:
    links = {ShardId("mine"): "swo1"}
    before = wanted(view(entry("mine", "a", 1), entry("s", "b", 2)), A, links)
    after = wanted(view(entry("mine", "a", 1), entry("s", "c", 2, epoch=2), generation=2), A, links)
    made = changes(before, after, 1370)
    assert made.ip == []
    assert "fdb replace 52:54:00:09:01:02 dev swvx4097 self dst 10.99.0.3" in made.bridge
    assert not any(line.startswith("fdb del 52:54") for line in made.bridge)
    assert made.nft == [
        "delete element ip shardwright speakers { 10.99.0.2 . 0x001001 . 0x525400090102 . 0x0a090102 }",
        "add element ip shardwright speakers { 10.99.0.3 . 0x001001 . 0x525400090102 . 0x0a090102 }",
    ]


def test_a_shard_that_is_given_away_may_not_speak_here_any_more() -> None:
    links = {ShardId("mine"): "swo1"}
    before = wanted(view(entry("mine", "a", 1)), A, links)
    after = wanted(view(entry("mine", "b", 1, epoch=2), generation=2), A, links)
    made = changes(before, after, 1370)
    assert 'delete element bridge shardwright guests { "swo1" . 52:54:00:09:01:01 . 10.9.1.1 }' in made.nft
    assert "fdb replace 52:54:00:09:01:01 dev swvx4097 master static" in made.bridge


def test_nothing_to_do_is_no_line() -> None:
    state = wanted(view(entry("mine", "a", 1), entry("s", "b", 2)), A, {ShardId("mine"): "swo1"})
    made = changes(state, state, 1370)
    assert (made.nft, made.ip, made.bridge) == ([], [], [])


def test_a_tenant_goes_with_its_last_guest() -> None:
    state = wanted(view(entry("mine", "a", 1), entry("s", "b", 2)), A, {ShardId("mine"): "swo1"})
    made = changes(state, KernelState(tunnel="10.99.0.1"), 1370)
    assert made.ip[-2:] == ["link del swvx4097", "link del swbr4097"]


def test_a_view_of_the_past_is_refused() -> None:
    known = view(entry("s", "b", 1, epoch=2), generation=5)
    check_newer(None, known)
    check_newer(known, known)
    check_newer(known, view(entry("s", "c", 1, epoch=3), generation=6))
    with pytest.raises(StaleEpoch, match="generation 5"):
        check_newer(known, view(generation=4))
    with pytest.raises(StaleEpoch, match="epoch 2"):
        check_newer(known, view(entry("s", "a", 1, epoch=1), generation=6))


def test_a_shard_of_the_same_name_with_another_address_is_another() -> None:
    check_newer(view(entry("s", "b", 1, epoch=7)), view(entry("s", "b", 2, epoch=1), generation=2))


def test_only_a_gateway_lets_frames_up_to_its_own_kernel() -> None:
    assert any("host iifname" in line for line in ruleset("swwg1", gateway=False))
    assert not any("host iifname" in line for line in ruleset("swwg1", gateway=True))
