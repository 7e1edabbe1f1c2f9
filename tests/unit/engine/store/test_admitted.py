"""Keys that were admitted, on each kind of database; TLS is left out (tests/unit/engine/fleet/test_join.py)."""

from datetime import timedelta

import pytest

from agent.overlay_wire import OverlayRequest
from engine.clock import ManualClock
from engine.errors import AuthenticationFailed
from engine.model.capacity import Resources
from engine.model.ids import CellId, NodeId
from engine.model.market import PurchaseOption
from engine.model.money import usd
from engine.model.placement import Node, NodeState
from engine.store.admitted import AdmittedKeys
from engine.store.attested_instances import AttestedInstances
from engine.store.database import Database
from engine.store.join_tokens import JoinTokens
from engine.store.overlay_map import OverlayMap
from engine.store.shard_map import ShardMap

NODE, OFFICE = NodeId("n1"), NodeId("office")
KEY, OTHER_KEY = "a" * 64, "b" * 64
SAID = OverlayRequest(public_key="A" * 43 + "=", endpoint="192.0.2.9:51820")


class Fleet:
    def __init__(self, store: Database, clock: ManualClock) -> None:
        self.clock, self.keys = clock, AdmittedKeys(store)
        self.map, self.overlay = ShardMap(store, clock), OverlayMap(store)
        self.tokens, self.instances = JoinTokens(store, clock, b"secret"), AttestedInstances(store, clock)
        self.map.put_node(
            Node(
                id=NODE, cell=CellId("p/1/r"), zone="z", instance_type="t", option=PurchaseOption.SPOT,
                hourly_price=usd("1"), resources=Resources(vcpus=1, memory_gib=1), state=NodeState.JOINED,
            )
        )  # fmt: skip

    def add_office(self) -> str:
        """As ``shardwright gateway add`` does; the token."""
        self.overlay.add_gateway(OFFICE, "shop")
        return self.tokens.replace(OFFICE)


@pytest.fixture
def fleet(store: Database, clock: ManualClock) -> Fleet:
    return Fleet(store, clock)


def test_a_node_speaks_with_the_key_that_it_joined_with_and_no_other(fleet: Fleet) -> None:
    fleet.tokens.redeem(NODE, fleet.tokens.issue(NODE), KEY)
    fleet.keys.require(NODE, KEY)
    with pytest.raises(AuthenticationFailed, match="n1 was not admitted with this key"):
        fleet.keys.require(NODE, OTHER_KEY)


def test_one_that_nobody_has_admitted_does_not_speak(fleet: Fleet) -> None:
    fleet.tokens.issue(NODE)
    with pytest.raises(AuthenticationFailed, match="not admitted"):
        fleet.keys.require(NODE, KEY)
    with pytest.raises(AuthenticationFailed, match="unknown"):
        fleet.keys.require(NodeId("stranger"), KEY)


def test_of_the_instances_that_were_a_node_the_newest_speaks_for_it(fleet: Fleet) -> None:
    fleet.instances.use("aws", "i-1", NODE, KEY)
    fleet.keys.require(NODE, KEY)
    fleet.clock.advance(timedelta(hours=1))
    fleet.instances.use("aws", "i-2", NODE, OTHER_KEY)
    fleet.keys.require(NODE, OTHER_KEY)
    with pytest.raises(AuthenticationFailed, match="another host has its place"):
        fleet.keys.require(NODE, KEY)


@pytest.mark.parametrize("by_swap", [False, True])
def test_a_node_that_is_gone_speaks_no_more_and_is_nobodys_peer(fleet: Fleet, by_swap: bool) -> None:
    fleet.tokens.redeem(NODE, fleet.tokens.issue(NODE), KEY)
    fleet.overlay.register(NODE, SAID, KEY)
    told: list[int] = []
    fleet.map.on_overlay_change(lambda: told.append(fleet.overlay.generation()))
    before = fleet.overlay.generation()
    if by_swap:
        assert fleet.map.change_state(NODE, NodeState.GONE, only_from=[NodeState.JOINED])
    else:
        fleet.map.update_node(NODE, state=NodeState.GONE)
    assert told
    assert told[0] > before
    with pytest.raises(AuthenticationFailed, match="gone"):
        fleet.keys.require(NODE, KEY)
    with pytest.raises(AuthenticationFailed, match="no part"):
        fleet.overlay.view(NODE)


def test_a_gateway_that_is_added_again_is_another_host(fleet: Fleet) -> None:
    fleet.tokens.redeem(OFFICE, fleet.add_office(), KEY)
    fleet.overlay.register(OFFICE, SAID, KEY)
    before = fleet.overlay.generation()
    again = fleet.add_office()
    assert fleet.overlay.generation() > before
    assert [one.joined for one in fleet.overlay.gateways()] == [False]
    with pytest.raises(AuthenticationFailed, match="not admitted"):
        fleet.keys.require(OFFICE, KEY)
    with pytest.raises(AuthenticationFailed, match="no part"):
        fleet.overlay.view(OFFICE)
    fleet.tokens.redeem(OFFICE, again, OTHER_KEY)
    fleet.keys.require(OFFICE, OTHER_KEY)


def test_one_that_was_voided_while_its_question_was_on_the_way_is_not_entered(fleet: Fleet) -> None:
    fleet.tokens.redeem(OFFICE, fleet.add_office(), KEY)
    fleet.keys.require(OFFICE, KEY)
    fleet.add_office()
    with pytest.raises(AuthenticationFailed, match="not admitted"):
        fleet.overlay.register(OFFICE, SAID, KEY)
    assert [one.joined for one in fleet.overlay.gateways()] == [False]


def test_a_gateway_that_is_removed_speaks_no_more_and_its_file_is_void(fleet: Fleet) -> None:
    token = fleet.add_office()
    fleet.tokens.redeem(OFFICE, token, KEY)
    fleet.overlay.remove_gateway(OFFICE)
    with pytest.raises(AuthenticationFailed, match="unknown"):
        fleet.keys.require(OFFICE, KEY)
    fleet.add_office()
    for key in (KEY, OTHER_KEY):
        with pytest.raises(AuthenticationFailed, match="may not join"):
            fleet.tokens.redeem(OFFICE, token, key)
    with pytest.raises(AuthenticationFailed, match="not admitted"):
        fleet.keys.require(OFFICE, KEY)


def test_a_removed_gateways_name_can_be_a_nodes(fleet: Fleet) -> None:
    old = fleet.add_office()
    fleet.overlay.remove_gateway(OFFICE)
    token = fleet.tokens.issue(OFFICE)
    assert token == fleet.tokens.issue(OFFICE) != old
    fleet.tokens.redeem(OFFICE, token, KEY)


def test_a_host_cannot_say_anothers_key(fleet: Fleet) -> None:
    fleet.add_office()
    fleet.overlay.register(NODE, SAID)
    with pytest.raises(AuthenticationFailed, match="the key that it says is n1's"):
        fleet.overlay.register(OFFICE, SAID)
    assert [one.joined for one in fleet.overlay.gateways()] == [False]
