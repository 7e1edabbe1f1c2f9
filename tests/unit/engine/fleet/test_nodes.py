from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from agent.wire import CarveRequest, MeasuredPerformance, NoticeReport, ShardStatus
from engine.clock import ManualClock
from engine.errors import MoveFailed, NotGivenUp, ProviderAnswerInvalid, ProviderUnavailable, ShardwrightError
from engine.fleet.nodes import Fleet, as_measured
from engine.model.capacity import Growth, Resources
from engine.model.ids import NodeId, PoolId, ShardId
from engine.model.placement import Node, NodeState, ShardState
from engine.store.database import Database
from engine.store.shard_map import ShardMap
from tests.resizing_node import ResizingNode
from tests.small_orders import GCP, NOW, filled

NOMINAL = Resources(vcpus=1, memory_gib=0.125, storage_iops=400, network_mbps=100)


def test_what_the_guest_counted_stands_beside_what_was_promised() -> None:
    measured = MeasuredPerformance(read_iops=391, memory_mib=96, receive_mbps=98.5)
    assert as_measured(NOMINAL, measured) == Resources(vcpus=1, memory_gib=0.09375, storage_iops=391, network_mbps=98.5)


def test_what_was_not_counted_stays_as_promised() -> None:
    assert as_measured(NOMINAL, MeasuredPerformance()) == NOMINAL


class Carver:
    """An agent that is asked to carve, and does."""

    def __init__(self) -> None:
        self.asked: list[CarveRequest] = []
        self.file = Path()

    def __call__(self, _node: NodeId) -> "Carver":
        return self

    def carve(self, request: CarveRequest) -> ShardStatus:
        self.asked.append(request)
        return ResizingNode(self.file, request.resources).shard(request.shard)


@pytest.mark.parametrize("growth", [Growth(), Growth(memory_gib=16, vcpus=2)])
def test_what_a_pool_says_of_growth_reaches_the_node(database: Database, tmp_path: Path, growth: Growth) -> None:
    clock, agent = ManualClock(NOW), Carver()
    agent.file = tmp_path / "node.json"
    shard_map = filled(database, clock)
    fleet = Fleet(
        shard_map=shard_map, tokens=cast(Any, None), agents=cast(Any, agent), clock=clock, settings_for=cast(Any, None),
        growth_of=lambda pool: growth if pool == "web" else Growth(),
    )  # fmt: skip
    shard = shard_map.add_shard(ShardId("s9"), shard_type="cpu.small", pool=PoolId("web"), node=GCP, nominal=NOMINAL)
    (carved,) = fleet.carve_all([shard])
    assert carved.failure == ""
    assert (agent.asked[0].memory_grows_to_gib, agent.asked[0].vcpus_grow_to) == (growth.memory_gib, growth.vcpus)


@pytest.mark.parametrize("state", NodeState)
def test_a_notice_takes_back_what_is_there_and_nothing_that_leaves(database: Database, state: NodeState) -> None:
    shard_map = filled(database, ManualClock(NOW))
    shard_map.update_node(GCP, state=state)
    fleet = Fleet(
        shard_map=shard_map, tokens=cast(Any, None), agents=cast(Any, None), clock=ManualClock(NOW),
        settings_for=cast(Any, None),
    )  # fmt: skip
    report = NoticeReport(seen_at=NOW, at=NOW + timedelta(seconds=30), reason="spot")
    leaves = state in (NodeState.LEAVING, NodeState.GONE)
    assert (fleet.notice(GCP, report) is None) is leaves
    assert shard_map.node(GCP).state is (state if leaves else NodeState.RECLAIMING)


def test_a_notice_does_not_bring_back_a_node_that_retires_beside_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard_map = filled(database, ManualClock(NOW))
    shard_map.update_node(GCP, state=NodeState.DRAINING)
    fleet = Fleet(
        shard_map=shard_map, tokens=cast(Any, None), agents=cast(Any, None), clock=ManualClock(NOW),
        settings_for=cast(Any, None),
    )  # fmt: skip
    look = shard_map.node

    def looked(node: NodeId) -> Node:
        found = look(node)
        assert shard_map.retire(node)
        return found

    monkeypatch.setattr(shard_map, "node", looked)
    assert fleet.notice(GCP, NoticeReport(seen_at=NOW, at=NOW, reason="spot")) is None
    assert look(GCP).state is NodeState.LEAVING


class Unwilling:
    """An agent that does not give shards up."""

    def __init__(self, problem: ShardwrightError) -> None:
        self._problem = problem

    def __call__(self, _node: NodeId) -> "Unwilling":
        return self

    def release(self, _shard: ShardId, _epoch: int) -> None:
        raise self._problem


def _unwilling(shard_map: ShardMap, problem: ShardwrightError) -> Fleet:
    shard_map.update_node(GCP, agent_url="https://10.0.0.3:7070")
    return Fleet(
        shard_map=shard_map, tokens=cast(Any, None), agents=cast(Any, Unwilling(problem)), clock=ManualClock(NOW),
        settings_for=cast(Any, None),
    )  # fmt: skip


@pytest.mark.parametrize("state", [NodeState.JOINED, NodeState.DRAINING, NodeState.LEAVING])
@pytest.mark.parametrize(
    ("problem", "raised"),
    [
        (MoveFailed("the guest of shard s9 (pid 7) does not die"), NotGivenUp),
        (ProviderAnswerInvalid("node refuses"), NotGivenUp),
        (ProviderUnavailable("node does not answer"), ProviderUnavailable),
    ],
)
def test_what_a_node_of_ours_does_not_give_up_is_marked_and_asked_for_again(
    database: Database, state: NodeState, problem: ShardwrightError, raised: type[ShardwrightError]
) -> None:
    shard_map = filled(database, ManualClock(NOW))
    fleet = _unwilling(shard_map, problem)
    shard_map.update_node(GCP, state=state)
    shard = shard_map.add_shard(ShardId("s9"), shard_type="cpu.small", pool=PoolId("web"), node=GCP, nominal=NOMINAL)
    with pytest.raises(ProviderUnavailable, match=str(problem.what).split(" (")[0]) as told:
        fleet.release(shard)
    assert type(told.value) is raised
    assert shard_map.get(shard.id).state is ShardState.RELEASED


def test_what_a_node_that_is_taken_back_does_not_give_up_goes_with_it(database: Database) -> None:
    shard_map = filled(database, ManualClock(NOW))
    fleet = _unwilling(shard_map, MoveFailed("the guest does not die"))
    shard_map.update_node(GCP, state=NodeState.RECLAIMING)
    shard = shard_map.add_shard(ShardId("s9"), shard_type="cpu.small", pool=PoolId("web"), node=GCP, nominal=NOMINAL)
    fleet.release(shard)
    assert shard.id not in {one.id for one in shard_map.search()}
