"""Attaching a disk to a guest whose QEMU is a script."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from agent.attaching import Attacher, may_attach
from agent.config import AgentConfig
from agent.guest import GuestRecord
from agent.monitor import GuestRefused
from agent.shards import ShardHost
from agent.wire import AttachedDisk, AttachRequest
from engine.errors import StaleEpoch, UsageError
from engine.model.ids import MoveId, NodeId, ShardId
from tests.unit.agent.test_moves import S1

DISK = AttachedDisk(storage=ShardId("d1"), epoch=2, node=NodeId("nS"), host="192.0.2.1", port=10900)
Leave = Callable[..., GuestRecord]


class Machine:
    """A QEMU's objects, block nodes and devices; ``silent``: nobody answers at the disk's address."""

    def __init__(self) -> None:
        self.objects: set[str] = set()
        self.nodes: dict[str, str] = {"d0": ""}
        self.devices: set[str] = {"vd0"}
        self.silent = False

    async def execute(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
        given = arguments or {}
        answers: dict[str, Any] = {
            "query-named-block-nodes": [{"node-name": name} for name in self.nodes],
            "query-blockstats": [
                {"qdev": f"/machine/peripheral/{name}/x", "stats": {"rd_operations": 1}} for name in self.devices
            ],
            "qom-list": [{"name": name} for name in self.devices],
            "query-status": {"running": True},
        }
        if command == "object-add":
            self._new(given["id"], self.objects)
        elif command == "object-del":
            self.objects.discard(given["id"])
        elif command == "blockdev-add":
            if self.silent and given["driver"] == "nbd":
                raise GuestRefused("Failed to connect")
            self._new(given["node-name"], set(self.nodes))
            self.nodes[given["node-name"]] = given.get("file", given.get("tls-creds", ""))
        elif command == "blockdev-reopen":
            (options,) = given["options"]
            self.nodes[options["node-name"]] = options["file"]
        elif command == "blockdev-del":
            assert given["node-name"] not in self.nodes.values()
            self.nodes.pop(given["node-name"])
        elif command == "device_add":
            self._new(given["id"], self.devices)
            self.devices.add(given["id"])
        return answers.get(command, {})

    def _new(self, name: str, among: set[str]) -> None:
        if name in among:
            raise GuestRefused(f"Duplicate {name}")
        if among is self.objects:
            among.add(name)

    async def close(self) -> None:
        return


class Post:
    def __init__(self, config: AgentConfig) -> None:
        (config.work / "tls").mkdir(exist_ok=True)
        (config.work / "tls/node.pem").write_text("a certificate")
        self.config, self.machine = config, Machine()
        self.host = ShardHost(config)
        self.host.guests[S1].monitor = self.machine  # type: ignore[assignment]
        self.attacher = Attacher(self.host)

    def attach(self, disk: AttachedDisk = DISK) -> AttachedDisk | None:
        return asyncio.run(self.attacher.attach(S1, AttachRequest(epoch=1, disk=disk))).attached


@pytest.fixture
def post(config: AgentConfig, left_behind: Leave) -> Post:
    left_behind()
    return Post(config)


def test_what_there_is_to_do() -> None:
    assert may_attach(None, DISK)
    assert not may_attach(DISK, DISK)
    assert may_attach(DISK, DISK.model_copy(update={"epoch": 3}))
    with pytest.raises(StaleEpoch):
        may_attach(DISK, DISK.model_copy(update={"epoch": 1}))
    with pytest.raises(UsageError, match="data is on d1"):
        may_attach(DISK, DISK.model_copy(update={"storage": ShardId("d2")}))


def test_a_guest_gets_the_disk_as_a_second_device_once(post: Post) -> None:
    assert post.attach() == DISK
    assert post.machine.nodes == {"d0": "", "remote-0": "tls-remote-0", "a0": "remote-0"}
    assert post.machine.devices == {"vd0", "vd1"}
    assert post.attach() == DISK
    assert post.machine.nodes == {"d0": "", "remote-0": "tls-remote-0", "a0": "remote-0"}


def test_another_address_takes_the_place_of_the_last_one_under_the_same_device(post: Post) -> None:
    post.attach()
    post.attach(DISK.model_copy(update={"port": 10901, "epoch": 3}))
    assert post.machine.nodes == {"d0": "", "remote-1": "tls-remote-1", "a0": "remote-1"}
    assert post.machine.objects == {"tg-attached", "tls-remote-1"}


def test_a_new_epoch_at_the_same_address_changes_no_connection(post: Post) -> None:
    post.attach()
    post.attach(DISK.model_copy(update={"epoch": 3}))
    assert "remote-0" in post.machine.nodes
    assert post.host.guests[S1].record.attached == DISK.model_copy(update={"epoch": 3})


def test_what_an_agent_has_died_over_is_finished_by_the_next_one(post: Post) -> None:
    """It had made everything but the device, and had not written it down."""
    post.attach()
    post.machine.devices.remove("vd1")
    post.host.guests[S1].save(attached=None)
    assert post.attach() == DISK
    assert post.machine.devices == {"vd0", "vd1"}
    assert post.machine.nodes["a0"] == "remote-1"


def test_a_disk_that_does_not_answer_leaves_nothing_behind(post: Post) -> None:
    post.machine.silent = True
    with pytest.raises(GuestRefused):
        post.attach()
    assert (post.machine.nodes, post.machine.objects) == ({"d0": ""}, set())
    assert post.host.guests[S1].record.attached is None


def test_a_renewed_certificate_makes_a_new_connection_but_not_in_a_move(post: Post) -> None:
    post.attach()
    asyncio.run(post.attacher.look())
    assert "remote-0" in post.machine.nodes
    (post.config.work / "tls/node.pem").write_text("the next one")
    post.host.guests[S1].save(move=MoveId("m"))
    asyncio.run(post.attacher.look())
    assert "remote-0" in post.machine.nodes
    post.host.guests[S1].save(move=None)
    asyncio.run(post.attacher.look())
    assert "remote-1" in post.machine.nodes
    asyncio.run(post.attacher.look())
    assert "remote-1" in post.machine.nodes


def test_a_dead_guest_gets_it_when_it_is_booted(config: AgentConfig, left_behind: Leave) -> None:
    left_behind(alive=False)
    post = Post(config)
    assert post.attach() == DISK
    assert post.machine.nodes == {"d0": ""}
