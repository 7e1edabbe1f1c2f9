"""Evacuations on a real store, with moves that only change the map and a fleet whose nodes may be silent."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from dbos import DBOS

from engine import control_plane, durable
from engine.clock import ManualClock
from engine.composition.leaving import Drains
from engine.composition.storage import Storage
from engine.durable import durable_workflows
from engine.errors import NotGivenUp, ProviderUnavailable
from engine.evacuation import workflow
from engine.evacuation.again import MOST, BrokenEvacuations
from engine.events import Event, unseen
from engine.fleet.nodes import Fleet
from engine.model.ids import NodeId, PoolId, ShardId
from engine.model.market import ReclaimNotice
from engine.model.move import MovePhase, MoveProgress, MoveReport, MoveRequest, MoveUnderWay
from engine.model.placement import NodeState, Shard, ShardState
from engine.store.attachments import Attachments
from engine.store.database import Database
from engine.store.shard_map import ShardMap
from tests.small_orders import API, AWS, AZURE, GCP, NOW, SECOND, SMALL, a_report, a_request, filled

Evacuated = Callable[[], tuple[MoveReport, ...]]


@dataclass
class World:
    """Two components on the AWS node (tests.small_orders); stands in for the fleet."""

    clock: ManualClock
    shard_map: ShardMap
    silent: set[NodeId] = field(default_factory=set)
    released: list[ShardId] = field(default_factory=list)
    fleet: Fleet = field(init=False)
    moved: list[MoveRequest] = field(default_factory=list)
    others: MoveUnderWay | None = None
    """A move that somebody else has begun."""
    others_take: timedelta = timedelta(seconds=8)
    others_end: MovePhase = MovePhase.CLEANED
    given_back: list[NodeId] = field(default_factory=list)
    full: set[NodeId] = field(default_factory=set)
    """Nodes that refuse what the map has room for."""
    tried: list[tuple[ShardId, NodeId]] = field(default_factory=list)
    in_doubt: list[MoveReport] = field(default_factory=list)
    settles: timedelta = timedelta(hours=1)
    """When what is in doubt turns out to have stayed where it was."""

    def __post_init__(self) -> None:
        self.fleet = Fleet(
            shard_map=self.shard_map, tokens=cast(Any, None), agents=cast(Any, self._agent), clock=self.clock,
            settings_for=cast(Any, None),
        )  # fmt: skip

    def _agent(self, node: NodeId) -> Any:
        if node in self.silent:
            raise ProviderUnavailable(f"node {node} does not answer")
        return SimpleNamespace(release=lambda _shard, _epoch: None)

    def gone(self, node: NodeId) -> bool:
        return self.shard_map.node(node).state is NodeState.GONE

    def bought(self, node: NodeId) -> None:
        """Gives back what was paid for a node."""
        self.given_back.append(node)

    def under_way(self) -> tuple[MoveUnderWay, ...]:
        if self.others is not None and self.clock.now() >= NOW + self.others_take:
            request, self.others = self.others.progress.request, None
            if self.others_end is MovePhase.CLEANED:
                self.shard_map.move(request.shard, expected_epoch=1, to_node=request.destination, move_id=request.id)
        return () if self.others is None else (self.others,)

    def unsettled(self) -> tuple[MoveReport, ...]:
        if self.clock.now() >= NOW + self.settles:
            self.in_doubt.clear()
        return tuple(self.in_doubt)

    def run(self, requests: Sequence[MoveRequest]) -> tuple[MoveReport, ...]:
        """As engine.migration.several.Moves: what is in another move is refused by its node."""
        return tuple(self._move(request) for request in requests)

    def _move(self, request: MoveRequest) -> MoveReport:
        if any(one.progress.request.shard == request.shard for one in self.under_way()):
            return a_report(request, MovePhase.ABORTED, "in another move")
        self.tried.append((request.shard, request.destination))
        if request.destination in self.full:
            return a_report(request, MovePhase.ABORTED, "no room")
        self.moved.append(request)
        epoch = self.shard_map.get(request.shard).epoch
        self.shard_map.move(request.shard, expected_epoch=epoch, to_node=request.destination, move_id=request.id)
        return a_report(request)

    def release(self, shard: Shard) -> None:
        self.fleet.release(shard)
        self.released.append(shard.id)

    def add(self, name: str, node: NodeId) -> ShardId:
        return self.shard_map.add_shard(
            ShardId(name), shard_type="cpu.small", pool=PoolId("web"), node=node, nominal=SMALL,
            state=ShardState.READY,
        ).id  # fmt: skip


@pytest.fixture
def world(database: Database) -> World:
    clock = ManualClock(NOW)
    found = World(clock, filled(database, clock))
    for node in (AWS, GCP, AZURE):
        found.shard_map.update_node(node, agent_url=f"https://{node}:7070")
    return found


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


NOTICE = ReclaimNotice(node=AWS, provider="aws", seen_at=NOW, at=NOW + timedelta(seconds=30))


@pytest.fixture
def workflows(world: World, database: Database, tmp_path: Path) -> str:
    """Where the real DBOS keeps evacuations of this world; the AWS node is taken back."""
    storage = Storage(world.shard_map, Attachments(database), cast(Any, None), {})
    workflow.configure(
        workflow.EvacuationContext(
            shard_map=world.shard_map, fleet=cast(Any, world), moves=cast(Any, world), placements={},
            ranks={PoolId("web"): 0}, observe=unseen, give_back=world.bought,
            drains=Drains(world.shard_map, {}, world.clock, world), storage=storage,
            clock=world.clock, under_way=world.under_way, unsettled=world.unsettled,
        )
    )  # fmt: skip
    world.shard_map.update_node(AWS, state=NodeState.RECLAIMING)
    return f"sqlite:///{tmp_path / 'dbos.sqlite'}"


@pytest.fixture
def evacuated(workflows: str) -> Iterator[Evacuated]:
    """What the evacuation of the AWS node reports."""
    with durable_workflows("evacuations", workflows):
        yield lambda: workflow.start_evacuation(NOTICE).get_result()


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


def test_what_an_older_version_has_left_behind_is_begun_anew_and_once(
    world: World, workflows: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_off = threading.Event()

    def die(_requests: Sequence[MoveRequest]) -> tuple[MoveReport, ...]:
        cut_off.set()
        raise SystemExit  # as when its process is ended: no outcome is recorded

    with monkeypatch.context() as older:
        older.setenv("DBOS__APPVERSION", "0")
        older.setattr(durable, "WORKFLOW_VERSION", "0")
        older.setattr(world, "run", die)
        with durable_workflows("evacuations", workflows):
            workflow.start_evacuation(NOTICE)
            assert cut_off.wait(30)
    monkeypatch.setenv("DBOS__APPVERSION", durable.WORKFLOW_VERSION)
    with durable_workflows("evacuations", workflows):
        said: list[Event] = []
        broken = BrokenEvacuations(world.gone, world.clock, said.append)
        broken.begin_anew()
        broken.begin_anew()
        assert [event.text for event in said] == [
            "the evacuation of sw-aws broke off (an older version had begun it): it is begun anew"
        ]
        assert workflow.succeeded(workflow.start_evacuation(NOTICE).get_result())
    again = "reclaim-sw-aws-again-2"
    assert [request.id for request in world.moved] == [f"move-sw-aws-s0-{again}", f"move-sw-aws-s1-{again}"]
    assert world.shard_map.node(AWS).state is NodeState.GONE


def _breaks(world: World, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    left, run = times, world.run

    def locked(requests: Sequence[MoveRequest]) -> tuple[MoveReport, ...]:
        nonlocal left
        left -= 1
        if left >= 0:
            raise RuntimeError("the database is locked")
        return run(requests)

    monkeypatch.setattr(world, "run", locked)


def test_an_evacuation_that_ended_in_an_error_is_begun_anew_until_it_ends_well(
    world: World, evacuated: Evacuated, monkeypatch: pytest.MonkeyPatch
) -> None:
    _breaks(world, monkeypatch, 2)
    with pytest.raises(RuntimeError):
        evacuated()
    said: list[Event] = []
    broken = BrokenEvacuations(world.gone, world.clock, said.append)
    for _ in range(2):
        broken.begin_anew()
        with pytest.raises(RuntimeError):
            evacuated()
    world.clock.sleep(2)
    broken.begin_anew()
    assert workflow.succeeded(evacuated())
    world.clock.sleep(3600)
    broken.begin_anew()
    assert [event.text for event in said] == [
        "the evacuation of sw-aws broke off (the database is locked): it is begun anew"
    ] * 2
    assert [request.id for request in world.moved] == [f"move-sw-aws-s{n}-reclaim-sw-aws-again-3" for n in range(2)]
    assert world.shard_map.node(AWS).state is NodeState.GONE


def test_what_breaks_off_every_time_is_left_until_the_next_process(
    world: World, evacuated: Evacuated, monkeypatch: pytest.MonkeyPatch
) -> None:
    _breaks(world, monkeypatch, 1 << 30)
    with pytest.raises(RuntimeError):
        evacuated()

    def looks(times: int) -> list[str]:
        said: list[Event] = []
        broken = BrokenEvacuations(world.gone, world.clock, said.append)
        for _ in range(times):
            broken.begin_anew()
            with pytest.raises(RuntimeError):
                evacuated()
            world.clock.sleep(600)
        return [event.text for event in said]

    begun = looks(MOST + 2)
    assert len(begun) == MOST
    assert begun[-1].endswith("it is begun anew, for the last time until the control plane is started again")
    assert len(looks(1)) == 1


def test_what_was_paid_for_a_node_that_is_gone_is_given_back_however_long_that_takes(
    world: World, evacuated: Evacuated, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hourly in the end, so that the store of the workflows does not fill."""
    with monkeypatch.context() as meanwhile:
        _breaks(world, meanwhile, 1 << 30)
        with pytest.raises(RuntimeError):
            evacuated()
        world.shard_map.update_node(AWS, state=NodeState.GONE)
        said: list[Event] = []
        broken = BrokenEvacuations(world.gone, world.clock, said.append)
        begun_at: list[datetime] = []
        while len(begun_at) < MOST + 5:
            broken.begin_anew()
            if len(said) > len(begun_at):
                begun_at.append(world.clock.now())
                with pytest.raises(RuntimeError):
                    evacuated()
            world.clock.sleep(30)
    assert [later - earlier for earlier, later in pairwise(begun_at)][-2:] == [timedelta(hours=1)] * 2
    assert "for the last time" not in "".join(event.text for event in said)
    assert world.given_back == []
    world.clock.sleep(3600)
    broken.begin_anew()
    evacuated()
    assert world.given_back == [AWS]


