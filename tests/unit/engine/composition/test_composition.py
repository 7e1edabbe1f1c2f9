"""What a round does for composites, on a real store; agents and fleet only take note."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from engine.clock import ManualClock
from engine.composition.binding import Rules
from engine.composition.composition import Composition
from engine.composition.leaving import Drains
from engine.composition.storage import Storage
from engine.errors import ProviderUnavailable
from engine.events import Event
from engine.model.capacity import Resources, ShardType
from engine.model.composite import MOST_PARTS, CompositeRule, HealthState
from engine.model.ids import NodeId, PoolId, ShardId
from engine.model.placement import Binding, ComponentName, NodeState, Shard, ShardState
from engine.model.plan import Plan, PoolParts
from engine.store.attachments import Attachments
from engine.store.database import Database, metadata
from engine.store.shard_health import HealthBook, Reported
from engine.store.shard_map import ShardMap
from tests.unit.engine.composition.cases import API, NOW, WEB, replica
from tests.unit.engine.composition.test_storage import Agents, World
from tests.unit.engine.planner.cases import certain, plan_of, pool

DISKS = pool("disks", ShardType(name="disk.small", resources=Resources(vcpus=0.1, memory_gib=0.1), disk_gib=0.0625))
RULES: Rules = {API: CompositeRule(replicas=2, replace_after=timedelta(minutes=1), storage=PoolId("disks"))}


class Fleet:
    def __init__(self, shard_map: ShardMap) -> None:
        self._map = shard_map
        self.silent: set[str] = set()

    def release(self, shard: Shard) -> None:
        self._map.set_state(shard.id, ShardState.RELEASED, expected_epoch=shard.epoch)
        if shard.node in self.silent:
            raise ProviderUnavailable(f"node {shard.node} does not answer")
        self._map.remove(shard.id)


class Post:
    """World's two replicas and disks, and a third replica without a disk rule of its own."""

    def __init__(self, database: Database, rules: Rules) -> None:
        self.clock = ManualClock(NOW)
        self.world = World(database)
        self.map, self.fleet = self.world.map, Fleet(self.world.map)
        self.book = HealthBook(database, self.clock)
        self.said: list[str] = []
        self.agents = Agents()
        self.composition = Composition(
            pools=(pool("web"), DISKS), components={WEB: (API,)}, rules=rules, shard_map=self.map, health=self.book,
            drains=Drains(self.map, rules, self.clock, self.fleet),
            storage=Storage(self.map, Attachments(database), cast(Any, self.agents), rules), fleet=self.fleet,
            clock=self.clock, observe=self._listen, listening_since=NOW,
        )  # fmt: skip

    def _listen(self, event: Event) -> None:
        self.said.append(event.text)

    def report(self, **states: HealthState) -> None:
        for name, state in states.items():
            node = self.map.get(ShardId(name)).node
            self.book.report(node, [Reported(shard=ShardId(name), epoch=1, state=state, reason="port 7000 is closed")])

    def become(self, shard_type: str) -> None:
        """The pool's type is another one from now on."""
        of = pool("web", ShardType(name=shard_type, resources=Resources(vcpus=2, memory_gib=2)))
        self.composition = replace(self.composition, pools=(of, DISKS))

    def bind(self, wanted: int, parts: tuple[PoolParts, ...] = (), leaving: tuple[NodeId, ...] = ()) -> list[str]:
        changes = {"parts": parts, "leaving": leaving}
        plan = cast(Plan, plan_of([certain(pool("web"), 0)], [])).model_copy(update=changes)
        return self.composition.bind({WEB: wanted}, plan)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'store.db'}")
    metadata.create_all(database.engine)
    yield database
    database.dispose()


def add(post: Post, name: str, node: str, shard_type: str = "cpu.small") -> None:
    post.map.add_shard(
        ShardId(name), shard_type=shard_type, pool=WEB, node=NodeId(node), nominal=Resources(vcpus=1, memory_gib=1),
        state=ShardState.READY,
    )  # fmt: skip


def test_targets_are_lifted_to_the_replicas_and_storage_gets_its_own(database: Database) -> None:
    composition = Post(database, RULES).composition
    web, disks = composition.with_replicas([certain(pool("web"), 1)])
    assert (web.desired, disks.desired, disks.pool.id, len(disks.demand_paths[0])) == (2, 2, "disks", 1)
    assert composition.with_replicas([]) == ()


def test_each_replica_is_bound_and_attached_and_what_cannot_be_is_told(database: Database) -> None:
    post = Post(database, RULES)
    post.agents.down.add("s1")
    assert len(post.bind(2)) == 2
    assert "shard://shop/web/api/0 keeps its data on d0" in post.said
    post.agents.down.clear()
    assert post.bind(2) == []
    assert "n1 attach c0 d0 2" in post.agents.told


