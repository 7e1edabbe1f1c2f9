from datetime import timedelta

from agent.wire import HealthRequest, ReportedHealth
from engine.clock import ManualClock
from engine.composition.health_desk import HealthDesk
from engine.events import Event
from engine.model.composite import CompositeRule, HealthCheck, HealthState
from engine.model.ids import NodeId, ShardId
from engine.store.database import Database
from engine.store.shard_health import HealthBook
from engine.store.shard_map import ShardMap
from tests.unit.engine.composition.cases import API
from tests.unit.engine.composition.test_leaving import clock, shard_map

__all__ = ["clock", "shard_map"]
CHECK = HealthCheck(port=80)


def test_a_node_tells_of_its_shards_and_hears_which_to_check(shard_map: ShardMap, clock: ManualClock) -> None:
    said: list[Event] = []
    database: Database = shard_map._database
    book = HealthBook(database, clock)
    rules = {API: CompositeRule(check=CHECK, drain=timedelta(0))}
    desk = HealthDesk(shard_map, book, rules, said.append)
    report = HealthRequest(
        shards=(
            ReportedHealth(shard=ShardId("a"), epoch=1, state=HealthState.UNHEALTHY, reason="port 80 is closed"),
            ReportedHealth(shard=ShardId("spare"), epoch=1, state=HealthState.UNKNOWN),
        )
    )
    orders = desk(NodeId("n1"), report)
    assert [(one.shard, one.check) for one in orders.checks] == [("a", CHECK)]
    assert [event.text for event in said] == ["a on n1 is unhealthy: port 80 is closed"]
    desk(NodeId("n1"), report)
    assert len(said) == 1
    assert HealthDesk(shard_map, book, {}, said.append)(NodeId("n1"), report).checks == ()
    assert desk(NodeId("n1"), HealthRequest(shards=())).checks == ()
