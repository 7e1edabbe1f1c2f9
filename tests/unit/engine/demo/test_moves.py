"""Whether the demo can show a client that follows a move."""

from types import SimpleNamespace

import pytest

from agent.wire import NetworkMode
from engine.demo.moves import _no_overlay


@pytest.mark.parametrize(
    ("namespaces", "network", "why"),
    [
        (True, NetworkMode.BRIDGE, ""),
        (True, NetworkMode.USER, "shardwright doctor"),
        (False, NetworkMode.USER, "no network namespaces"),
    ],
)
def test_without_an_overlay_it_says_why_no_client_is_shown(namespaces: bool, network: NetworkMode, why: str) -> None:
    plane = SimpleNamespace(fleet=SimpleNamespace(network_of=lambda _shard: network))
    info = SimpleNamespace(namespaces=namespaces, limits=("no network namespaces",))
    said = _no_overlay(plane, info, SimpleNamespace())  # type: ignore[arg-type]
    assert why in said
    assert bool(said) == bool(why)
