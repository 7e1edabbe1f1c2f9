"""Storage and its users over a real store, with agents that note what they are told."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from agent.wire import AccessRequest, AttachedDisk, AttachRequest, VolumeRequest
from engine.clock import ManualClock
from engine.composition.binding import Rules
from engine.composition.storage import PATIENCE, Storage, nearest
from engine.errors import InsufficientCapacity, NodeSilent, ProviderUnavailable, StaleEpoch
from engine.model.capacity import Resources
from engine.model.composite import CompositeRule
from engine.model.ids import CellId, NodeId, PoolId, ShardId
from engine.model.market import PurchaseOption
from engine.model.money import usd
from engine.model.placement import Binding, Node, NodeState, Shard, ShardState
from engine.store.attachments import Attachments
from engine.store.database import Database, metadata
from engine.store.shard_map import ShardMap
from tests.unit.engine.composition.cases import API, NOW, WEB, replica, shard

DISKS = PoolId("disks")
RULES: Rules = {API: CompositeRule(replicas=2, storage=DISKS)}
SIZE = Resources(vcpus=1, memory_gib=1)
NODES = {"n1": "aws/1/r", "n2": "gcp/1/r", "s1": "azure/1/r"}


class Agents:
    """Every node's agent; those that are ``down`` do not answer. A storage node keeps to the epoch."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.down: set[str] = set()
        self.waited_for: list[str] = []
        self.epochs: dict[ShardId, int] = {}
        self._node = ""

    def __call__(self, node: NodeId) -> Any:
        if node in self.down:
            self.waited_for.append(node)
            raise NodeSilent(f"node {node} does not answer")
        self._node = node
        return self

    def create_volume(self, request: VolumeRequest) -> None:
        if request.disk_mib > 1000:
            raise InsufficientCapacity("no room")
        self.told.append(f"{self._node} create {request.shard} {request.disk_mib}")

    def hold(self, storage: ShardId, request: AccessRequest) -> AttachedDisk:
        if request.epoch < self.epochs.get(storage, 0):
            raise StaleEpoch("late")
        self.epochs[storage] = request.epoch
        self.told.append(f"{self._node} hold {storage} {request.node} {request.epoch}")
        return AttachedDisk(storage=storage, epoch=request.epoch, node=NodeId(self._node), host="h", port=1)

    def admit(self, storage: ShardId, request: AccessRequest) -> AttachedDisk:
        self.told.append(f"{self._node} admit {storage} {request.node} {request.epoch}")
        return AttachedDisk(storage=storage, epoch=request.epoch, node=NodeId(self._node), host="h", port=2)

    def attach(self, shard_id: ShardId, request: AttachRequest) -> None:
        self.told.append(f"{self._node} attach {shard_id} {request.disk.storage} {request.disk.epoch}")


class World:
    """Two replicas on n1 and n2, two disks on s1."""

    def __init__(self, database: Database) -> None:
        self.agents, self.map, self.book = Agents(), ShardMap(database, ManualClock(NOW)), Attachments(database)
        self.storage = Storage(self.map, self.book, cast(Any, self.agents), RULES)
        for name, cell in NODES.items():
            self.map.put_node(
                Node(
                    id=NodeId(name), cell=CellId(cell), zone="z", instance_type="t",
                    option=PurchaseOption.ON_DEMAND, hourly_price=usd("0.1"), resources=SIZE,
                    state=NodeState.JOINED,
                )
            )  # fmt: skip
        for index in range(2):
            name = ShardId(f"c{index}")
            self.map.add_shard(name, shard_type="cpu.small", pool=WEB, node=NodeId(f"n{index + 1}"), nominal=SIZE)
            self.map.bind(replica(index), name)
            disk = self.map.add_shard(
                ShardId(f"d{index}"), shard_type="disk.small", pool=DISKS, node=NodeId("s1"), nominal=SIZE
            )
            assert self.storage.create(disk, 64).failure == ""

    def connect(self, looks: int = 1) -> list[str]:
        """What was told while everything was connected."""
        self.agents.told.clear()
        for _ in range(looks):
            assert self.storage.connect_all() == ()
        return self.agents.told


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    database = Database(f"sqlite:///{tmp_path / 'store.db'}")
    metadata.create_all(database.engine)
    yield World(database)
    database.dispose()


