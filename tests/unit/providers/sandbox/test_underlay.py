from ipaddress import IPv4Address, IPv4Network

import pytest

from providers.sandbox.netns import NetworkSetupFailed
from providers.sandbox.underlay import free_subnet, namespace_name, networks_in_use, node_address, node_commands


def test_a_subnet_in_use_is_avoided() -> None:
    assert str(free_subnet([])) == "10.77.0.0/16"
    used = [IPv4Network("10.77.3.0/24"), IPv4Network("10.78.0.0/15")]
    assert str(free_subnet(used)) == "10.80.0.0/16"
    with pytest.raises(NetworkSetupFailed, match="no free underlay subnet"):
        free_subnet([IPv4Network("10.0.0.0/8")])


def test_this_machines_networks_are_read_without_the_default_route() -> None:
    found = networks_in_use()
    assert any(IPv4Address("127.0.0.1") in network for network in found)
    assert all(network.prefixlen > 0 for network in found)


def test_addresses_are_distinct_and_inside() -> None:
    subnet = IPv4Network("10.77.0.0/16")
    addresses = [node_address(subnet, index) for index in range(1, 2001)]
    assert addresses[0] == "10.77.1.1"
    assert len(set(addresses)) == 2000
    assert all(IPv4Address(address) in subnet for address in addresses)


@pytest.mark.parametrize("hostile", ["../../etc/passwd", "a b;reboot", "x" * 500, "node/1", "é"])
def test_a_namespace_name_is_a_file_name_whatever_the_tag_holds(hostile: str) -> None:
    name = namespace_name("sw12ab9f", hostile)
    assert name.startswith("sw12ab9f-")
    assert "/" not in name
    assert " " not in name
    assert len(name) < 100


def test_a_node_gets_its_address_and_its_routes() -> None:
    lines = node_commands("10.77.1.3", "10.77.0.1")
    assert "address add 10.77.1.3/16 dev eth0" in lines
    assert "route add default via 10.77.0.1" in lines
    assert "route add 169.254.169.254/32 via 10.77.0.1" in lines
