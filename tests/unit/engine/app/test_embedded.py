"""Where rounds run; and what ``run --serve`` serves beside the page: names over DNS, from the store as it is now."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.app import control, embedded
from engine.app.embedded import dns_server, free_port, run_rounds
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


def test_rounds_run_on_the_sandbox_that_is_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They would start another otherwise, and nobody would see the first one's shards."""
    monkeypatch.chdir(tmp_path)
    file = Path(".shardwright/sandbox/shardwright.toml")
    file.parent.mkdir(parents=True)
    file.write_text("name = 7")
    rounds = run_rounds(None, rounds=1, usage=None, metric=None, every_seconds=0, serve=False, say=lambda _: None)
    with pytest.raises(ConfigurationError, match=str(file)):
        next(rounds)


@pytest.mark.parametrize(
    ("key", "kind"),
    [("web_port", socket.SOCK_STREAM), ("dns_port", socket.SOCK_DGRAM), ("dns_port", socket.SOCK_STREAM)],
)
def test_a_port_that_is_taken_is_told_before_anything_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, kind: int
) -> None:
    monkeypatch.setattr(control, "control_plane", lambda *_: pytest.fail("it goes on with what was left"))
    with socket.socket(socket.AF_INET, kind) as other:
        other.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            other.listen()
        file = tmp_path / "shardwright.toml"
        file.write_text(f"{GOOD}\n[control]\n{key} = {other.getsockname()[1]}\n")
        running = run_rounds(file, rounds=1, usage=None, metric=None, every_seconds=0, serve=True, say=lambda _: None)
        with pytest.raises(ConfigurationError, match="Address already in use") as taken:
            next(running)
    assert f"control.{key}" in taken.value.next_step


@pytest.mark.parametrize("serve", [True, False])
def test_only_who_serves_stays_up_after_a_last_round_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serve: bool
) -> None:
    def interrupted(_seconds: float) -> None:
        raise KeyboardInterrupt

    class Plane:
        store = None
        clock = SimpleNamespace(sleep=interrupted)

        def rounds(self, _count: int, *, every_seconds: float, stays: bool) -> Iterator[None]:
            happened.append(f"stays: {stays}")
            yield from ()

    @contextmanager
    def plane(*_: object) -> Iterator[Plane]:
        yield Plane()

    happened: list[str] = []
    monkeypatch.setattr(control, "control_plane", plane)
    monkeypatch.setattr(embedded, "web_page", lambda *_: nullcontext("http://here/"))
    monkeypatch.setattr(embedded, "dns_server", lambda *_: nullcontext("here"))
    file = tmp_path / "shardwright.toml"
    file.write_text(GOOD)
    running = run_rounds(file, rounds=1, usage=None, metric=None, every_seconds=0, serve=serve, say=lambda _: None)
    with pytest.raises(KeyboardInterrupt) if serve else nullcontext():
        assert list(running) == []
    assert happened == [f"stays: {serve}"]


def test_a_free_port_is_none_that_the_kernel_gives_to_others() -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = {free_port() for _ in range(20)}
    assert len(ports) > 1
    assert all(1024 < port < lowest for port in ports)