def test_each_replica_gets_a_disk_of_its_own_for_good(world: World) -> None:
    made = world.storage.assign()
    assert [(one.component.index, one.storage) for one in made] == [(0, "d0"), (1, "d1")]
    assert world.storage.assign() == ()
    assert world.map.get(ShardId("d0")).state is ShardState.BOUND
    assert world.storage.in_use() == {"d0", "d1"}


@pytest.mark.parametrize("state", [NodeState.DRAINING, NodeState.RECLAIMING])
def test_no_disk_is_taken_from_a_node_that_is_left(world: World, state: NodeState) -> None:
    world.map.update_node(NodeId("s1"), state=state)
    assert world.storage.assign() == ()
    world.map.update_node(NodeId("s1"), state=NodeState.JOINED)
    assert len(world.storage.assign()) == 2


def test_a_disk_that_cannot_be_made_says_why(world: World) -> None:
    assert "no room" in world.storage.create(world.map.get(ShardId("d0")), 2000).failure


def test_the_present_shard_is_the_user_at_a_new_epoch_and_a_repeat_changes_nothing(world: World) -> None:
    world.storage.assign()
    assert world.connect()[:2] == ["s1 hold d0 n1 2", "n1 attach c0 d0 2"]
    assert world.connect() == []
    world.storage = Storage(world.map, world.book, cast(Any, world.agents), RULES)  # the next process makes sure
    assert world.connect()[:2] == ["s1 hold d0 n1 2", "n1 attach c0 d0 2"]


def test_another_shard_under_the_name_takes_the_disk_over_at_a_later_epoch(world: World) -> None:
    world.storage.assign()
    world.connect()
    world.map.add_shard(ShardId("c9"), shard_type="cpu.small", pool=WEB, node=NodeId("n2"), nominal=SIZE)
    world.map.bind(replica(0), ShardId("c9"))
    assert world.connect()[:2] == ["s1 hold d0 n2 3", "n2 attach c9 d0 3"]


def test_a_move_admits_the_destination_first_and_hands_over_after_the_swap(world: World) -> None:
    world.storage.assign()
    world.connect()
    world.agents.told.clear()
    disk = world.storage.admit(ShardId("c0"), NodeId("n2"))
    assert disk is not None
    assert (disk.port, disk.epoch) == (2, 2)
    assert world.agents.told == ["s1 hold d0 n1 2", "s1 admit d0 n2 2"]
    world.map.move(ShardId("c0"), expected_epoch=1, to_node=NodeId("n2"))
    world.storage.hand_over(ShardId("c0"))
    assert world.agents.told[-1] == "s1 hold d0 n2 3"
    assert world.connect()[:2] == ["s1 hold d0 n2 3", "n2 attach c0 d0 3"]


def test_a_move_that_was_given_up_takes_the_disk_from_the_destination(world: World) -> None:
    world.storage.assign()
    world.connect()
    world.storage.admit(ShardId("c0"), NodeId("n2"))
    world.map.move(ShardId("c0"), expected_epoch=1, to_node=NodeId("n1"))
    assert world.connect(PATIENCE - 1) == []  # it may still be under way
    assert world.connect() == ["s1 hold d0 n1 3", "n1 attach c0 d0 3"]


def test_a_storage_node_that_is_silent_stops_no_move_and_is_told_later(world: World) -> None:
    world.storage.assign()
    world.connect()
    world.map.move(ShardId("c0"), expected_epoch=1, to_node=NodeId("n2"))
    world.agents.down.add("s1")
    world.storage.hand_over(ShardId("c0"))
    (problem,) = world.storage.connect_all()
    assert "shard://shop/web/api/0: its storage d0 is not attached" in problem
    world.agents.down.clear()
    assert world.connect()[0] == "s1 hold d0 n2 3"


def both_on_n1(world: World) -> None:
    """Both replicas; their disks are of s1."""
    world.map.add_shard(ShardId("c9"), shard_type="cpu.small", pool=WEB, node=NodeId("n1"), nominal=SIZE)
    world.map.bind(replica(1), ShardId("c9"))


@pytest.mark.parametrize("node", ["s1", "n1"])
def test_a_silent_node_is_waited_for_once_a_sweep(world: World, node: str) -> None:
    both_on_n1(world)
    world.storage.assign()
    world.agents.down.add(node)
    for looks in (1, 2):
        assert len(world.storage.connect_all()) == 2
        assert world.agents.waited_for == [node] * looks


