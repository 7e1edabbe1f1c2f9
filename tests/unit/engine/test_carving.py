from datetime import UTC, datetime

from engine.carving import plan_carving
from engine.model.capacity import Resources
from engine.model.ids import CellId, NodeId, PoolId, ShardId
from engine.model.market import PurchaseOption
from engine.model.money import usd
from engine.model.placement import ComponentName, Node, Shard, ShardState
from engine.model.plan import PlannedNode, ShardSlot

WEB = PoolId("web")
API = ComponentName(namespace="shop", workload="web", component="api")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def slot(count: int, shard_type: str = "cpu.small") -> ShardSlot:
    return ShardSlot(pool=WEB, shard_type=shard_type, count=count)


def planned(name: str, count: int, *more: ShardSlot) -> PlannedNode:
    node = Node(
        id=NodeId(name),
        cell=CellId("aws/1/r"),
        zone="z",
        instance_type="t",
        option=PurchaseOption.SPOT,
        hourly_price=usd("0.1"),
        resources=Resources(vcpus=4, memory_gib=8),
    )
    slots = (slot(count),) if count else ()
    return PlannedNode(node=node, slots=(*slots, *more), quote=None, token="shard:t")


def shard(name: str, node: str, state: ShardState = ShardState.READY, shard_type: str = "cpu.small") -> Shard:
    return Shard(
        id=ShardId(name),
        shard_type=shard_type,
        pool=WEB,
        node=NodeId(node),
        state=state,
        nominal=Resources(vcpus=1, memory_gib=1),
        address="10.9.0.1",
        mac="52:54:00:00:00:01",
    )


def test_an_empty_node_is_filled_and_a_full_one_left_alone() -> None:
    result = plan_carving([planned("n1", 2)], [])
    assert [new.id for new in result.new] == ["n1-s0", "n1-s1"]
    again = plan_carving([planned("n1", 2)], [shard("n1-s0", "n1"), shard("n1-s1", "n1")])
    assert (again.new, again.surplus, again.unfinished) == ((), (), ())


def test_an_id_is_never_used_for_two_shards() -> None:
    moved_away = shard("n1-s0", "n2", ShardState.BOUND)
    released = shard("n1-s1", "n1", ShardState.RELEASED)
    assert [new.id for new in plan_carving([planned("n1", 1)], [moved_away, released]).new] == ["n1-s2"]


def test_only_unbound_shards_are_given_up() -> None:
    shards = [shard("a", "n1", ShardState.BOUND), shard("b", "n1", ShardState.BOUND), shard("c", "n1")]
    assert plan_carving([planned("n1", 1)], shards).surplus == ("c",)
    assert plan_carving([planned("n1", 0)], shards[:2]).surplus == ()


def test_an_interrupted_carving_is_taken_up_again() -> None:
    result = plan_carving([planned("n1", 1)], [shard("n1-s0", "n1", ShardState.HELD)])
    assert (result.new, result.unfinished) == ((), ("n1-s0",))


def test_slots_of_one_pool_with_different_types_are_filled_each() -> None:
    both = planned("n1", 1, slot(2, "cpu.large"), slot(1, "cpu.large"))
    result = plan_carving([both], [shard("a", "n1")])
    assert [(new.pool, new.shard_type) for new in result.new] == [(WEB, "cpu.large")] * 3
    assert result.surplus == ()


def test_a_spare_of_another_type_is_none_of_those_that_are_planned() -> None:
    shards = [shard("a", "n1", ShardState.BOUND, "cpu.old"), shard("b", "n1", shard_type="cpu.old")]
    result = plan_carving([planned("n1", 1)], shards)
    assert [new.shard_type for new in result.new] == ["cpu.small"]
    assert result.surplus == ("b",)
