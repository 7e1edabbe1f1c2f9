from typing import Any

import pytest

from engine.errors import ConcurrentUpdate, InsufficientCapacity, UnknownName
from engine.model.capacity import Resources
from engine.model.ids import OrderId, PoolId, ShardId
from engine.model.market import PurchaseOption
from engine.model.money import usd
from engine.model.move import MovePhase, MoveProgress, MoveUnderWay
from engine.model.order import Order, OrderState, Resized, Size
from engine.model.placement import Node, NodeState, Shard, ShardState
from engine.orders.sizing import at_most, being_resized, bound_shard, require_alone, size
from tests.small_orders import API, AWS, NOW, a_request, resize_order

HAS = Resources(vcpus=1, memory_gib=2, network_mbps=100)


def node(state: NodeState = NodeState.JOINED, **resources: float) -> Node:
    room = {"vcpus": 4.0, "memory_gib": 8.0, "network_mbps": 1000.0} | resources
    return Node(
        id=AWS, cell="aws/1/us", zone="a", instance_type="t", option=PurchaseOption.ON_DEMAND,
        hourly_price=usd("0.05"), resources=Resources(**room), state=state,
    )  # fmt: skip


def shard(name: str, state: ShardState = ShardState.BOUND) -> Shard:
    return Shard(
        id=ShardId(name), shard_type="cpu.small", pool=PoolId("web"), node=AWS, state=state, nominal=HAS,
        address="10.9.0.1", mac="52:54:00:09:00:01",
    )  # fmt: skip


def sized(
    wanted: Size, *beside: Shard, on: Node | None = None, state: ShardState = ShardState.BOUND, **more: Any
) -> Resized:
    mine = shard("s0", state)
    return size(resize_order(wanted), mine, HAS, on or node(), [mine, *beside], **more)


def test_what_is_not_named_stays() -> None:
    found = sized(Size(memory_gib=4.0))
    assert (found.before, found.after) == (HAS, HAS.model_copy(update={"memory_gib": 4.0}))
    assert found.displaced == ()


def test_as_few_spares_give_way_as_are_needed_and_none_for_what_shrinks() -> None:
    spares = [shard(name, ShardState.READY) for name in ("s1", "s2", "s3")]
    assert sized(Size(memory_gib=4.0), *spares).displaced == ("s1",)
    assert sized(Size(memory_gib=4.0), *spares, fixed=[ShardId("s1")]).displaced == ("s2",)
    assert sized(Size(memory_gib=8.0), *spares).displaced == ("s1", "s2", "s3")
    full = [shard(name) for name in ("s1", "s2", "s3", "s4", "s5")]
    assert sized(Size(memory_gib=1.0), *full).displaced == ()


@pytest.mark.parametrize("wanted", [Size(vcpus=4.0), Size(memory_gib=7.0), Size(network_mbps=1000.0)])
def test_bound_shards_do_not_give_way(wanted: Size) -> None:
    with pytest.raises(InsufficientCapacity, match="beside its other shards"):
        sized(wanted, shard("s1"))


@pytest.mark.parametrize(
    ("state", "at", "why"),
    [
        (ShardState.DRAINING, NodeState.JOINED, "it is draining"),
        (ShardState.BOUND, NodeState.DRAINING, "its node sw-aws is draining"),
        (ShardState.BOUND, NodeState.RECLAIMING, "is reclaiming"),
        (ShardState.BOUND, NodeState.EXPECTED, "is expected"),
    ],
)
def test_nothing_that_is_about_to_leave_grows(state: ShardState, at: NodeState, why: str) -> None:
    with pytest.raises(ConcurrentUpdate, match=why):
        sized(Size(vcpus=2.0), on=node(at), state=state)


def test_what_finds_no_place_may_become_smaller_where_it_is() -> None:
    for state in (NodeState.DRAINING, NodeState.RECLAIMING):
        assert sized(Size(vcpus=0.5), on=node(state)).after.vcpus == 0.5
    for state in (NodeState.EXPECTED, NodeState.LEAVING, NodeState.GONE):
        with pytest.raises(ConcurrentUpdate):
            sized(Size(vcpus=0.5), on=node(state))


def test_a_limit_is_given_where_the_node_says_nothing_of_it_and_lifted_again() -> None:
    assert sized(Size(storage_iops=400.0), shard("s1")).after.storage_iops == 400
    assert sized(Size(network_mbps=0.0), shard("s1")).after.network_mbps == 0


def test_where_there_is_no_room_the_whole_command_is_named() -> None:
    with pytest.raises(InsufficientCapacity) as told:
        sized(Size(memory_gib=7.0), shard("s1"))
    name = "shard://shop/web/api/0"
    assert f"move {name} --to NODE, then shardwright resize {name} --memory-gib 7" in told.value.next_step


def test_a_component_without_a_shard_is_unknown() -> None:
    with pytest.raises(UnknownName, match="no shard is bound to it"):
        bound_shard(API, [shard("s0")], [])


def ordered(name: str, **changes: Any) -> Order:
    return resize_order(Size(vcpus=0.5)).model_copy(update={"id": OrderId(name), **changes})


def test_one_resize_at_a_time_and_none_beside_a_move() -> None:
    first, second = ordered("order-1"), ordered("order-2")
    mine = ShardId("sw-aws-s0")
    require_alone(first, mine, [], [first, second])
    with pytest.raises(ConcurrentUpdate, match="order-1 resizes it"):
        require_alone(second, mine, [], [first, second])
    move = MoveUnderWay(progress=MoveProgress(request=a_request(), phase=MovePhase.PRECOPY, at=NOW), since=NOW)
    with pytest.raises(ConcurrentUpdate, match="move-1 is under way"):
        require_alone(first, mine, [move], [first])
    require_alone(first, ShardId("another"), [move], [first])


def test_a_shard_is_being_resized_from_when_that_is_decided() -> None:
    resized = Resized(shard=ShardId("s0"), before=HAS, after=HAS)
    taken = ordered("order-1", state=OrderState.TAKEN, resized=resized)
    assert being_resized([taken], {ShardId("s0")})
    assert not being_resized([taken], {ShardId("s1")})
    assert not being_resized([ordered("order-1")], {ShardId("s0")})


def test_the_larger_of_both_counts_meanwhile() -> None:
    other = Resources(vcpus=0.5, memory_gib=4, storage_iops=10)
    assert at_most(HAS, other) == Resources(vcpus=1, memory_gib=4, storage_iops=10, network_mbps=100)


@pytest.mark.parametrize(
    ("wanted", "options"),
    [
        (Size(storage_iops=1_234_567.0), "--iops 1234567"),
        (Size(memory_gib=2.00390625), "--memory-gib 2.00390625"),
        (Size(storage_iops=0.0, network_mbps=0.0), "--iops 0 --network-mbps 0"),
    ],
)
def test_an_order_reads_to_the_last_digit(wanted: Size, options: str) -> None:
    assert str(wanted) == options


def test_an_order_reads_as_the_command_that_gives_it() -> None:
    wanted = Size(vcpus=0.5, memory_gib=2.5, storage_iops=300.0, network_mbps=10.0)
    options = "--vcpus 0.5 --memory-gib 2.5 --iops 300 --network-mbps 10"
    assert str(resize_order(wanted)) == f"resize shard://shop/web/api/0 {options}"