def test_a_node_that_refuses_one_is_asked_for_the_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its agent answers; only this guest's QEMU does not."""
    both_on_n1(world)
    world.storage.assign()
    asked: list[ShardId] = []

    def hung(_shard: ShardId, request: AttachRequest) -> None:
        asked.append(request.disk.storage)
        raise ProviderUnavailable("QEMU does not answer")

    monkeypatch.setattr(world.agents, "attach", hung)
    assert len(world.storage.connect_all()) == 2
    assert asked == ["d0", "d1"]


def test_a_sweep_at_the_same_moment_does_not_leave_the_old_user(world: World) -> None:
    world.storage.assign()
    world.connect()
    world.map.move(ShardId("c0"), expected_epoch=1, to_node=NodeId("n2"))
    swap, tried = world.map.move, []

    def late(shard_id: ShardId, **more: Any) -> Any:
        if not tried:
            tried.append(shard_id)
            for _ in range(PATIENCE):
                world.storage.connect_all()
        return swap(shard_id, **more)

    world.map.move = late  # type: ignore[method-assign,assignment]
    world.storage.hand_over(ShardId("c0"))
    assert world.agents.epochs[ShardId("d0")] == world.map.get(ShardId("d0")).epoch == 3
    assert world.agents.told[-1] == "s1 hold d0 n2 3"


def test_a_shard_without_storage_moves_without_it(world: World) -> None:
    assert world.storage.admit(ShardId("c0"), NodeId("n2")) is None
    world.storage.hand_over(ShardId("c0"))
    assert world.agents.told == ["s1 create d0 64", "s1 create d1 64"]


def test_lost_storage_is_never_replaced_by_an_empty_disk(world: World) -> None:
    world.storage.assign()
    world.map.remove(ShardId("d0"))
    world.map.add_shard(ShardId("d9"), shard_type="disk.small", pool=DISKS, node=NodeId("s1"), nominal=SIZE)
    world.map.set_state(ShardId("d9"), ShardState.READY)
    assert world.storage.assign() == ()
    assert any("d0" in problem for problem in world.storage.connect_all())


def test_the_nearest_disk_is_taken(world: World) -> None:
    nodes = {node.id: node for node in world.map.nodes()}
    near = Node(**(dict(nodes[NodeId("n1")]) | {"id": NodeId("n9"), "cell": CellId("aws/1/other")}))
    disks = [shard("a", "s1"), shard("b", "n9"), shard("c", "n1")]
    everywhere = [*nodes.values(), near]
    assert nearest(disks, nodes[NodeId("n1")], everywhere) == disks[2]
    assert nearest(disks[:2], nodes[NodeId("n1")], everywhere) == disks[1]
    assert nearest([], nodes[NodeId("n1")], everywhere) is None


def test_an_id_that_comes_back_as_another_shard_has_nothing_to_do_with_the_disk(world: World) -> None:
    world.storage.assign()
    world.connect()
    world.map.remove(ShardId("c0"))
    world.map.add_shard(ShardId("c0"), shard_type="cpu.small", pool=WEB, node=NodeId("n1"), nominal=SIZE)
    other = API.model_copy(update={"component": "other"})
    world.map.bind(other, ShardId("c0"))
    world.agents.told.clear()
    assert world.storage.admit(ShardId("c0"), NodeId("n2")) is None
    world.storage.hand_over(ShardId("c0"))
    assert world.agents.told == []


def test_a_disk_that_gives_way_while_it_is_assigned_is_not_kept_as_lost(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was ever on it, so its name waits for another."""
    search, given_up = world.map.search, False

    def looked(**wanted: Any) -> tuple[Shard, ...]:
        nonlocal given_up
        found = search(**wanted)
        if not given_up and wanted:
            given_up = True
            world.map.set_state(ShardId("d0"), ShardState.RELEASED)
        return found

    monkeypatch.setattr(world.map, "search", looked)
    made = world.storage.assign()
    assert given_up
    assert [one.storage for one in made] == ["d1"]
    assert world.storage.in_use() == {"d1"}


def test_a_replica_that_is_given_up_while_disks_are_assigned_gets_none(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    bindings = world.map.bindings

    def read() -> tuple[Binding, ...]:
        found = bindings()
        world.map.remove(ShardId("c0"))
        return found

    monkeypatch.setattr(world.map, "bindings", read)
    assert [one.component.index for one in world.storage.assign()] == [1]
