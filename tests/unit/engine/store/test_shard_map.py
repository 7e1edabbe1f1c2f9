from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from threading import Barrier

import pytest

from engine.clock import ManualClock
from engine.errors import ConcurrentUpdate, StaleEpoch, UnknownName, UsageError
from engine.model.capacity import Resources
from engine.model.ids import CellId, MoveId, NodeId, PoolId, ShardId
from engine.model.market import PurchaseOption
from engine.model.money import usd
from engine.model.placement import BEYOND_ALL, ComponentName, Node, NodeState, Shard, ShardState
from engine.store.database import Database, metadata
from engine.store.shard_map import ShardMap
from engine.store.shard_tables import OVERLAY_ADDRESSES, TABLES, overlay_address, overlay_cursor

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
SMALL = Resources(vcpus=1, memory_gib=0.125, storage_iops=50, network_mbps=10)
WEB = ComponentName(namespace="acme", workload="shop", component="web", index=0)


def node(name: str, cell: str = "aws/123456789012/us-east-1") -> Node:
    return Node(
        id=NodeId(name), cell=CellId(cell), zone="a", instance_type="c7i.large", option=PurchaseOption.SPOT,
        hourly_price=usd("0.0371"), resources=Resources(vcpus=2, memory_gib=4),
    )  # fmt: skip


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'store.db'}")
    metadata.create_all(database.engine, tables=TABLES)
    yield database
    database.dispose()


@pytest.fixture
def shard_map(database: Database) -> ShardMap:
    shard_map = ShardMap(database, ManualClock(NOW))
    for name, cell in (("n1", "aws/1/us-east-1"), ("n2", "gcp/p/europe-west1"), ("n3", "aws/1/eu-west-1")):
        shard_map.put_node(node(name, cell))
    return shard_map


def add(shard_map: ShardMap, name: str, on: str = "n1", shard_type: str = "cpu.small") -> Shard:
    return shard_map.add_shard(
        ShardId(name), shard_type=shard_type, pool=PoolId("web"), node=NodeId(on), nominal=SMALL
    )  # fmt: skip


def test_a_node_comes_back_as_it_went_in(shard_map: ShardMap) -> None:
    wanted = node("n9").model_copy(update={"hourly_price": usd(Decimal("0.00000000000000001"))})
    shard_map.put_node(wanted)
    assert shard_map.node(NodeId("n9")) == wanted
    shard_map.update_node(NodeId("n9"), state=NodeState.JOINED, agent_url="https://10.77.0.9:7443")
    changed = shard_map.node(NodeId("n9"))
    assert changed.state is NodeState.JOINED
    assert changed.agent_url == "https://10.77.0.9:7443"
    assert changed.instance_id is None


def test_nodes_are_listed_by_cell_provider_and_state(shard_map: ShardMap) -> None:
    shard_map.update_node(NodeId("n3"), state=NodeState.GONE)
    assert [n.id for n in shard_map.nodes(provider="aws")] == ["n1", "n3"]
    assert [n.id for n in shard_map.nodes(cell=CellId("gcp/p/europe-west1"))] == ["n2"]
    assert [n.id for n in shard_map.nodes(states=[NodeState.EXPECTED])] == ["n1", "n2"]


def test_a_node_with_shards_cannot_be_removed_and_an_absent_one_is_gone_already(shard_map: ShardMap) -> None:
    add(shard_map, "s1")
    with pytest.raises(UsageError, match="still holds shards"):
        shard_map.remove_node(NodeId("n1"))
    shard_map.remove(ShardId("s1"))
    shard_map.remove_node(NodeId("n1"))
    shard_map.remove_node(NodeId("n1"))
    with pytest.raises(UnknownName):
        shard_map.node(NodeId("n1"))


def test_adding_a_shard_twice_is_one_shard(shard_map: ShardMap) -> None:
    first = add(shard_map, "s1")
    assert first.epoch == 1
    assert add(shard_map, "s1") == first
    assert shard_map.get(ShardId("s1")) == first
    with pytest.raises(UsageError, match=r"exists as cpu\.small"):
        add(shard_map, "s1", shard_type="cpu.large")
    with pytest.raises(UnknownName, match="node nowhere"):
        add(shard_map, "s2", on="nowhere")


