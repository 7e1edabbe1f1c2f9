"""The node host over loopback places: real processes, instances as a test wants them."""

import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from engine.clock import ManualClock
from engine.errors import ProviderUnavailable
from providers.sandbox.contract import InstanceState, SandboxInstance, SandboxNotice
from providers.sandbox.hosts import NodeHost, Source
from providers.sandbox.metadata import MetadataServer
from providers.sandbox.netns import NetworkSetupFailed
from providers.sandbox.nodes import HostedNodes, Place
from providers.sandbox.places import LoopbackNetwork, LoopbackPlaces
from providers.sandbox.processes import NODE_MARKER, tagged
from providers.sandbox.servers import ServerClient
from providers.sandbox.teardown import new_tag, tear_down
from tests.instance_identity import signers

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
WAIT = "#!/bin/sh\nsetsid sleep 600 &\necho booted in $HOME\nexec sleep 600\n"


class Cloud(ServerClient):
    """What a server would say about its instances."""

    def __init__(self) -> None:
        self.listed: dict[str, SandboxInstance] = {}
        self.noticed: list[SandboxNotice] = []
        self.down = False

    def instances(self) -> list[SandboxInstance]:
        if self.down:
            raise ProviderUnavailable("cloud: no answer")
        return list(self.listed.values())

    def notices(self) -> list[SandboxNotice]:
        return self.noticed

    def run(self, instance_id: str, *, node: str = "n1", user_data: str = WAIT) -> None:
        self.listed[instance_id] = SandboxInstance(
            instance_id=instance_id,
            node=node,
            region="r",
            zone="z",
            instance_type="t",
            spot=True,
            state=InstanceState.RUNNING,
            user_data=user_data,
            private_ip=None,
            launched_at=NOW,
        )

    def set_state(self, instance_id: str, state: InstanceState) -> None:
        self.listed[instance_id] = self.listed[instance_id].model_copy(update={"state": state})


class Setup:
    def __init__(self, state_dir: Path) -> None:
        self.tag, self.state_dir, self.said = new_tag(), state_dir, list[str]()
        self.cloud, self.nodes = Cloud(), HostedNodes()
        self.metadata = MetadataServer(self.nodes, ManualClock(NOW), signers())
        self.network = LoopbackNetwork()
        self.places = LoopbackPlaces(self.metadata, self.network)
        self.host = NodeHost(
            [Source("cloud", "network", "acct", self.cloud)],
            self.places,
            self.nodes,
            tag=self.tag,
            state_dir=state_dir,
            say=self.said.append,
        )

    def on_node(self, name: str) -> set[int]:
        return set(tagged(lambda value: value == f"{self.tag}/{name}", NODE_MARKER))

    def console(self, name: str) -> str:
        return (self.state_dir / "nodes" / name / "console.log").read_text()


@pytest.fixture
def setup(tmp_path: Path) -> Iterator[Setup]:
    setup = Setup(tmp_path / "state")
    yield setup
    setup.host.stop()
    setup.metadata.close()
    setup.network.close()
    assert tear_down(setup.tag, None) == []


