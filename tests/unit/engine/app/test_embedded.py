"""What ``run --serve`` serves beside the page: names over DNS, from the store as it is now."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.app.embedded import dns_server
from engine.clock import SystemClock
from engine.config import Configuration, load_configuration
from engine.errors import ConfigurationError
from engine.model.capacity import Resources
from engine.model.ids import CellId, NodeId, PoolId, ShardId
from engine.model.market import PurchaseOption
from engine.model.money import usd
from engine.model.placement import ComponentName, Node
from engine.namespace.dns import encode_name
from engine.store.opened import Store, opened_store
from tests.small_configuration import GOOD

SIZE = Resources(vcpus=1, memory_gib=1)


@pytest.fixture
def configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Configuration:
    file = tmp_path / "shardwright.toml"
    file.write_text(GOOD)
    return load_configuration(file)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with opened_store(f"sqlite:///{tmp_path}/control.sqlite", SystemClock()) as opened:
        yield opened


def ask(where: str, name: str) -> bytes:
    host, _, port = where.partition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(5)
        question = b"\x12\x34\x01\x00\x00\x01" + bytes(6) + encode_name(name) + b"\x00\x01\x00\x01"
        asking.sendto(question, (host, int(port)))
        return asking.recv(512)


def test_a_name_is_answered_from_its_binding_on(configuration: Configuration, store: Store) -> None:
    node = Node(
        id=NodeId("n"), cell=CellId("p/1/r"), zone="z", instance_type="t", option=PurchaseOption.SPOT,
        hourly_price=usd("1"), resources=SIZE,
    )  # fmt: skip
    store.shard_map.put_node(node)
    shard = store.shard_map.add_shard(ShardId("s"), shard_type="t", pool=PoolId("p"), node=NodeId("n"), nominal=SIZE)
    with dns_server(configuration, store) as where:
        assert ask(where, "api.web.shop.shard.internal")[3] & 15 == 3, "no such name"
        store.shard_map.bind(ComponentName(namespace="shop", workload="web", component="api"), shard.id)
        assert ask(where, "api.web.shop.shard.internal").endswith(socket.inet_aton(shard.address))


def test_a_port_that_is_taken_is_named(configuration: Configuration, store: Store) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        control = configuration.control.model_copy(update={"dns_port": other.getsockname()[1]})
        taken = configuration.model_copy(update={"control": control})
        with pytest.raises(ConfigurationError, match="cannot be answered"), dns_server(taken, store):
            pass