def test_a_component_that_was_given_another_pool_moves_over_once_that_has_a_shard(database: Database) -> None:
    post = Post(database, {})
    later = replace(post.composition, components={PoolId("later"): (API,)})
    plan = cast(Plan, plan_of([certain(pool("later"), 0)], []))
    later.bind({PoolId("later"): 2}, plan)
    assert [one.shard for one in post.map.bindings()] == ["c0", "c1"]
    for name in ("l0", "l1"):
        post.map.add_shard(
            ShardId(name), shard_type="cpu.small", pool=PoolId("later"), node=NodeId("n1"),
            nominal=Resources(vcpus=1, memory_gib=1), state=ShardState.READY,
        )  # fmt: skip
    later.bind({PoolId("later"): 2}, plan)
    assert [one.shard for one in post.map.bindings()] == ["l0", "l1"]
    assert {post.map.get(ShardId(name)).state for name in ("c0", "c1")} == {ShardState.READY}


def test_a_component_with_data_never_has_more_replicas_than_it_says(database: Database) -> None:
    post = Post(database, RULES)
    add(post, "c2", "n1")
    post.bind(3)
    assert len(post.map.bindings()) == 2


def test_a_replica_that_is_ill_for_too_long_is_given_up_and_its_name_goes_to_another(database: Database) -> None:
    rules: Rules = {API: CompositeRule(replicas=3, replace_after=timedelta(minutes=1))}
    post = Post(database, rules)
    add(post, "c2", "n1")
    add(post, "spare", "n2")
    post.bind(3)
    well = HealthState.HEALTHY
    post.report(c0=HealthState.UNHEALTHY, c1=well, c2=well)
    post.clock.sleep(50)
    post.report(c0=HealthState.UNHEALTHY, c1=well, c2=well)
    post.composition.replace_unhealthy()
    assert len(post.map.bindings()) == 3
    post.clock.sleep(20)
    post.report(c0=HealthState.UNHEALTHY, c1=well, c2=well)
    post.composition.replace_unhealthy()
    assert "shard://shop/web/api/0: c0 has been unhealthy for too long and is replaced" in post.said
    post.bind(3)
    assert {one.component: one.shard for one in post.map.bindings()}[replica(0)] == "spare"
    post.composition.replace_unhealthy()
    assert len(post.map.bindings()) == 3


def test_a_silent_nodes_replica_moves_on_without_it_and_is_not_chosen_again(database: Database) -> None:
    rules: Rules = {API: CompositeRule(replicas=3, replace_after=timedelta(minutes=1))}
    post = Post(database, rules)
    add(post, "c2", "n1")
    post.bind(3)
    well = HealthState.HEALTHY
    post.report(c0=well, c1=well, c2=well)
    post.clock.sleep(120)
    post.report(c0=well, c2=well)
    assert post.composition.lost_nodes() == {"n2"}
    post.fleet.silent.add("n2")
    post.composition.replace_unhealthy()
    assert "c1 is given up later, or goes with its node: node n2 does not answer" in post.said
    post.bind(3)
    assert [one.shard for one in post.map.bindings()] == ["c0", "c2"]


PLAIN: Rules = {API: CompositeRule(replicas=2, drain=timedelta(minutes=1))}


def test_a_spare_on_a_node_that_is_left_is_not_bound(database: Database) -> None:
    post, n1 = Post(database, PLAIN), NodeId("n1")
    add(post, "spare", "n1")
    post.bind(3, leaving=(n1,))
    for state in (NodeState.DRAINING, NodeState.RECLAIMING):
        post.map.update_node(n1, state=state)
        post.bind(3)
    assert post.map.get(ShardId("spare")).state is ShardState.READY
    post.map.update_node(n1, state=NodeState.JOINED)
    post.bind(3)
    assert post.map.get(ShardId("spare")).state is ShardState.BOUND


def test_what_an_evacuation_drains_is_not_put_back_in_its_name(database: Database) -> None:
    post = Post(database, PLAIN)
    drains, n1 = post.composition.drains, NodeId("n1")
    drains.begin([replica(0)])
    post.map.update_node(n1, state=NodeState.RECLAIMING)
    post.bind(2)
    assert post.map.get(ShardId("c0")).state is ShardState.DRAINING
    post.map.update_node(n1, state=NodeState.JOINED)
    post.bind(2)
    assert post.map.get(ShardId("c0")).state is ShardState.BOUND


def test_shards_that_stand_for_one_are_bound_as_many_times(database: Database) -> None:
    rules: Rules = {API: CompositeRule(replicas=1, max_parts=4)}
    post = Post(database, rules)
    add(post, "c2", "n1")
    post.bind(1, (PoolParts(pool=WEB, parts=3, reason="met by 3 parts"),))
    assert len(post.map.bindings()) == 3
    assert post.composition.max_parts(WEB) == 4
    parts = {f"cpu.small.p{parts}" for parts in range(2, MOST_PARTS + 1)}
    assert set(post.composition.shard_types()) == {"cpu.small", "disk.small", *parts}
    small = ShardType(name="cpu.tiny", resources=Resources(vcpus=1, memory_gib=0.2))
    assert Composition(
        pools=(pool("web", small),), components={WEB: (API,)}, rules=rules, shard_map=post.map, health=post.book,
        drains=post.composition.drains, storage=post.composition.storage, fleet=post.fleet, clock=post.clock,
        observe=lambda _event: None, listening_since=NOW,
    ).max_parts(WEB) == 2  # fmt: skip