def test_addresses_are_unique_and_reused_late(shard_map: ShardMap) -> None:
    shards = [add(shard_map, f"s{i}") for i in range(300)]
    assert len({s.address for s in shards}) == len({s.mac for s in shards}) == 300
    shard_map.remove(ShardId("s0"))
    assert add(shard_map, "late").address not in {s.address for s in shards}


def test_a_used_address_is_skipped_when_the_range_wraps(shard_map: ShardMap, database: Database) -> None:
    first, second = add(shard_map, "s1"), add(shard_map, "s2")
    with database.transaction() as connection:
        connection.execute(overlay_cursor.update().values(next=OVERLAY_ADDRESSES))
    third = add(shard_map, "s3")
    assert third.address not in {first.address, second.address}
    assert third.address == overlay_address(2)[0]


def test_overlay_addresses_stay_in_their_range() -> None:
    assert overlay_address(0) == ("10.9.1.1", "52:54:00:09:01:01")
    assert overlay_address(OVERLAY_ADDRESSES - 1) == ("10.9.254.254", "52:54:00:09:fe:fe")


def test_a_move_raises_the_epoch_by_one_and_keeps_address_and_mac(shard_map: ShardMap) -> None:
    before = add(shard_map, "s1")
    after = shard_map.move(before.id, expected_epoch=1, to_node=NodeId("n2"))
    assert (after.epoch, after.node) == (2, "n2")
    assert (after.address, after.mac) == (before.address, before.mac)
    assert shard_map.get(before.id) == after


def test_a_stale_move_is_refused_and_changes_nothing(shard_map: ShardMap) -> None:
    shard = add(shard_map, "s1")
    moved = shard_map.move(shard.id, expected_epoch=1, to_node=NodeId("n2"))
    for epoch in (0, 1, 3):
        with pytest.raises(StaleEpoch, match="epoch 2"):
            shard_map.move(shard.id, expected_epoch=epoch, to_node=NodeId("n3"))
    assert shard_map.get(shard.id) == moved


def test_a_repeated_move_finds_its_own_success_only(shard_map: ShardMap) -> None:
    shard, mine, other = add(shard_map, "s1"), MoveId("m1"), MoveId("m2")
    first = shard_map.move(shard.id, expected_epoch=1, to_node=NodeId("n2"), move_id=mine)
    assert shard_map.move(shard.id, expected_epoch=1, to_node=NodeId("n2"), move_id=mine) == first
    with pytest.raises(StaleEpoch):
        shard_map.move(shard.id, expected_epoch=1, to_node=NodeId("n2"), move_id=other)
    with pytest.raises(StaleEpoch):
        shard_map.move(shard.id, expected_epoch=1, to_node=NodeId("n2"))
    shard_map.move(shard.id, expected_epoch=2, to_node=NodeId("n1"), move_id=other)
    with pytest.raises(StaleEpoch):
        shard_map.move(shard.id, expected_epoch=1, to_node=NodeId("n2"), move_id=mine)


def test_a_move_needs_a_known_shard_and_node(shard_map: ShardMap) -> None:
    with pytest.raises(UnknownName, match="shard s9"):
        shard_map.move(ShardId("s9"), expected_epoch=1, to_node=NodeId("n2"))
    shard = add(shard_map, "s1")
    with pytest.raises(UnknownName, match="node n9"):
        shard_map.move(shard.id, expected_epoch=1, to_node=NodeId("n9"))
    shard_map.set_state(shard.id, ShardState.RELEASED)
    with pytest.raises(StaleEpoch, match="released"):
        shard_map.move(shard.id, expected_epoch=1, to_node=NodeId("n2"))


def test_of_many_threads_with_one_epoch_one_wins(shard_map: ShardMap) -> None:
    shard, racers = add(shard_map, "s1"), 8
    start = Barrier(racers)

    def race(i: int) -> int:
        start.wait()
        wins = 0
        for epoch in range(1, 11):
            try:
                shard_map.move(shard.id, expected_epoch=epoch, to_node=NodeId(f"n{1 + i % 3}"))
                wins += 1
            except StaleEpoch:
                while shard_map.get(shard.id).epoch == epoch:
                    pass
        return wins

    with ThreadPoolExecutor(racers) as pool:
        wins = list(pool.map(race, range(racers)))
    assert sum(wins) == 10
    assert shard_map.get(shard.id).epoch == 11