def test_a_store_that_is_busy_for_a_moment_does_not_break_an_evacuation_off(
    world: World, evacuated: Evacuated, monkeypatch: pytest.MonkeyPatch
) -> None:
    search, asked = world.shard_map.search, 0

    def busy(**wanted: Any) -> tuple[Shard, ...]:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise RuntimeError("the database is locked")
        return search(**wanted)

    monkeypatch.setattr(world.shard_map, "search", busy)
    assert workflow.succeeded(evacuated())


def test_a_store_that_stays_busy_is_named(world: World, evacuated: Evacuated, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(**_wanted: Any) -> tuple[Shard, ...]:
        raise RuntimeError("the database is locked")

    said: list[Event] = []
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(world.shard_map, "search", busy)
        with pytest.raises(Exception, match="choose"):
            evacuated()
    BrokenEvacuations(world.gone, world.clock, said.append).begin_anew()
    assert workflow.succeeded(evacuated())
    assert "broke off (choose: the database is locked)" in said[0].text


def test_what_is_begun_anew_after_its_notice_gives_no_spare_up(
    world: World, evacuated: Evacuated, monkeypatch: pytest.MonkeyPatch
) -> None:
    spares = [world.add(f"{node}-{number}", node) for node in (GCP, AZURE) for number in range(2)]
    with monkeypatch.context() as meanwhile:
        _breaks(world, meanwhile, 1)
        meanwhile.setattr(workflow, "make_room", lambda *_: None)
        with pytest.raises(RuntimeError):
            evacuated()
    world.clock.sleep(31)
    BrokenEvacuations(world.gone, world.clock, unseen).begin_anew()
    assert evacuated() == ()
    assert world.released == ["sw-aws-s0", "sw-aws-s1"]
    assert [shard.id for shard in world.shard_map.search()] == sorted(spares)


def test_a_cancelled_evacuation_stays_ended(
    world: World, evacuated: Evacuated, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(_requests: Sequence[MoveRequest]) -> tuple[MoveReport, ...]:
        begun.set()
        assert go_on.wait(30)
        return ()

    monkeypatch.setattr(world, "run", slow)
    handle = workflow.start_evacuation(NOTICE)
    assert begun.wait(30)
    DBOS.cancel_workflow(handle.workflow_id)
    go_on.set()
    with pytest.raises(Exception, match="cancelled"):
        handle.get_result()
    said: list[Event] = []
    BrokenEvacuations(world.gone, world.clock, said.append).begin_anew()
    assert said == []


def test_one_that_breaks_off_while_a_control_plane_waits_for_it_is_told_and_stops_nothing(
    world: World, evacuated: Evacuated, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited_for = threading.Event()

    def run(_requests: Sequence[MoveRequest]) -> tuple[MoveReport, ...]:
        assert waited_for.wait(30)
        raise RuntimeError("the database is locked")

    def unfinished(kind: str) -> list[str]:
        found = durable.unfinished(kind)
        if found:
            waited_for.set()
        return found

    monkeypatch.setattr(world, "run", run)
    monkeypatch.setattr(control_plane, "unfinished", unfinished)
    said: list[Event] = []
    nothing = cast(Any, None)
    plane = control_plane.ControlPlane(
        name="sw", store=nothing, steps=nothing, fleet=nothing, clock=world.clock, observe=said.append, url=""
    )
    workflow.start_evacuation(NOTICE)
    assert list(plane.rounds(0)) == []
    assert [event.text for event in said] == ["evacuate-sw-aws broke off: the database is locked"]