def test_offers_for_parts_that_are_there_are_asked_for_though_none_may_be_made_any_more(database: Database) -> None:
    post = Post(database, PLAIN)
    (whole,) = post.composition.wanted([certain(pool("web"), 2)])
    assert (whole.slice.vcpus, whole.count) == (1, 2)
    add(post, "part", "n1", "cpu.small.p4")
    (quarter,) = post.composition.wanted([certain(pool("web"), 2)])
    assert (quarter.slice.vcpus, quarter.count) == (0.25, 8)


def test_replicas_on_shards_of_a_former_type_give_way_to_ready_ones_of_the_new(database: Database) -> None:
    post = Post(database, PLAIN)
    post.bind(2)
    post.become("cpu.large")
    post.bind(2)
    assert {one.shard for one in post.map.bindings()} == {"c0", "c1"}, "nothing takes over yet"
    add(post, "l0", "n1", "cpu.large")
    post.bind(2)
    assert {one.component: one.shard for one in post.map.bindings()} == {replica(0): "l0", replica(1): "c1"}
    assert "shard://shop/web/api/0: c0 is not of its pool's type any more and is replaced" in post.said
    add(post, "l1", "n2", "cpu.large")
    add(post, "l2", "n2", "cpu.large")
    post.bind(3)
    assert {one.shard for one in post.map.bindings()} == {"l0", "l1", "l2"}


def test_a_replica_that_nothing_serves_yet_comes_before_one_of_a_former_type(database: Database) -> None:
    post = Post(database, PLAIN)
    post.bind(2)
    post.become("cpu.large")
    add(post, "l0", "n1", "cpu.large")
    post.bind(3)
    assert {one.shard for one in post.map.bindings()} == {"c0", "c1", "l0"}


def test_disks_are_made_for_storage_shards_alone(database: Database) -> None:
    post = Post(database, RULES)
    disk, guest = post.map.get(ShardId("d0")), post.map.get(ShardId("c0"))
    assert post.composition.create_disks([disk, guest]) == []
    assert post.agents.told == ["s1 create d0 64"]


def test_a_replica_whose_node_retires_beside_the_round_is_bound_by_the_next(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    post = Post(database, {API: CompositeRule(replicas=3)})
    add(post, "c2", "n1")
    bind = post.map.bind

    def retired(component: ComponentName, shard: ShardId) -> Binding:
        post.map.update_node(NodeId("n1"), state=NodeState.LEAVING)
        return bind(component, shard)

    monkeypatch.setattr(post.map, "bind", retired)
    assert post.bind(3) == []
    assert any("waits: shard c2 cannot be used on node n1" in text for text in post.said)
    assert "c2" not in {one.shard for one in post.map.bindings()}
    post.map.update_node(NodeId("n1"), state=NodeState.JOINED)
    monkeypatch.setattr(post.map, "bind", bind)
    post.bind(3)
    assert "c2" in {one.shard for one in post.map.bindings()}


@pytest.mark.parametrize("gone", [True, False])
def test_a_spare_that_gives_way_beside_the_round_ends_no_round(
    database: Database, monkeypatch: pytest.MonkeyPatch, gone: bool
) -> None:
    post = Post(database, {API: CompositeRule(replicas=3)})
    add(post, "c2", "n1")
    bind = post.map.bind

    def displaced(component: ComponentName, shard: ShardId) -> Binding:
        post.map.set_state(shard, ShardState.RELEASED)
        if gone:
            post.map.remove(shard)
        return bind(component, shard)

    with monkeypatch.context() as beside:
        beside.setattr(post.map, "bind", displaced)
        assert post.bind(3) == []
    assert any(text.startswith("shard://shop/web/api/2 waits: shard c2 is") for text in post.said)
    add(post, "c3", "n1")
    post.bind(3)
    assert [one.shard for one in post.map.bindings()] == ["c0", "c1", "c3"]


@pytest.mark.parametrize("moved", [True, False])
def test_an_ill_replica_that_is_given_up_or_moves_beside_the_round_ends_no_round(
    database: Database, monkeypatch: pytest.MonkeyPatch, moved: bool
) -> None:
    post = Post(database, {API: CompositeRule(replicas=2, replace_after=timedelta(minutes=1))})
    for seconds in (50, 20, 0):
        post.report(c0=HealthState.UNHEALTHY, c1=HealthState.HEALTHY)
        post.clock.sleep(seconds)
    get = post.map.get

    def late(shard: ShardId) -> Shard:
        found = get(shard)
        if moved:
            post.map.move(shard, expected_epoch=1, to_node=NodeId("n2"))
            return found
        post.map.remove(shard)
        return get(shard)

    monkeypatch.setattr(post.map, "get", late)
    post.composition.replace_unhealthy()
    assert {shard.id: shard.state for shard in post.map.search(pool=WEB)}.get(ShardId("c0")) is (
        ShardState.READY if moved else None
    )