def test_state_changes_are_guarded_by_the_epoch_and_released_is_final(shard_map: ShardMap) -> None:
    shard = add(shard_map, "s1")
    assert shard_map.set_state(shard.id, ShardState.READY, expected_epoch=1).state is ShardState.READY
    shard_map.move(shard.id, expected_epoch=1, to_node=NodeId("n2"))
    with pytest.raises(StaleEpoch):
        shard_map.set_state(shard.id, ShardState.DRAINING, expected_epoch=1)
    shard_map.set_state(shard.id, ShardState.RELEASED)
    shard_map.set_state(shard.id, ShardState.RELEASED)
    with pytest.raises(ConcurrentUpdate):
        shard_map.set_state(shard.id, ShardState.READY)


def test_measured_performance_is_kept(shard_map: ShardMap) -> None:
    shard = add(shard_map, "s1")
    measured = Resources(vcpus=0.93, memory_gib=0.125, storage_iops=48.7, network_mbps=9.46)
    assert shard_map.set_measured(shard.id, measured).measured == measured
    assert shard_map.get(shard.id).nominal == SMALL


def test_search_by_type_provider_region_state_node(shard_map: ShardMap) -> None:
    add(shard_map, "a", "n1")
    add(shard_map, "b", "n2")
    add(shard_map, "c", "n3", "mem.large")
    shard_map.set_state(ShardId("b"), ShardState.READY)

    def found(**filters: object) -> list[str]:
        return [s.id for s in shard_map.search(**filters)]  # type: ignore[arg-type]

    assert found() == ["a", "b", "c"]
    assert found(provider="aws") == ["a", "c"]
    assert found(provider="aws", region="eu-west-1") == ["c"]
    assert found(shard_type="cpu.small", state=ShardState.READY) == ["b"]
    assert found(node=NodeId("n1"), pool=PoolId("web")) == ["a"]
    assert found(provider="azure") == []


def test_binding_resolving_and_rebinding(shard_map: ShardMap) -> None:
    add(shard_map, "s1")
    add(shard_map, "s2", "n2")
    first = shard_map.bind(WEB, ShardId("s1"))
    assert shard_map.bind(WEB, ShardId("s1")) == first
    assert shard_map.resolve(WEB).id == "s1"
    assert shard_map.resolve(WEB).state is ShardState.BOUND
    shard_map.bind(WEB, ShardId("s2"))
    assert shard_map.resolve(WEB).id == "s2"
    assert shard_map.get(ShardId("s1")).state is ShardState.READY
    assert [b.shard for b in shard_map.bindings(namespace="acme")] == ["s2"]
    assert shard_map.bindings(shard=ShardId("s1")) == ()
    shard_map.unbind(WEB)
    shard_map.unbind(WEB)
    with pytest.raises(UnknownName, match="shard://acme/shop/web/0"):
        shard_map.resolve(WEB)


def test_a_drained_component_is_unbound_only_once_its_time_is_over(shard_map: ShardMap) -> None:
    add(shard_map, "s1")
    bound_at = shard_map.bind(WEB, ShardId("s1")).bound_at
    assert not shard_map.unbind(WEB, drained_by=bound_at)
    shard_map.drain(WEB, bound_at + timedelta(seconds=10))
    assert not shard_map.unbind(WEB, drained_by=bound_at + timedelta(seconds=9))
    assert shard_map.resolve(WEB).state is ShardState.DRAINING
    assert shard_map.unbind(WEB, drained_by=bound_at + timedelta(seconds=10))
    assert shard_map.get(ShardId("s1")).state is ShardState.READY
    assert not shard_map.unbind(WEB)


def test_a_shard_serves_one_component_and_not_while_it_leaves(shard_map: ShardMap) -> None:
    add(shard_map, "s1")
    add(shard_map, "s2")
    shard_map.bind(WEB, ShardId("s1"))
    with pytest.raises(UsageError, match="is bound to shard://acme/shop/web/0"):
        shard_map.bind(WEB.model_copy(update={"index": 1}), ShardId("s1"))
    shard_map.set_state(ShardId("s2"), ShardState.DRAINING)
    with pytest.raises(UsageError, match="draining"):
        shard_map.bind(WEB, ShardId("s2"))
    assert shard_map.resolve(WEB).id == "s1"


