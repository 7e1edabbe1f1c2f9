"""The sandbox's underlay with real namespaces: a node that comes changes nothing for those that are there."""

import os
import socket
from collections.abc import Iterator

import pytest

from providers.sandbox import netns
from providers.sandbox.teardown import new_tag, tear_down
from providers.sandbox.underlay import METADATA_ADDRESS, Underlay

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes network namespaces")]
LOWEST = "02:00:00:00:00:01"
PORT = 8080


@pytest.fixture
def underlay() -> Iterator[Underlay]:
    made = Underlay(new_tag())
    made.create()
    try:
        yield made
    finally:
        assert tear_down(made.tag, None) == []


def test_a_port_with_a_lower_address_does_not_cut_the_others_off(underlay: Underlay) -> None:
    """A bridge that has no address of its own would take it, and neighbour tables would be wrong for half a minute."""
    node = underlay.attach_node("first")

    def reaches() -> None:
        socket.create_connection((METADATA_ADDRESS, PORT), timeout=2).close()

    with netns.listen(METADATA_ADDRESS, PORT, namespace=underlay.namespace):
        netns.inside(node.namespace, reaches)
        late = [f"link add late address {LOWEST} type veth peer name other", "link set late master ub up"]
        netns.batch("ip", late, namespace=underlay.namespace)
        netns.inside(node.namespace, reaches)
