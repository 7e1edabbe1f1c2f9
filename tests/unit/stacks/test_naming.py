from ipaddress import IPv4Network

import pytest

from stacks.naming import CELL_NETWORK, zone_block


@pytest.mark.parametrize("zones", [[f"us-east-1{letter}" for letter in "abcdef"], ["1", "2", "3"]])
def test_zones_get_blocks_of_their_own_that_never_move(zones: list[str]) -> None:
    blocks = [zone_block(zone) for zone in zones]
    assert len(set(blocks)) == len(zones)
    assert all(block.subnet_of(CELL_NETWORK) for block in blocks)
    assert blocks == [zone_block(zone) for zone in zones]


def test_the_first_zone_has_the_first_block() -> None:
    assert zone_block("eu-west-1a") == IPv4Network("10.42.0.0/20")
    assert zone_block("") == IPv4Network("10.42.0.0/20")