def test_the_name_follows_the_shard_when_it_moves(shard_map: ShardMap) -> None:
    shard = add(shard_map, "s1")
    shard_map.bind(WEB, shard.id)
    shard_map.move(shard.id, expected_epoch=1, to_node=NodeId("n2"))
    assert shard_map.resolve(WEB).node == "n2"
    assert shard_map.resolve(WEB).address == shard.address


def test_removing_a_shard_removes_its_binding(shard_map: ShardMap) -> None:
    add(shard_map, "s1")
    shard_map.bind(WEB, ShardId("s1"))
    shard_map.remove(ShardId("s1"))
    shard_map.remove(ShardId("s1"))
    assert shard_map.bindings() == ()
    assert shard_map.search() == ()


def test_a_shard_of_an_id_that_was_removed_begins_beyond_what_nodes_remember(shard_map: ShardMap) -> None:
    """Of its last move too, which speaks at ``BEYOND_ALL`` above the epoch that it began at."""
    add(shard_map, "s1")
    shard_map.move(ShardId("s1"), expected_epoch=1, to_node=NodeId("n1"))
    shard_map.remove(ShardId("s1"))
    assert add(shard_map, "s1").epoch == 2 + BEYOND_ALL + 1


def test_a_resized_shard_takes_what_it_has(shard_map: ShardMap) -> None:
    shard = add(shard_map, "s1")
    larger = SMALL.model_copy(update={"memory_gib": 8.0})
    assert shard_map.set_nominal(shard.id, larger).nominal == larger
    assert shard_map.get(shard.id) == shard.model_copy(update={"nominal": larger})
    with pytest.raises(UnknownName):
        shard_map.set_nominal(ShardId("none"), larger)


def test_a_size_is_recounted_only_where_it_is_as_it_was_read(shard_map: ShardMap) -> None:
    shard = add(shard_map, "s1")
    larger = SMALL.model_copy(update={"memory_gib": 8.0})
    assert shard_map.recount(shard, larger)
    assert shard_map.get(shard.id) == shard.model_copy(update={"nominal": larger})
    assert not shard_map.recount(shard, SMALL), "another size by now"
    seen = shard_map.get(shard.id)
    shard_map.move(shard.id, expected_epoch=1, to_node=shard.node)
    assert not shard_map.recount(seen, SMALL), "another epoch by now"
    shard_map.remove(shard.id)
    assert not shard_map.recount(seen, SMALL)


def test_a_node_leaves_once_only_spares_are_on_it_and_takes_nothing_then(shard_map: ShardMap) -> None:
    spare, bound = add(shard_map, "s1").id, add(shard_map, "s2", on="n2").id
    n1, n2 = NodeId("n1"), NodeId("n2")
    for node_id in (n1, n2):
        shard_map.update_node(node_id, state=NodeState.JOINED)
    assert not shard_map.retire(n1), "it takes shards"
    for node_id in (n1, n2):
        shard_map.update_node(node_id, state=NodeState.DRAINING)
    shard_map.bind(WEB, bound)
    assert not shard_map.retire(n2)
    assert shard_map.move(bound, expected_epoch=1, to_node=n1).node == n1
    assert not shard_map.retire(n1)
    assert shard_map.move(bound, expected_epoch=2, to_node=n2).epoch == 3
    for _ in range(2):
        assert shard_map.retire(n1)
    with pytest.raises(ConcurrentUpdate, match="leaving"):
        shard_map.move(bound, expected_epoch=3, to_node=n1)
    assert (shard_map.get(bound).node, shard_map.get(bound).epoch) == (n2, 3)
    with pytest.raises(ConcurrentUpdate, match="leaving"):
        shard_map.bind(WEB, spare)
    assert shard_map.resolve(WEB).id == bound, "the binding that was there stays"
    assert shard_map.move(spare, expected_epoch=1, to_node=n1).epoch == 2, "what is there may be kept there"


