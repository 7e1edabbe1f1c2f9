"""What a process that has just started says of the plan and the round before it."""

from pathlib import Path

from prometheus_client import REGISTRY
from sqlalchemy import update

from engine import metrics
from engine.app.standing_gauges import tell_what_stands
from engine.clock import SystemClock
from engine.model.ids import RoundId
from engine.round_record import RoundRecord
from engine.store.opened import opened_store
from engine.store.plans import plans
from engine.store.round_records import StoredRound
from tests.sample_view import NOW, WEB, SampleView


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"shardwright_{name}", labels)


def test_a_restart_tells_of_the_plan_in_force_and_of_the_last_round(tmp_path: Path) -> None:
    view = SampleView()
    plan = view.plan()
    assert plan is not None
    plan = plan.model_copy(update={"parent": None, "generation": 41})
    record = RoundRecord(
        id=RoundId("r"), started_at=NOW, finished_at=NOW, targets=tuple(view.targets()), offers_seen=0, quotes=(),
        plan=plan, outcomes=(), failures=(), shards=(), moves=(),
    )  # fmt: skip
    stored = StoredRound(id=record.id, started_at=NOW, finished_at=NOW, document=record.model_dump_json())
    solved = value("plan_solve_seconds_count")
    metrics.POOL_SHARDS.clear()
    with opened_store(f"sqlite:///{tmp_path / 'store.sqlite'}", SystemClock()) as store:
        tell_what_stands(store)
        assert value("pool_shards", pool=WEB.id, kind="planned") is None
        store.plans.make_target(plan)
        store.records.put(stored)
        tell_what_stands(store)
        assert value("plan_generation") == 41
        assert value("pool_shards", pool=WEB.id, kind="planned") == 9
        assert value("pool_shards", pool=WEB.id, kind="current") == 3
        assert value("last_round_timestamp_seconds") == NOW.timestamp()
        assert value("plan_solve_seconds_count") == solved, "it was not solved again"
        with store.database.transaction() as connection:
            connection.execute(update(plans).values(document="of another version"))
        store.records.put(stored.model_copy(update={"document": "{}"}))
        tell_what_stands(store)
        assert value("plan_generation") == 41
