"""Evacuations on the world of tests.evacuation_world."""

import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from engine.durable import durable_workflows
from engine.errors import NotGivenUp, ProviderUnavailable
from engine.evacuation import workflow
from engine.model.ids import ShardId
from engine.model.market import ReclaimNotice
from engine.model.move import MovePhase, MoveProgress, MoveReport, MoveRequest, MoveUnderWay
from engine.model.placement import NodeState, Shard, ShardState
from tests.evacuation_world import NOTICE, Evacuated, World
from tests.small_orders import API, AWS, AZURE, GCP, NOW, SECOND, a_report, a_request


def test_a_silent_spare_does_not_end_the_evacuation_and_one_that_is_drained_is_none(world: World) -> None:
    silent, drained, spare = world.add("silent", GCP), world.add("drained", AZURE), world.add("spare", AZURE)
    leaving = API.model_copy(update={"index": 2})
    world.shard_map.bind(leaving, drained)
    world.shard_map.drain(leaving, NOW)
    world.silent.add(GCP)
    workflow.make_room(world.shard_map, cast(Any, world), [silent, drained, ShardId("never-there"), spare])
    assert world.released == [spare]
    assert world.shard_map.get(drained).state is ShardState.DRAINING


def test_a_silent_node_is_asked_once_for_all_its_spares_and_keeps_no_other_waiting(world: World) -> None:
    spares = [world.add(f"{node}-{number}", node) for number in range(2) for node in (GCP, AZURE)]
    released, others_are_done = world.released, threading.Event()
    asked: list[ShardId] = []

    def release(shard: Shard) -> None:
        if shard.node == GCP:  # silent, and found to be so when all else is done
            asked.append(shard.id)
            assert others_are_done.wait(30)
            raise ProviderUnavailable(f"node {GCP} does not answer")
        world.fleet.release(shard)
        released.append(shard.id)
        if len(released) == 2:
            others_are_done.set()

    workflow.make_room(world.shard_map, cast(Any, SimpleNamespace(release=release)), spares)
    assert (asked, sorted(released)) == ([f"{GCP}-0"], [f"{AZURE}-0", f"{AZURE}-1"])
    assert world.shard_map.get(ShardId(f"{GCP}-1")).state is ShardState.READY


def test_a_spare_that_a_node_does_not_give_up_keeps_it_from_giving_up_no_other(world: World) -> None:
    spares, asked = [world.add(f"{GCP}-{number}", GCP) for number in range(2)], []

    def release(shard: Shard) -> None:
        asked.append(shard.id)
        raise NotGivenUp(f"node {GCP} still has {shard.id}")

    workflow.make_room(world.shard_map, cast(Any, SimpleNamespace(release=release)), spares)
    assert asked == spares