def test_a_node_does_not_leave_with_a_shard_that_has_just_come(store: Database) -> None:
    shard_map = ShardMap(store, ManualClock(NOW))
    for attempt in range(12):
        here, there = NodeId(f"a{attempt}"), NodeId(f"b{attempt}")
        for node_id in (here, there):
            shard_map.put_node(node(node_id))
        shard_id = add(shard_map, f"s{attempt}", on=here).id
        shard_map.set_state(shard_id, ShardState.BOUND)
        shard_map.update_node(there, state=NodeState.DRAINING)
        both = Barrier(2)

        def move(shard_id: ShardId = shard_id, there: NodeId = there, both: Barrier = both) -> bool:
            both.wait()
            try:
                return shard_map.move(shard_id, expected_epoch=1, to_node=there).node == there
            except ConcurrentUpdate:
                return False

        def retire(there: NodeId = there, both: Barrier = both) -> bool:
            both.wait()
            return shard_map.retire(there)

        with ThreadPoolExecutor(2) as pool:
            moved, left = (done.result() for done in (pool.submit(move), pool.submit(retire)))
        assert moved is not left
        assert shard_map.get(shard_id).node == (there if moved else here)


def test_a_shard_is_given_up_at_the_epoch_and_in_the_state_that_was_read(shard_map: ShardMap) -> None:
    shard = add(shard_map, "s1")
    shard_map.bind(WEB, shard.id)
    with pytest.raises(ConcurrentUpdate, match="is bound and cannot become released"):
        shard_map.set_state(shard.id, ShardState.RELEASED, only_from=[ShardState.HELD, ShardState.READY])
    shard_map.move(shard.id, expected_epoch=1, to_node=NodeId("n2"))
    with pytest.raises(StaleEpoch):
        shard_map.set_state(shard.id, ShardState.RELEASED, expected_epoch=1)
    shard_map.remove(shard.id, expected_epoch=1)
    assert shard_map.resolve(WEB).state is ShardState.BOUND
    shard_map.remove(shard.id, expected_epoch=2)
    assert (shard_map.search(), shard_map.bindings()) == ((), ())


def test_a_shard_moves_or_is_given_up(store: Database) -> None:
    """Never both, or the only good copy would be ended as a released one."""
    shard_map = ShardMap(store, ManualClock(NOW))
    for name in ("n1", "n2"):
        shard_map.put_node(node(name))
    for attempt in range(12):
        shard, both = add(shard_map, f"s{attempt}"), Barrier(2)

        def move(shard: Shard = shard, both: Barrier = both) -> bool:
            both.wait()
            try:
                return shard_map.move(shard.id, expected_epoch=1, to_node=NodeId("n2")).epoch == 2
            except StaleEpoch:
                return False

        def give_up(shard: Shard = shard, both: Barrier = both) -> bool:
            both.wait()
            try:
                return shard_map.set_state(shard.id, ShardState.RELEASED, expected_epoch=1).epoch == 1
            except StaleEpoch:
                return False

        with ThreadPoolExecutor(2) as pool:
            moved, given_up = (done.result() for done in (pool.submit(move), pool.submit(give_up)))
        assert moved is not given_up


def test_a_spare_is_bound_or_given_up(store: Database) -> None:
    shard_map = ShardMap(store, ManualClock(NOW))
    shard_map.put_node(node("n1"))
    for attempt in range(12):
        shard, both = add(shard_map, f"s{attempt}"), Barrier(2)
        name = WEB.model_copy(update={"index": attempt})

        def bind(shard: Shard = shard, both: Barrier = both, name: ComponentName = name) -> bool:
            both.wait()
            try:
                return shard_map.bind(name, shard.id).shard == shard.id
            except (ConcurrentUpdate, UsageError):
                return False

        def give_up(shard: Shard = shard, both: Barrier = both) -> bool:
            both.wait()
            try:
                shard_map.set_state(shard.id, ShardState.RELEASED, only_from=[ShardState.HELD])
            except ConcurrentUpdate:
                return False
            return True

        with ThreadPoolExecutor(2) as pool:
            bound, given_up = (done.result() for done in (pool.submit(bind), pool.submit(give_up)))
        assert bound is not given_up
        assert shard_map.get(shard.id).state is (ShardState.BOUND if bound else ShardState.RELEASED)
