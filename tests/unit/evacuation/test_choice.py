from datetime import UTC, datetime

import pytest

from engine.evacuation.choice import Evacuation, SeenMoves, plan_evacuation
from engine.model.capacity import Placement, Resources
from engine.model.ids import CellId, MoveId, NodeId, PoolId, ShardId
from engine.model.market import PurchaseOption
from engine.model.money import usd
from engine.model.move import MovePhase, MoveProgress, MoveReport, MoveRequest, MoveUnderWay
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


AT = datetime(2026, 1, 1, tzinfo=UTC)


def evacuate(
    nodes: list[Node], shards: list[Shard], placement: Placement | None = None, *, seen: SeenMoves | None = None
) -> Evacuation:
    placements = {} if placement is None else {PoolId("web"): placement}
    return plan_evacuation(
        NodeId("old"),
        nodes,
        shards,
        placements,
        cause=MoveCause.RECLAIM,
        deadline=AT,
        attempt="1",
        seen=seen or SeenMoves(),
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


def _move(of: str, source: str, destination: str, *, deadline: datetime | None = AT) -> MoveRequest:
    return MoveRequest(
        id=MoveId(f"move-{of}"), shard=ShardId(of), source=NodeId(source), destination=NodeId(destination),
        cause=MoveCause.RECLAIM, deadline=deadline,
    )  # fmt: skip


def _seen(request: MoveRequest, phase: MovePhase) -> SeenMoves:
    return SeenMoves.of(
        NodeId("old"), [MoveUnderWay(progress=MoveProgress(request=request, phase=phase, at=AT), since=AT)], []
    )


def _in_doubt(request: MoveRequest, phase: MovePhase = MovePhase.IN_DOUBT) -> SeenMoves:
    report = MoveReport(
        request=request, phase=phase, strategy="pre-copy", epoch_before=1, epoch_after=1, started_at=AT,
        finished_at=AT, downtime_seconds=0, memory_bytes=0, disk_bytes=0,
    )  # fmt: skip
    return SeenMoves.of(NodeId("old"), [], [report])


@pytest.mark.parametrize("phase", [MovePhase.REQUESTED, MovePhase.PRECOPY])
def test_room_that_another_evacuation_has_chosen_is_not_chosen_again(phase: MovePhase) -> None:
    nodes = [node("old", "aws"), node("too", "aws"), node("far", "gcp", vcpus=1), node("dear", "gcp", price="9")]
    shards = [shard("s1", "old"), shard("theirs", "too")]
    assert [move.destination for move in evacuate(nodes, shards).moves] == ["far"]
    seen = _seen(_move("theirs", "too", "far"), phase)
    assert [move.destination for move in evacuate(nodes, shards, seen=seen).moves] == ["dear"]
    there = [shards[0], shard("theirs", "far")]  # the map has it there already, and its move is not over
    wider = [*nodes[:2], node("far", "gcp", vcpus=2), nodes[3]]
    assert [move.destination for move in evacuate(wider, there, seen=seen).moves] == ["far"]


def test_a_move_that_has_time_and_has_not_begun_takes_no_room_from_an_evacuation() -> None:
    nodes = [node("old", "aws"), node("too", "aws", vcpus=1), node("far", "gcp", vcpus=1)]
    shards = [shard("s1", "old"), shard("theirs", "too")]
    request = _move("theirs", "too", "far", deadline=None)
    assert evacuate(nodes, shards, seen=_seen(request, MovePhase.REQUESTED)).stranded == ()
    assert evacuate(nodes, shards, seen=_seen(request, MovePhase.RESERVED)).stranded == ("s1",)


def test_a_spare_on_its_way_is_no_room_where_it_goes() -> None:
    nodes = [node("old", "aws"), node("too", "aws", vcpus=1), node("far", "gcp", vcpus=1)]
    shards = [shard("s1", "old"), shard("spare", "too", ShardState.READY)]
    found = evacuate(nodes, shards, seen=_seen(_move("spare", "too", "far"), MovePhase.PRECOPY))
    assert [move.destination for move in found.moves] == ["too"]


def test_a_shard_whose_move_has_begun_or_is_in_doubt_is_left_to_it_and_its_place_too() -> None:
    nodes = [node("old", "aws"), node("far", "gcp", vcpus=1)]
    shards = [shard("s1", "old"), shard("s2", "old")]
    mine = _move("s1", "old", "far")
    for seen in (_seen(mine, MovePhase.MIRRORING), _in_doubt(mine)):
        found = evacuate(nodes, shards, seen=seen)
        assert (found.moves, found.stranded) == ((), ("s2",))
    for seen in (_seen(mine, MovePhase.REQUESTED), _in_doubt(mine, MovePhase.ROLLING_BACK)):
        assert [move.shard for move in evacuate(nodes, shards, seen=seen).moves] == ["s1"]


def test_where_a_move_has_failed_comes_last_and_not_never() -> None:
    nodes = [node("old", "aws"), node("far", "gcp"), node("near", "aws", price="9")]
    failed = SeenMoves(failed=(_move("s1", "old", "far"),))
    assert [move.destination for move in evacuate(nodes, [shard("s1", "old")], seen=failed).moves] == ["near"]
    assert [move.destination for move in evacuate(nodes[:2], [shard("s1", "old")], seen=failed).moves] == ["far"]
    assert [move.destination for move in evacuate(nodes, [shard("s2", "old")], seen=failed).moves] == ["far"]
    both = SeenMoves(failed=(*failed.failed, *failed.failed, _move("s1", "old", "near")))
    assert [move.destination for move in evacuate(nodes, [shard("s1", "old")], seen=both).moves] == ["near"]