def test_a_spare_that_a_round_binds_at_this_moment_stays(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    spare, get, third = world.add("spare", AZURE), world.shard_map.get, API.model_copy(update={"index": 2})

    def read(shard: ShardId) -> Shard:
        found = get(shard)
        world.shard_map.bind(third, shard)
        return found

    with monkeypatch.context() as beside:
        beside.setattr(world.shard_map, "get", read)
        workflow.make_room(world.shard_map, cast(Any, world), [spare])
    assert (world.released, world.shard_map.resolve(third).state) == ([], ShardState.BOUND)


def _drained_by_another(world: World) -> None:
    progress = MoveProgress(request=a_request("move-sw-aws-s0-order-1"), phase=MovePhase.PRECOPY, at=NOW)
    world.others = MoveUnderWay(progress=progress, since=NOW)


def test_a_shard_that_is_being_moved_already_is_left_to_that_move(world: World, evacuated: Evacuated) -> None:
    _drained_by_another(world)
    assert len(evacuated()) == 1
    assert [request.shard for request in world.moved] == ["sw-aws-s1"]
    assert world.shard_map.get(ShardId("sw-aws-s0")).node == AZURE
    assert (world.released, world.shard_map.node(AWS).state) == ([], NodeState.GONE)


def test_what_another_move_has_left_on_the_node_is_moved_after_all(world: World, evacuated: Evacuated) -> None:
    _drained_by_another(world)
    world.others_end = MovePhase.ABORTED
    reports = evacuated()
    ids = [request.id for request in world.moved]
    assert ids == ["move-sw-aws-s1-reclaim-sw-aws", "move-sw-aws-s0-reclaim-2-sw-aws"]
    assert workflow.succeeded(reports)
    assert (len(reports), world.released) == (2, [])


def test_what_one_node_refuses_goes_to_another_at_once(world: World, evacuated: Evacuated) -> None:
    world.full = {AZURE}
    assert workflow.succeeded(evacuated())
    assert [node for _, node in world.tried] == [AZURE, AZURE, GCP, GCP]
    assert (world.released, world.clock.now()) == ([], NOW)


def test_room_that_the_evacuation_of_another_node_is_about_to_take_is_not_counted_on(
    world: World, evacuated: Evacuated
) -> None:
    """To the map that one's shard is still where it was."""
    other = world.add("other", GCP)
    request = a_request("move-other").model_copy(update={"shard": other, "source": GCP, "deadline": NOTICE.at})
    progress = MoveProgress(request=request, phase=MovePhase.REQUESTED, at=NOW)
    world.others, world.others_take = MoveUnderWay(progress=progress, since=NOW), timedelta(hours=1)
    assert workflow.succeeded(evacuated())
    assert world.tried == [(ShardId("sw-aws-s0"), AZURE), (ShardId("sw-aws-s1"), GCP)]


def test_a_place_that_comes_free_late_in_the_notice_is_taken(
    world: World, evacuated: Evacuated, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.full = {AZURE, GCP}
    run = world.run

    def later(requests: Sequence[MoveRequest]) -> tuple[MoveReport, ...]:
        if world.clock.now() >= NOW + timedelta(seconds=12):
            world.full = {AZURE}
        return run(requests)

    monkeypatch.setattr(world, "run", later)
    assert workflow.succeeded(evacuated())
    assert {world.shard_map.resolve(component).node for component in (API, SECOND)} == {GCP}
    assert world.released == []
    assert len(world.tried) < 20, "between attempts at what has failed before it pauses"


def test_what_finds_no_place_is_given_up_with_the_last_seconds_and_not_before(
    world: World, evacuated: Evacuated
) -> None:
    world.full = {AZURE, GCP}
    evacuated()
    assert world.clock.now() == NOW + timedelta(seconds=25)
    assert world.released == ["sw-aws-s0", "sw-aws-s1"]


def _falls_into_doubt(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    run = world.run

    def first_in_doubt(requests: Sequence[MoveRequest]) -> tuple[MoveReport, ...]:
        if not requests or not requests[0].id.endswith("-reclaim-sw-aws"):
            return run(requests)
        world.in_doubt.append(a_report(requests[0], MovePhase.IN_DOUBT, "nobody answers"))
        return (*world.in_doubt, a_report(requests[1], MovePhase.ABORTED, "no room"))

    monkeypatch.setattr(world, "run", first_in_doubt)


def test_a_move_in_doubt_is_waited_for_before_its_node_is_gone(
    world: World, evacuated: Evacuated, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other shard is not kept waiting meanwhile; the one in doubt moves once it turns out to be here."""
    _falls_into_doubt(world, monkeypatch)
    world.settles = timedelta(seconds=15)
    assert workflow.succeeded(evacuated())
    ids = [request.id for request in world.moved]
    assert ids == ["move-sw-aws-s1-reclaim-2-sw-aws", "move-sw-aws-s0-reclaim-3-sw-aws"]
    assert world.released == []
    assert timedelta(seconds=15) <= world.clock.now() - NOW < timedelta(seconds=16)


def test_a_move_that_stays_in_doubt_is_waited_for_as_long_as_the_notice_allows(
    world: World, evacuated: Evacuated, monkeypatch: pytest.MonkeyPatch
) -> None:
    _falls_into_doubt(world, monkeypatch)
    evacuated()
    assert timedelta(seconds=25) <= world.clock.now() - NOW < timedelta(seconds=26)
    assert world.released == ["sw-aws-s0"]


def test_a_shard_that_was_evacuated_once_is_moved_again(world: World, evacuated: Evacuated) -> None:
    evacuated()
    world.shard_map.update_node(AZURE, state=NodeState.RECLAIMING)
    notice = ReclaimNotice(node=AZURE, provider="azure", seen_at=NOW, at=world.clock.now() + timedelta(seconds=30))
    workflow.start_evacuation(notice).get_result()
    twice = [request.id for request in world.moved if request.shard == "sw-aws-s0"]
    assert twice == ["move-sw-aws-s0-reclaim-sw-aws", "move-sw-aws-s0-reclaim-sw-azure"]


def test_nobody_is_waited_for_beyond_the_notice(world: World, evacuated: Evacuated) -> None:
    _drained_by_another(world)
    world.others_take = timedelta(hours=1)
    evacuated()
    assert timedelta(seconds=25) <= world.clock.now() - NOW < timedelta(seconds=26)
    assert world.released == ["sw-aws-s0"]


def test_a_shard_that_gets_out_at_the_last_moment_is_not_given_up(
    world: World, evacuated: Evacuated, monkeypatch: pytest.MonkeyPatch
) -> None:
    _drained_by_another(world)
    world.others_take = timedelta(hours=1)
    search = world.shard_map.search

    def looked(**wanted: Any) -> tuple[Shard, ...]:
        """The other's move commits when everything that is still on the node has been read."""
        found, last = search(**wanted), ShardId("sw-aws-s0")
        if wanted and world.shard_map.node(AWS).state is NodeState.GONE and last in {shard.id for shard in found}:
            world.shard_map.move(last, expected_epoch=1, to_node=AZURE)
        return found

    monkeypatch.setattr(world.shard_map, "search", looked)
    evacuated()
    assert world.released == []
    assert [(one.node, one.state) for one in map(world.shard_map.resolve, (API, SECOND))] == [
        (AZURE, ShardState.BOUND)
    ] * 2


def test_a_disk_whose_user_changes_at_the_last_moment_is_given_up_all_the_same(
    world: World, evacuated: Evacuated, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its epoch is raised where it is, so another epoch alone does not say that it has got out."""
    disk, search = world.add("disk", AWS), world.shard_map.search

    def looked(**wanted: Any) -> tuple[Shard, ...]:
        found = search(**wanted)
        if world.shard_map.node(AWS).state is NodeState.GONE and [shard.epoch for shard in found] == [1]:
            world.shard_map.move(disk, expected_epoch=1, to_node=AWS)
        return found

    monkeypatch.setattr(world.shard_map, "search", looked)
    evacuated()
    assert world.released == [disk]


def test_a_drain_that_was_begun_for_longer_ends_with_the_notice(world: World, evacuated: Evacuated) -> None:
    world.shard_map.drain(API, NOW + timedelta(minutes=10))
    evacuated()
    assert world.clock.now() == NOW + timedelta(seconds=25)
    assert world.released == ["sw-aws-s0"]


def _soon() -> datetime:
    return datetime.now(UTC) + timedelta(days=1)


def test_the_evacuation_of_a_node_that_is_gone_is_forgotten_once_it_is_old(world: World, evacuated: Evacuated) -> None:
    evacuated()
    gone = {AWS}
    long_ago = datetime.now(UTC) - timedelta(days=1)
    assert workflow.forget_evacuations(gone.__contains__, before=long_ago, most=9) == 0
    assert workflow.forget_evacuations(lambda _node: False, before=_soon(), most=9) == 0
    assert workflow.evacuation_begun(AWS)
    assert workflow.forget_evacuations(gone.__contains__, before=_soon(), most=9) == 1
    assert not workflow.evacuation_begun(AWS)


def test_one_that_broke_off_is_forgotten_with_the_one_that_was_begun_anew_and_not_before(
    world: World, workflows: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its second one the first would be the last, and would be begun anew for a node that is gone."""

    def breaks(_requests: Sequence[MoveRequest]) -> tuple[MoveReport, ...]:
        raise OSError("the store is away")

    with durable_workflows("evacuations", workflows):
        with monkeypatch.context() as beside:
            beside.setattr(world, "run", breaks)
            with pytest.raises(OSError, match="away"):
                workflow.start_evacuation(NOTICE).get_result()
        assert workflow.forget_evacuations(lambda _node: True, before=_soon(), most=9) == 0
        assert list(workflow.broken_off()) == [AWS]
        workflow.start_again(AWS, NOTICE.at).get_result()
        assert workflow.forget_evacuations(lambda _node: True, before=_soon(), most=9) == 1
        assert (workflow.evacuation_begun(AWS), dict(workflow.broken_off())) == (False, {})