def soon(check: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_user_data_runs_once_with_the_nodes_own_home_and_console(setup: Setup) -> None:
    setup.cloud.run("i-1")
    for _ in range(3):
        setup.host.tick()
    soon(lambda: len(setup.on_node("n1")) == 2)
    assert setup.console("n1") == f"booted in {setup.state_dir}/nodes/n1/home\n"
    (hosted,) = setup.nodes.all()
    assert IPv4Address(hosted.place.address) in setup.network.subnet
    assert setup.nodes.at(hosted.place.address) == hosted
    assert setup.nodes.named("i-1") == setup.nodes.named("n1") == hosted


def test_the_environment_says_where_the_node_is_and_holds_nothing_of_ours(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    setup.cloud.run("i-1", user_data="env")
    setup.host.tick()
    soon(lambda: "PATH=" in setup.console("n1") and not setup.on_node("n1"))
    given = dict(line.split("=", 1) for line in setup.console("n1").splitlines() if "=" in line)
    (hosted,) = setup.nodes.all()
    assert given["SHARDWRIGHT_UNDERLAY_ADDRESS"] == hosted.place.address
    assert given["SHARDWRIGHT_METADATA_URL"] == hosted.place.metadata_url
    assert given["SHARDWRIGHT_PYTHON"] == sys.executable
    assert "canary" not in setup.console("n1")


@pytest.mark.parametrize("state", [InstanceState.PENDING, InstanceState.TERMINATED])
def test_only_running_instances_with_user_data_get_a_node(setup: Setup, state: InstanceState) -> None:
    setup.cloud.run("i-1")
    setup.cloud.set_state("i-1", state)
    setup.cloud.run("i-2", node="n2", user_data="")
    setup.host.tick()
    assert setup.nodes.all() == ()


@pytest.mark.parametrize("how", ["terminated", "unlisted"])
def test_a_node_dies_with_its_instance_and_so_does_its_disk(setup: Setup, how: str) -> None:
    setup.cloud.run("i-1")
    setup.host.tick()
    soon(lambda: len(setup.on_node("n1")) == 2)
    if how == "terminated":
        setup.cloud.set_state("i-1", InstanceState.TERMINATED)
    else:
        setup.cloud.listed.clear()
    setup.host.tick()
    assert setup.on_node("n1") == set()
    assert setup.nodes.all() == ()
    assert [entry.name for entry in (setup.state_dir / "nodes/n1").iterdir()] == ["console.log"]


def test_a_server_that_does_not_answer_keeps_its_nodes(setup: Setup) -> None:
    setup.cloud.run("i-1")
    setup.host.tick()
    setup.cloud.down = True
    setup.host.tick()
    setup.host.tick()
    assert len(setup.nodes.all()) == 1
    assert [line for line in setup.said if "no answer" in line] == ["cloud: cloud: no answer"]


def test_a_notice_is_seen_on_the_node(setup: Setup) -> None:
    setup.cloud.run("i-1")
    setup.host.tick()
    notice = SandboxNotice(instance_id="i-1", node="n1", seen_at=NOW, at=NOW + timedelta(seconds=30), reason="taken")
    setup.cloud.noticed = [notice]
    setup.host.tick()
    assert setup.nodes.named("n1").notice == notice


def test_two_instances_of_one_node_id_do_not_share_a_place(setup: Setup) -> None:
    setup.cloud.run("i-1")
    setup.cloud.run("i-2")
    setup.cloud.run("i-3", node="../../../tmp/x y")
    setup.host.tick()
    names = {hosted.place.name for hosted in setup.nodes.all()}
    assert len(names) == len({hosted.place.address for hosted in setup.nodes.all()}) == 3
    assert {"n1", "n1-2"} < names
    assert all("/" not in name and " " not in name for name in names)


def test_a_node_that_cannot_be_made_is_said_once_and_the_others_go_on(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    attach = setup.places.attach

    def refuse_n1(name: str) -> Place:
        if name == "n1":
            raise NetworkSetupFailed("no more namespaces")
        return attach(name)

    monkeypatch.setattr(setup.places, "attach", refuse_n1)
    setup.cloud.run("i-1")
    setup.cloud.run("i-2", node="n2")
    setup.host.tick()
    setup.host.tick()
    assert [hosted.node for hosted in setup.nodes.all()] == ["n2"]
    assert len([line for line in setup.said if "could not be made" in line]) == 1


def test_a_node_that_cannot_boot_gives_its_place_back(setup: Setup) -> None:
    setup.state_dir.mkdir()
    (setup.state_dir / "nodes").write_text("in the way, as a full disk would be")
    setup.cloud.run("i-1")
    setup.host.tick()
    setup.host.tick()
    assert setup.nodes.all() == ()
    (said,) = setup.said
    assert said.startswith("node n1 could not boot")
    assert setup.places.attach("next").address == str(setup.network.subnet[257])
