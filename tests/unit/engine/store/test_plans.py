"""Plans come back as they went in, and only a child of the target becomes the target."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import update

from engine.errors import ConcurrentUpdate, NotFound, ShardwrightError
from engine.model.ids import PlanId, RoundId
from engine.store.database import Database
from engine.store.plans import PlanStore, plans
from engine.store.round_records import RoundRecords, StoredRound
from tests.unit.engine.planner.cases import NOW, certain, demo_market, inventory_of, plan_of, pool


@pytest.fixture
def store(database: Database) -> PlanStore:
    return PlanStore(database)


def _first(seed: int = 1):
    return plan_of([certain(pool(), 3)], demo_market(), seed=seed)


def test_a_plan_comes_back_as_it_went_in(store: PlanStore) -> None:
    plan = _first()
    store.save(plan)
    store.save(plan)
    assert store.get(plan.id) == plan
    assert store.latest(5) == (plan,)
    assert store.target() is None
    with pytest.raises(NotFound):
        store.get(PlanId("plan-0-none"))


def test_the_target_moves_from_parent_to_child_only(store: PlanStore) -> None:
    first, rival = _first(1), _first(2)
    assert store.make_target(first) == first.id
    assert store.make_target(first) == first.id
    with pytest.raises(ConcurrentUpdate, match="made for an empty state"):
        store.make_target(rival)
    child = plan_of([certain(pool(), 5)], demo_market(), inventory=inventory_of(first), parent=first)
    store.make_target(child)
    assert store.target() == child
    late = plan_of([certain(pool(), 4)], demo_market(), inventory=inventory_of(first), parent=first)
    with pytest.raises(ConcurrentUpdate, match=child.id):
        store.make_target(late)


def test_two_rounds_at_once_one_wins(store: PlanStore) -> None:
    rivals = [_first(seed) for seed in range(8)]

    def attempt(plan) -> bool:
        try:
            store.make_target(plan)
        except ConcurrentUpdate:
            return False
        return True

    with ThreadPoolExecutor(8) as executor:
        assert sum(executor.map(attempt, rivals)) == 1


def test_remembers_what_nodes_were_bought_on(store: PlanStore) -> None:
    first = _first()
    store.make_target(first)
    child = plan_of([certain(pool(), 3)], demo_market(), inventory=inventory_of(first), parent=first)
    store.make_target(child)
    nodes = [planned.node.id for cell in child.cells for planned in cell.nodes]
    assert all(planned.quote is None for cell in child.cells for planned in cell.nodes)
    assert [planned.node.id for planned in store.bought(nodes)] == sorted(nodes)
    assert all(planned.quote is not None for planned in store.bought(nodes))


def test_a_newer_schema_is_a_named_error(store: PlanStore, database: Database) -> None:
    plan = _first()
    store.save(plan)
    with database.transaction() as connection:
        connection.execute(update(plans).values(document='{"schema_version": 2, "plan": {}}'))
    with pytest.raises(ShardwrightError, match="cannot be read"):
        store.get(plan.id)


def test_round_records(database: Database) -> None:
    records = RoundRecords(database)
    begun = StoredRound(id=RoundId("round-1"), started_at=NOW, document="{}")
    done = begun.model_copy(update={"finished_at": NOW + timedelta(seconds=9), "plan": PlanId("plan-1-a")})
    records.put(begun)
    records.put(done)
    records.put(StoredRound(id=RoundId("round-2"), started_at=NOW + timedelta(hours=1), document="{}"))
    assert records.get(RoundId("round-1")) == done
    assert records.get(RoundId("round-9")) is None
    assert [record.id for record in records.latest(5)] == ["round-2", "round-1"]
