"""Evacuations that broke off, on the world of tests.evacuation_world."""

import threading
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, cast

import pytest
from dbos import DBOS

from engine import control_plane, durable
from engine.durable import durable_workflows
from engine.evacuation import workflow
from engine.evacuation.again import MOST, BrokenEvacuations
from engine.events import Event, unseen
from engine.model.move import MoveReport, MoveRequest
from engine.model.placement import NodeState, Shard
from tests.evacuation_world import NOTICE, Evacuated, World
from tests.small_orders import AWS, AZURE, GCP


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
