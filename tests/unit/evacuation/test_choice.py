from datetime import UTC, datetime

import pytest

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


def test_a_limit_is_no_reason_to_stay_where_nodes_say_nothing_of_it() -> None:
    limited = SMALL.model_copy(update={"storage_iops": 400.0, "network_mbps": 50.0})
    mine = shard("s1", "old").model_copy(update={"nominal": limited})
    assert not evacuate([node("old", "aws"), node("far", "gcp")], [mine]).stranded
    taken = [mine, shard("spare", "far", ShardState.READY)]
    assert evacuate([node("old", "aws"), node("far", "gcp", vcpus=1)], taken).displaced == ("spare",)
    known = node("far", "gcp")
    known = known.model_copy(update={"resources": known.resources.model_copy(update={"storage_iops": 300.0})})
    assert evacuate([node("old", "aws"), known], [mine]).stranded == ("s1",)


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


def test_the_most_important_leave_first_and_of_those_the_smallest() -> None:
    """Within one rank most are out when the time is up; a pool that nobody has ranked waits."""
    nodes = [node("old", "aws"), node("far", "gcp", vcpus=9)]

    def one(name: str, pool: str, memory: float) -> Shard:
        nominal = Resources(vcpus=1, memory_gib=memory)
        return shard(name, "old").model_copy(update={"pool": PoolId(pool), "nominal": nominal})

    shards = [one("a", "bronze", 0.5), one("b", "gold", 2), one("c", "unknown", 0.1), one("d", "gold", 1)]
    shards.append(one("e", "gold", 1))
    result = plan_evacuation(
        NodeId("old"), nodes, shards, {}, cause=MoveCause.RECLAIM, deadline=None, attempt="1",
        ranks={PoolId("gold"): 0, PoolId("bronze"): 1},
    )  # fmt: skip
    assert [move.shard for move in result.moves] == ["d", "e", "b", "a", "c"]


def test_where_not_all_find_a_place_the_most_important_do() -> None:
    nodes = [node("old", "aws"), node("far", "gcp", vcpus=1)]
    shards = [shard("a", "old"), shard("b", "old").model_copy(update={"pool": PoolId("gold")})]
    result = plan_evacuation(
        NodeId("old"), nodes, shards, {}, cause=MoveCause.RECLAIM, deadline=None, attempt="1", ranks={PoolId("gold"): 0}
    )
    assert ([move.shard for move in result.moves], result.stranded) == (["b"], ("a",))


@pytest.mark.parametrize(("memory_gib", "displaced"), [(1, ("a",)), (4, ("a",)), (8, ()), (6, ("b",))])
def test_a_shard_that_was_resized_needs_a_spare_whose_place_is_large_enough(
    memory_gib: float, displaced: tuple[str, ...]
) -> None:
    nodes = [node("old", "aws"), node("far", "gcp", vcpus=3)]
    mine = shard("s1", "old").model_copy(update={"nominal": Resources(vcpus=1, memory_gib=memory_gib)})
    spares = [shard("a", "far", ShardState.READY), shard("b", "far", ShardState.READY), shard("busy", "far")]
    if memory_gib == 6:
        spares[1] = spares[1].model_copy(update={"nominal": Resources(vcpus=1, memory_gib=3)})
    found = evacuate(nodes, [mine, *spares])
    assert found.displaced == displaced
    assert found.stranded == (() if displaced else ("s1",))
