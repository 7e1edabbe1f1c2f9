"""The sandbox's nodes for real: namespaces behind instances, user data run, metadata served, reclaims carried out."""

import json
import os
import socket
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import UsageError
from providers.sandbox import netns, supervisor
from providers.sandbox.contract import FaultMode
from providers.sandbox.control import MakeCheaper, SandboxClient
from providers.sandbox.info import SandboxInfo
from providers.sandbox.processes import in_namespaces, namespace_inodes
from providers.sandbox.teardown import leftovers
from tests.sandbox_runs import buy_node, console, eventually, wait_for_node

pytestmark = pytest.mark.slow
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes network namespaces")

BOOT = """#!/bin/sh
echo "address $SHARDWRIGHT_UNDERLAY_ADDRESS"
env -i setsid sleep 3600 &
"$SHARDWRIGHT_PYTHON" - <<'END'
import os, socket, urllib.request
base = os.environ["SHARDWRIGHT_METADATA_URL"]
print("metadata", urllib.request.urlopen(base + "/node").read().decode())
print("notices", urllib.request.urlopen(base + "/notices").read().decode())
print("home", os.getcwd() == os.environ["HOME"])
with socket.create_connection(("@RELAY@", @PORT@), timeout=5) as control:
    control.sendall(b"hello from " + socket.gethostbyname(os.environ["SHARDWRIGHT_UNDERLAY_ADDRESS"]).encode())
    print("control says", control.recv(100).decode(), flush=True)
listener = socket.create_server((os.environ["SHARDWRIGHT_UNDERLAY_ADDRESS"], 7443))
print("listening", flush=True)
while True:
    connection, _ = listener.accept()
    connection.sendall(b"node here")
    connection.close()
END
"""


class Control:
    """A control plane's listener on loopback: notes what it is told and says welcome."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self._listener = netns.listen("127.0.0.1", 0)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection:
                self.heard.append(connection.recv(100).decode())
                connection.sendall(b"welcome")


@pytest.fixture(
    scope="module", params=[pytest.param(True, marks=needs_root, id="namespaces"), pytest.param(False, id="loopback")]
)
def info(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxInfo]:
    state = tmp_path_factory.mktemp("sandbox") / "state"
    said: list[str] = []
    info = supervisor.start(state, providers=["harbor"], seed=5, namespaces=request.param, progress=said.append)
    assert any("harbor serves on" in line for line in said)
    yield info
    assert supervisor.stop(state) == []
    assert leftovers(info.tag) == []
    assert not state.exists()


@pytest.fixture
def client(info: SandboxInfo) -> Iterator[SandboxClient]:
    client = SandboxClient(info)
    yield client
    client.close()


def test_a_node_boots_from_its_user_data_and_dies_with_its_instance(info: SandboxInfo, client: SandboxClient) -> None:
    control = Control()
    relay = client.open_relay(control.port)
    assert relay == client.open_relay(control.port)
    assert relay.host == info.relay_host
    script = BOOT.replace("@RELAY@", relay.host).replace("@PORT@", str(relay.port))
    instance_id = buy_node(info, "n1", script)
    node = wait_for_node(client, "n1")
    assert node.instance_id == instance_id
    eventually(lambda: "listening" in console(info, "n1"), what=f"boot; console: {console(info, 'n1')}")
    said = console(info, "n1").splitlines()
    assert said == [
        f"address {node.address}", "metadata n1", "notices []", "home True", "control says welcome", "listening",
    ]  # fmt: skip
    assert control.heard == [f"hello from {node.address}"]
    with socket.create_connection((node.address, 7443), timeout=5) as dialled:
        assert dialled.recv(100) == b"node here"
    inodes = namespace_inodes([node.namespace] if node.namespace else [])
    assert len(in_namespaces(inodes)) == (3 if info.namespaces else 0)
    assert (Path(info.state_dir) / "nodes/n1/user-data").stat().st_mode & 0o077 == 0

    assert client.reclaim("n1", notice_seconds=1.5).reclaimed
    eventually(lambda: client.status().nodes[0].reclaimed, seconds=1.4, what="the notice reaches the node host")
    if node.namespace is not None:
        (notice,) = json.loads(netns.inside(node.namespace, lambda: _get("http://169.254.169.254/notices")))
        assert (notice["node"], notice["instance_id"]) == ("n1", instance_id)
    eventually(lambda: client.status().nodes == (), seconds=5, what="the node goes with its instance")
    eventually(lambda: in_namespaces(inodes) == set(), seconds=2, what="every process on it is killed")
    with pytest.raises(OSError, match=r"timed out|refused|No route"):
        socket.create_connection((node.address, 7443), timeout=0.5)
    assert not (Path(info.state_dir) / "nodes/n1/home").exists()
    assert "listening" in console(info, "n1")


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return str(answer.read().decode())


def test_clients_and_nodes_share_one_underlay(info: SandboxInfo, client: SandboxClient) -> None:
    if not info.namespaces:
        with pytest.raises(UsageError, match="no underlay"):
            client.attach_client("c1")
        assert info.limits
        return
    first, second = client.attach_client("c1"), client.attach_client("c2")
    assert client.attach_client("c1") == first
    address = second.underlay_address
    assert first.underlay_address != address
    with netns.listen(address, 5555, namespace=second.namespace) as listener:
        dialled = netns.inside(first.namespace, lambda: socket.create_connection((address, 5555), 5))
        assert dialled.getpeername() == (address, 5555)
        accepted, caller = listener.accept()
        assert caller[0] == first.underlay_address
        accepted.close()
        dialled.close()


def test_orders_that_make_no_sense_are_refused_in_words(info: SandboxInfo, client: SandboxClient) -> None:
    with pytest.raises(UsageError, match="runs no node 'n9'"):
        client.reclaim("n9")
    with pytest.raises(UsageError, match=r"nobody asks a price|refuses"):
        client.make_cheaper(MakeCheaper(instance_type="nothing.large", factor="0.5"))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no provider 'aws'"):
        client.set_fault("aws", FaultMode.DOWN, 1)
    stranger = SandboxClient(info.model_copy(update={"control_token": "guess"}))
    with pytest.raises(UsageError, match="token is wrong"):
        stranger.status()
    stranger.close()


def test_the_info_file_is_for_its_owner_only(info: SandboxInfo) -> None:
    file = Path(info.state_dir) / "sandbox.json"
    assert file.stat().st_mode & 0o077 == 0
    assert SandboxInfo.load(file) == info
    argv = Path(f"/proc/{info.provider('harbor').pid}/cmdline").read_text()
    assert dict(info.provider("harbor").credentials)["token"] not in argv
