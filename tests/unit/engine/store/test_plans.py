"""Plans come back as they went in, and only a child of the target becomes the target."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import update

from engine.errors import ConcurrentUpdate, NotFound, ShardwrightError
from engine.model.ids import NodeId, PlanId, RoundId
from engine.store.database import Database
from engine.store.plans import PlanStore, plans
from engine.store.round_records import RoundRecords, StoredRound
from tests.unit.engine.planner.cases import NOW, certain, demo_market, inventory_of, plan_of, pool


@pytest.fixture
def kept(store: Database) -> PlanStore:
    return PlanStore(store)


def _first(seed: int = 1):
    return plan_of([certain(pool(), 3)], demo_market(), seed=seed)


def test_a_plan_comes_back_as_it_went_in(kept: PlanStore) -> None:
    plan = _first()
    kept.save(plan)
    kept.save(plan)
    assert kept.get(plan.id) == plan
    assert kept.latest(5) == (plan,)
    assert kept.target() is None
    with pytest.raises(NotFound):
        kept.get(PlanId("plan-0-none"))


def test_the_target_moves_from_parent_to_child_only(kept: PlanStore) -> None:
    first, rival = _first(1), _first(2)
    assert kept.make_target(first) == first.id
    assert kept.make_target(first) == first.id
    with pytest.raises(ConcurrentUpdate, match="made for an empty state"):
        kept.make_target(rival)
    child = plan_of([certain(pool(), 5)], demo_market(), inventory=inventory_of(first), parent=first)
    kept.make_target(child)
    assert kept.target() == child
    late = plan_of([certain(pool(), 4)], demo_market(), inventory=inventory_of(first), parent=first)
    with pytest.raises(ConcurrentUpdate, match=child.id):
        kept.make_target(late)


def test_two_rounds_at_once_one_wins(kept: PlanStore) -> None:
    rivals = [_first(seed) for seed in range(8)]

    def attempt(plan) -> bool:
        try:
            kept.make_target(plan)
        except ConcurrentUpdate:
            return False
        return True

    with ThreadPoolExecutor(8) as executor:
        assert sum(executor.map(attempt, rivals)) == 1


def test_remembers_what_nodes_were_bought_on(kept: PlanStore) -> None:
    first = _first()
    kept.make_target(first)
    child = plan_of([certain(pool(), 3)], demo_market(), inventory=inventory_of(first), parent=first)
    kept.make_target(child.model_copy(update={"made_at": first.made_at + timedelta(hours=1)}))
    nodes = [planned.node.id for cell in child.cells for planned in cell.nodes]
    assert all(planned.quote is None for cell in child.cells for planned in cell.nodes)
    assert [planned.node.id for planned in kept.bought(nodes)] == sorted(nodes)
    assert all(planned.quote is not None for planned in kept.bought(nodes))
    assert kept.bought_at([*nodes, NodeId("unknown")]) == dict.fromkeys(nodes, first.made_at)


def test_a_newer_schema_is_a_named_error(kept: PlanStore, store: Database) -> None:
    plan = _first()
    kept.save(plan)
    with store.transaction() as connection:
        connection.execute(update(plans).values(document='{"schema_version": 2, "plan": {}}'))
    with pytest.raises(ShardwrightError, match="cannot be read"):
        kept.get(plan.id)


def test_round_records(store: Database) -> None:
    records = RoundRecords(store)
    begun = StoredRound(id=RoundId("round-1"), started_at=NOW, document="{}")
    done = begun.model_copy(update={"finished_at": NOW + timedelta(seconds=9), "plan": PlanId("plan-1-a")})
    records.put(begun)
    records.put(done)
    records.put(StoredRound(id=RoundId("round-2"), started_at=NOW + timedelta(hours=1), document="{}"))
    assert records.get(RoundId("round-1")) == done
    assert records.get(RoundId("round-9")) is None
    assert [record.id for record in records.latest(5)] == ["round-2", "round-1"]
