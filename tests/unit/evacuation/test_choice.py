from datetime import UTC, datetime

from engine.evacuation.choice import plan_evacuation
from engine.model.capacity import Placement, Resources
from engine.model.ids import CellId, NodeId, PoolId, ShardId
from engine.model.market import PurchaseOption
from engine.model.money import usd
from engine.model.placement import Node, NodeState, Shard, ShardState
from engine.model.plan import MoveCause

SMALL = Resources(vcpus=1, memory_gib=1)


def node(name: str, provider: str, *, region: str = "r1", vcpus: float = 2, price: str = "0.1") -> Node:
    return Node(
        id=NodeId(name),
        cell=CellId(f"{provider}/account/{region}"),
        zone="z",
        instance_type="t",
        option=PurchaseOption.SPOT,
        hourly_price=usd(price),
        resources=Resources(vcpus=vcpus, memory_gib=8),
        state=NodeState.JOINED,
    )


def shard(name: str, at: str, state: ShardState = ShardState.BOUND) -> Shard:
    return Shard(
        id=ShardId(name),
        shard_type="cpu.small",
        pool=PoolId("web"),
        node=NodeId(at),
        state=state,
        nominal=SMALL,
        address="10.9.0.1",
        mac="52:54:00:00:00:01",
    )


def evacuate(nodes: list[Node], shards: list[Shard], placement: Placement | None = None):
    deadline = datetime(2026, 1, 1, tzinfo=UTC)
    placements = {} if placement is None else {PoolId("web"): placement}
    return plan_evacuation(
        NodeId("old"), nodes, shards, placements, cause=MoveCause.RECLAIM, deadline=deadline, attempt="1"
    )


def test_another_provider_is_preferred_over_a_cheaper_node_nearby() -> None:
    nodes = [node("old", "aws"), node("near", "aws", price="0.01"), node("far", "gcp", price="0.5")]
    result = evacuate(nodes, [shard("s1", "old")])
    assert [(move.shard, move.destination) for move in result.moves] == [("s1", "far")]
    assert result.moves[0].deadline is not None


def test_a_spare_gives_way_where_there_is_no_free_room() -> None:
    nodes = [node("old", "aws"), node("far", "gcp", vcpus=1)]
    result = evacuate(nodes, [shard("s1", "old"), shard("spare", "far", ShardState.READY)])
    assert result.displaced == ("spare",)
    assert [move.destination for move in result.moves] == ["far"]


def test_room_is_not_given_out_twice() -> None:
    nodes = [node("old", "aws"), node("far", "gcp", vcpus=1)]
    result = evacuate(nodes, [shard("s1", "old"), shard("s2", "old")])
    assert [move.shard for move in result.moves] == ["s1"]
    assert result.stranded == ("s2",)


def test_the_pools_placement_is_obeyed_and_bound_shards_never_give_way() -> None:
    nodes = [node("old", "aws"), node("far", "gcp", vcpus=1), node("other", "azure")]
    shards = [shard("s1", "old"), shard("busy", "far")]
    assert evacuate(nodes, shards, Placement(providers=("gcp",))).stranded == ("s1",)


def test_the_same_attempt_makes_the_same_moves() -> None:
    nodes = [node("old", "aws"), node("far", "gcp"), node("other", "azure")]
    shards = [shard("s1", "old"), shard("s2", "old")]
    assert evacuate(nodes, shards) == evacuate(nodes, list(reversed(shards)))


def test_a_node_that_could_not_be_left_in_time_comes_after_a_dearer_one() -> None:
    narrow = node("narrow", "gcp", vcpus=8, price="0.01")
    narrow = narrow.model_copy(update={"resources": narrow.resources.model_copy(update={"network_mbps": 50.0})})
    nodes = [node("old", "aws"), narrow, node("wide", "gcp", price="0.5")]
    assert [move.destination for move in evacuate(nodes, [shard("s1", "old")]).moves] == ["wide"]
    assert [move.destination for move in evacuate(nodes[:2], [shard("s1", "old")]).moves] == ["narrow"]
