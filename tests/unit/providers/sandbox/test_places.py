"""Loopback networks: one sandbox never uses the addresses of another."""

from contextlib import ExitStack
from ipaddress import IPv4Network

import pytest

from providers.sandbox.netns import NetworkSetupFailed
from providers.sandbox.places import LoopbackNetwork


def test_two_sandboxes_have_addresses_of_their_own_until_they_end() -> None:
    first, second = LoopbackNetwork(), LoopbackNetwork()
    try:
        assert not first.subnet.overlaps(second.subnet)
        assert all(network.subnet.subnet_of(IPv4Network("127.0.0.0/8")) for network in (first, second))
    finally:
        second.close()
    again = LoopbackNetwork()
    assert again.subnet == second.subnet
    again.close()
    first.close()


def test_that_none_is_left_is_said() -> None:
    with ExitStack() as taken:

        def claim_every_one() -> None:
            for _ in range(1000):
                taken.callback(LoopbackNetwork().close)

        with pytest.raises(NetworkSetupFailed, match="no loopback network is free"):
            claim_every_one()
