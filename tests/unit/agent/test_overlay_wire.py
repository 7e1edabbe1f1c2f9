import pytest
from pydantic import ValidationError

from agent.overlay_wire import OverlayPeer, OverlayRequest
from engine.model.ids import NodeId

KEY = "A" * 43 + "="
NO_ENDPOINTS = (
    "", "10.0.0.300:51820", "10.0.0.1:99999", "10.0.0.1:0", "10.0.0.1", "10.0.0.1:", "10.0.0.1:051820", "10.0.0.1:５",
    "10.0.0.1:51820\n", "10.0.0:51820", "010.0.0.1:51820", "0.0.0.0:51820", "224.0.0.1:51820", "nodes.example:51820",
    "[2001:db8::1]:51820", " 10.0.0.1:51820",
)  # fmt: skip


@pytest.mark.parametrize("endpoint", NO_ENDPOINTS)
def test_what_wireguard_cannot_send_to_is_no_endpoint(endpoint: str) -> None:
    with pytest.raises(ValidationError, match=r"ADDRESS:PORT"):
        OverlayRequest(public_key=KEY, endpoint=endpoint)


@pytest.mark.parametrize("endpoint", ["10.0.0.1:1", "203.0.113.7:65535", "127.0.0.1:51820"])
def test_an_address_and_a_port_are_one(endpoint: str) -> None:
    assert OverlayRequest(public_key=KEY, endpoint=endpoint).endpoint == endpoint


def test_a_view_with_a_peer_that_cannot_be_reached_can_be_read_all_the_same() -> None:
    peer = OverlayPeer(node=NodeId("b"), public_key=KEY, endpoint="10.0.0.300:51820", tunnel="10.99.0.2")
    assert OverlayPeer.model_validate_json(peer.model_dump_json()) == peer
