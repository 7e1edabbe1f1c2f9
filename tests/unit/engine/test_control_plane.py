"""A notice: the lesson is kept before the evacuation begins, once; a provider is believed about its own nodes only."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.wire import NoticeReport
from engine import control_plane
from engine.clock import ManualClock
from engine.control_plane import ControlPlane, NoticeDesk
from engine.errors import ProviderUnavailable, UnknownName
from engine.events import unseen
from engine.fleet.nodes import Fleet
from engine.market_watch import MarketWatch
from engine.model.capacity import Resources
from engine.model.ids import CellId, NodeId
from engine.model.market import PurchaseOption, ReclaimNotice
from engine.model.money import usd
from engine.model.placement import Node, NodeState
from engine.store.database import Database
from engine.store.opened import Store, opened_store
from tests.unit.engine.planner.cases import certain, offer, plan_of, pool, quote
from tests.unit.engine.small_round import SmallRound

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[ReclaimNotice]:
    """Evacuations that began."""
    found: list[ReclaimNotice] = []
    monkeypatch.setattr(control_plane, "start_evacuation", found.append)
    monkeypatch.setattr(control_plane, "evacuation_begun", lambda node: any(one.node == node for one in found))
    return found


def test_a_notice_is_remembered_and_begins_an_evacuation_once(
    database: Database, clock: ManualClock, started: list[ReclaimNotice]
) -> None:
    world = SmallRound(database, clock, pool())
    made = plan_of([certain(pool(), 1)], [quote(offer("aws-1", "0.05"))])
    node = made.cells[0].nodes[0].node
    world.plans.make_target(made)
    world.map.put_node(node.model_copy(update={"state": NodeState.JOINED, "instance_id": "i-1"}))
    fleet = Fleet(
        shard_map=world.map, tokens=cast(Any, None), agents=cast(Any, None), clock=clock, settings_for=cast(Any, None)
    )
    plane = ControlPlane(
        name="sw", store=cast(Any, None), steps=world.steps, fleet=fleet, clock=clock, observe=unseen, url=""
    )
    report = NoticeReport(seen_at=clock.now(), at=clock.now() + timedelta(minutes=2), reason="spot")
    for _ in range(2):
        plane.on_notice(node.id, report)
    assert [notice.node for notice in started] == [node.id]
    assert [(stay.node, stay.reclaimed) for stay in world.memory.stays()] == [(node.id, True)]
    assert [answer.event for answer in world.memory.answers(since=clock.now())] == [f"reclaim:{node.id}"]


class Plane:
    """A control plane of which only the hearing of notices is used; evacuations are counted, not run."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.evacuated: list[ReclaimNotice] = []
        self.said: list[str] = []
        nothing = cast(Any, None)
        watch = MarketWatch(store.market, store.shard_map, store.plans, ManualClock(NOW))
        self.map = store.shard_map
        for name, cell in (("sw-n1", "agora/a/us"), ("sw-n2", "aws/a/eu")):
            self.map.put_node(
                Node(
                    id=NodeId(name),
                    cell=CellId(cell),
                    zone="z",
                    instance_type="m",
                    option=PurchaseOption.ON_DEMAND,
                    hourly_price=usd("0.1"),
                    resources=Resources(vcpus=2, memory_gib=4),
                    state=NodeState.JOINED,
                )
            )
        fleet = Fleet(
            shard_map=store.shard_map, tokens=nothing, agents=nothing, clock=ManualClock(NOW), settings_for=nothing
        )
        monkeypatch.setattr(control_plane, "start_evacuation", self.evacuated.append)
        begun: Callable[[NodeId], bool] = lambda node: node in {one.node for one in self.evacuated}  # noqa: E731
        monkeypatch.setattr(control_plane, "evacuation_begun", begun)
        self.plane = ControlPlane(
            name="sw",
            store=store,
            steps=cast(Any, SimpleNamespace(watch=watch)),
            fleet=fleet,
            clock=ManualClock(NOW),
            observe=lambda event: self.said.append(event.text),
            url="",
        )


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plane]:
    with opened_store(f"sqlite:///{tmp_path}/control.sqlite", ManualClock(NOW)) as store:
        yield Plane(store, monkeypatch)


def _told(node: str, provider: str = "agora") -> ReclaimNotice:
    return ReclaimNotice(
        node=NodeId(node), provider=provider, seen_at=NOW, at=NOW + timedelta(seconds=30), reason="maintenance"
    )


def test_a_providers_own_notice_begins_the_evacuation_once(fleet: Plane) -> None:
    fleet.plane.on_reclaim(_told("sw-n1"))
    fleet.plane.on_reclaim(_told("sw-n1"))
    (evacuated,) = fleet.evacuated
    assert (evacuated.node, evacuated.at, evacuated.reason) == ("sw-n1", NOW + timedelta(seconds=30), "maintenance")
    assert fleet.map.node(NodeId("sw-n1")).state is NodeState.RECLAIMING
    assert fleet.said == ["agora takes sw-n1 back in 30 s: maintenance"]


def test_a_provider_cannot_take_back_what_is_not_its_own(fleet: Plane) -> None:
    fleet.plane.on_reclaim(_told("sw-n2"))
    assert fleet.evacuated == []
    assert fleet.map.node(NodeId("sw-n2")).state is NodeState.JOINED
    assert fleet.said == ["agora says that sw-n2 is taken back, which is a node of aws/a/eu: ignored"]


def test_a_notice_for_a_node_that_nobody_knows_or_that_is_gone(fleet: Plane) -> None:
    fleet.plane.on_reclaim(_told("other-n7"))
    fleet.map.update_node(NodeId("sw-n1"), state=NodeState.GONE)
    fleet.plane.on_reclaim(_told("sw-n1"))
    assert (fleet.evacuated, fleet.said) == ([], [])


def test_a_notice_that_comes_while_the_control_plane_starts_is_not_taken(fleet: Plane) -> None:
    """Nothing is kept that a start which fails would lose: the agent reports until there is somebody to act on it."""
    desk, report = NoticeDesk(), NoticeReport(seen_at=NOW, at=NOW + timedelta(seconds=30), reason="preempted")
    with pytest.raises(ProviderUnavailable, match="is starting"):
        desk(NodeId("sw-n2"), report)
    desk.open(fleet.plane)
    assert fleet.evacuated == []
    desk(NodeId("sw-n2"), report)
    assert [(one.node, one.reason) for one in fleet.evacuated] == [("sw-n2", "preempted")]


def test_a_notice_of_a_node_that_nobody_knows_keeps_no_other_from_being_heard(fleet: Plane) -> None:
    desk, report = NoticeDesk(), NoticeReport(seen_at=NOW, at=NOW + timedelta(seconds=30), reason="preempted")
    for node in ("sw-n9", "sw-n2"):
        with pytest.raises(ProviderUnavailable):
            desk(NodeId(node), report)
    desk.open(fleet.plane)
    with pytest.raises(UnknownName):
        desk(NodeId("sw-n9"), report)
    desk(NodeId("sw-n2"), report)
    assert [one.node for one in fleet.evacuated] == ["sw-n2"]
