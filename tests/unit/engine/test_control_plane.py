"""A notice: the market's lesson is kept before the evacuation begins, once."""

from datetime import timedelta
from typing import Any, cast

import pytest

from agent.wire import NoticeReport
from engine import control_plane
from engine.clock import ManualClock
from engine.control_plane import ControlPlane
from engine.events import unseen
from engine.fleet.nodes import Fleet
from engine.model.market import ReclaimNotice
from engine.model.placement import NodeState
from engine.store.database import Database
from tests.unit.engine.planner.cases import certain, offer, plan_of, pool, quote
from tests.unit.engine.small_round import SmallRound


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
