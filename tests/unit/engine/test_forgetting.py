"""What has ended long ago is dropped, on each kind of database; what is in force, paid for or under way never is."""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from dbos import DBOS, SetWorkflowID, WorkflowHandle
from sqlalchemy import func, select, update

from engine import durable, rounds
from engine.allocation.holds import HoldPhase, PlanHolds
from engine.allocation.lease import LeaseState
from engine.allocation.locking import ResourceLocking
from engine.clock import ManualClock
from engine.control_plane import ControlPlane
from engine.durable import durable_workflows
from engine.errors import MoveFailed, NotFound, UnknownName
from engine.forgetting import Forgetting
from engine.migration import workflow as migration
from engine.migration.workflow import DurableMover
from engine.model.ids import NodeId, OrderId, RoundId
from engine.model.order import OrderState
from engine.model.placement import NodeState
from engine.model.plan import Plan, PlannedNode
from engine.orders import workflow as orders
from engine.store.database import Database
from engine.store.holds import lease_groups, leases, stocks
from engine.store.moves import MoveHistory
from engine.store.orders import Orders
from engine.store.plans import PlanStore
from engine.store.round_records import NEWEST, RoundRecords, StoredRound
from engine.store.shard_map import ShardMap
from engine.store.shard_tables import nodes
from tests.small_orders import NOW, a_report, a_request, move_order
from tests.unit.engine.planner.cases import CELLS, certain, demo_market, inventory_of, offer, plan_of, pool, quote
from tests.unit.engine.small_round import HoldingSeller, SmallRound

START = datetime(2026, 1, 1, tzinfo=UTC)
ALL_OF_HOLDS = (leases, stocks, lease_groups)
WEB = pool()
KEPT = timedelta(days=90)


# -- plans, records, nodes


def chain(plans: PlanStore, length: int) -> list[Plan]:
    """Targets one after another, a day apart, each of them with one shard more."""
    made: list[Plan] = []
    for number in range(length):
        parent = made[-1] if made else None
        inventory = None if parent is None else inventory_of(parent)
        plan = plan_of([certain(WEB, 3 * (number + 1))], demo_market(), inventory=inventory, parent=parent)
        plan = plan.model_copy(update={"made_at": START + timedelta(days=number)})
        plans.make_target(plan)
        made.append(plan)
    return made


def bought(plan: Plan) -> list[PlannedNode]:
    return [node for cell in plan.cells for node in cell.nodes if node.quote is not None]


def test_old_plans_go_but_the_one_in_force_and_what_was_bought_on_them_stay(store: Database) -> None:
    plans = PlanStore(store)
    first, second, third = chain(plans, 3)
    assert plans.forget(before=START + timedelta(hours=1), most=9) == 1
    with pytest.raises(NotFound):
        plans.get(first.id)
    assert plans.latest(9) == (third, second)
    assert plans.forget(before=START + timedelta(days=900), most=9) == 1
    assert (plans.target(), plans.latest(9)) == (third, (third,))
    ids = [planned.node.id for plan in (first, second, third) for planned in bought(plan)]
    assert len(plans.bought(ids)) == len(ids) > 0


def test_a_plan_whose_node_is_yet_to_join_stays_until_it_has(store: Database, clock: ManualClock) -> None:
    plans, shard_map = PlanStore(store), ShardMap(store, clock)
    first, *_ = chain(plans, 2)
    node = bought(first)[0].node
    shard_map.put_node(node)
    assert plans.forget(before=START + timedelta(days=900), most=9) == 0
    assert plans.bought_at([node.id]) == {node.id: first.made_at}
    shard_map.update_node(node.id, state=NodeState.JOINED)
    assert plans.forget(before=START + timedelta(days=900), most=9) == 1


def test_no_more_goes_at_once_than_is_asked_for_and_the_oldest_first(store: Database) -> None:
    plans = PlanStore(store)
    made = chain(plans, 4)
    assert plans.forget(before=START + timedelta(days=900), most=2) == 2
    assert [plan.id for plan in plans.latest(9)] == [made[3].id, made[2].id]


def test_the_newest_records_of_rounds_stay_however_old_they_are(store: Database) -> None:
    records = RoundRecords(store)
    for number in range(NEWEST + 3):
        records.put(StoredRound(id=RoundId(f"r-{number:02}"), started_at=START + timedelta(days=number), document="{}"))
    assert records.forget(before=START, most=9) == 0
    assert records.forget(before=START + timedelta(days=900), most=2) == 2
    assert records.get(RoundId("r-01")) is None
    assert records.forget(before=START + timedelta(days=900), most=9) == 1
    assert [one.id for one in records.latest(99)] == [f"r-{number:02}" for number in range(NEWEST + 2, 2, -1)]


def test_nodes_that_are_gone_are_not_read_to_tell_what_runs(database: Database, clock: ManualClock) -> None:
    world = SmallRound(database, clock, WEB)
    first, *_ = chain(world.plans, 1)
    here, gone = (planned.node for planned in bought(first)[:2])
    for node in (here, gone):
        world.map.put_node(node.model_copy(update={"instance_id": f"i-{node.id}"}))
    world.map.update_node(gone.id, state=NodeState.GONE)
    with database.transaction() as connection:  # reading it would fail
        connection.execute(update(nodes).where(nodes.c.id == gone.id).values(resources="?"))
    assert sum(world.watch.beliefs().ours.values()) == 1
    assert [node.id for node in world.map.nodes(ids=[here.id, NodeId("never-there")])] == [here.id]


# -- holds


@pytest.fixture
def holds(store: Database, clock: ManualClock) -> PlanHolds:
    return PlanHolds(ResourceLocking(store, clock), {})


@pytest.fixture
def holds_there(store: Database, clock: ManualClock) -> PlanHolds:
    """At providers that know holds: what is held at others cannot lapse."""
    sellers = {name: HoldingSeller(name, clock, room=99) for name in {one.offer.provider for one in demo_market()}}
    return PlanHolds(ResourceLocking(store, clock), cast(Any, sellers))


def a_plan() -> Plan:
    return plan_of([certain(WEB, 6)], demo_market())


def left(store: Database) -> tuple[int, int, int]:
    """Leases, stocks, groups."""
    with store.transaction() as connection:
        found = [connection.execute(select(func.count()).select_from(t)).scalar_one() for t in ALL_OF_HOLDS]
    return found[0], found[1], found[2]


def test_what_is_paid_for_stays_and_goes_once_it_is_given_back(
    store: Database, clock: ManualClock, holds: PlanHolds
) -> None:
    plan = a_plan()
    tokens = [planned.token for planned in bought(plan)]
    assert len(tokens) > 1
    holds.hold_all(plan)
    holds.confirm_all(plan)
    clock.advance(KEPT)
    later = clock.now() - timedelta(seconds=1)
    assert holds.forget(before=later, most=9) == 0
    holds.release_node(tokens[0])
    assert holds.forget(before=later - KEPT, most=9) == 0, "not old enough"
    assert holds.forget(before=later, most=9) == 1
    assert left(store)[0] == len(tokens) - 1
    assert all(holds.hold_of(token) is not None for token in tokens[1:])
    for token in tokens:
        holds.release_node(token)
    holds.forget(before=later, most=9)
    assert left(store) == (0, 0, 0)
    assert holds.hold_all(plan).held == (), "its quotes have expired: nothing is held or bought a second time"


def test_a_hold_of_a_quote_that_still_stands_stays(store: Database, clock: ManualClock) -> None:
    """It may be had again under the same key, and then has a new fencing token, by which its provider tells the two."""
    locking = ResourceLocking(store, clock)
    lasting = quote(offer("agora", "0.03", cell=CELLS[4])).model_copy(update={"expires_at": clock.now() + 2 * KEPT})
    first = locking.reserve_quote(lasting, 1, key="k", group="plan-1", holder="n")
    locking.release(first)
    clock.advance(KEPT)
    ended = (HoldPhase.RELEASED,)
    assert locking.forget(before=clock.now() - timedelta(seconds=1), ended=ended, most=9) == 0
    again = locking.reserve_quote(lasting, 1, key="k", group="plan-1", holder="n")
    assert again.fencing > first.fencing
    locking.release(again)
    clock.advance(2 * KEPT)
    assert locking.forget(before=clock.now() - timedelta(seconds=1), ended=ended, most=9) == 1
    assert left(store) == (0, 0, 0)


def test_a_lapsed_hold_of_a_plan_that_is_being_paid_stays_until_all_is_given_back(
    store: Database, clock: ManualClock, holds_there: PlanHolds
) -> None:
    """Without it the others would count as all that there was to pay."""
    plan, locking = a_plan(), ResourceLocking(store, clock)
    holds_there.hold_all(plan)
    one, *others = locking.of_group(plan.id)
    for other in others:
        locking.confirm(other)
    locking.set_phase(plan.id, HoldPhase.CONFIRMING)
    clock.advance(KEPT)
    locking.expire()
    later = clock.now() - timedelta(seconds=1)
    assert holds_there.forget(before=later, most=99) == 0
    lapsed = locking.leases.get(one.key)
    assert lapsed is not None
    assert lapsed.state is LeaseState.EXPIRED
    assert holds_there.recover().released == (plan.id,)
    assert holds_there.forget(before=later, most=99) == 1 + len(others)


def test_a_hold_that_lapsed_and_whose_plan_was_given_up_goes(
    store: Database, clock: ManualClock, holds_there: PlanHolds
) -> None:
    plan = a_plan()
    holds_there.hold_all(plan)
    clock.advance(KEPT)
    later = clock.now() - timedelta(seconds=1)
    assert holds_there.forget(before=later, most=99) == 0, "nobody has looked at it yet"
    assert holds_there.recover().released == (plan.id,)
    assert holds_there.forget(before=later, most=99) == len(bought(plan))
    clock.advance(KEPT)
    holds_there.forget(before=clock.now() - timedelta(seconds=1), most=99)
    assert left(store) == (0, 0, 0)


# -- workflows

ALONE, CHILD, PARENT = "forget.alone", "forget.child", "forget.parent"
_waits, _goes_on = threading.Event(), threading.Event()


@DBOS.workflow(name=ALONE)
def alone(number: int) -> int:
    return DBOS.run_step({"name": "square"}, lambda: number**2)


@DBOS.workflow(name=CHILD)
def child(number: int) -> int:
    return number + 1


@DBOS.workflow(name=PARENT)
def parent(number: int) -> int:
    with SetWorkflowID(f"child-{number}"):
        found = DBOS.start_workflow(child, number).get_result()
    DBOS.run_step({"name": "wait"}, _wait)
    return found


def _wait() -> bool:
    _waits.set()
    return _goes_on.wait(30)


@pytest.fixture(params=["sqlite", "postgresql"])
def launched(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    url = f"sqlite:///{tmp_path / 'workflows.sqlite'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql_url")
    with durable_workflows("forgetting", url):
        yield


def begin(workflow: Callable[[int], int], name: str, number: int) -> WorkflowHandle[int]:
    with SetWorkflowID(name):
        return DBOS.start_workflow(workflow, number)


def known(*names: str) -> list[str]:
    return [name for name in names if DBOS.get_workflow_status(name) is not None]


def days_later(days: float) -> datetime:
    """DBOS tells by the host's clock when a workflow ended."""
    return datetime.now(UTC) + timedelta(days=days)


@pytest.mark.usefixtures("launched")
def test_workflows_that_ended_long_ago_go_with_their_steps() -> None:
    names = [f"alone-{number}" for number in range(1, 6)]
    for name in names:
        begin(alone, name, 2).get_result()
    assert durable.forget_ended(ALONE, before=days_later(-1), most=9) == 0
    assert durable.forget_ended(ALONE, before=days_later(1), most=2) == 2
    assert known(*names) == names[2:]
    assert (len(DBOS.list_workflow_steps(names[0])), len(DBOS.list_workflow_steps(names[2]))) == (0, 1)
    assert durable.forget_ended(ALONE, before=days_later(1), most=9, but={names[2]}) == 1
    assert known(*names) == [names[2], names[4]], "one that is still asked for, and the newest"
    assert durable.next_id(ALONE, "alone-") == "alone-6", "no id comes again"


@pytest.mark.usefixtures("launched")
def test_what_is_under_way_stays_and_so_does_what_it_has_begun() -> None:
    for event in (_waits, _goes_on):
        event.clear()
    under_way = begin(parent, "parent-1", 1)
    try:
        assert _waits.wait(30)
        begin(child, "child-2", 2).get_result()
        begin(child, "child-3", 3).get_result()
        assert durable.forget_ended(PARENT, before=days_later(1), most=9) == 0
        assert durable.forget_ended(CHILD, before=days_later(1), most=9) == 1
        assert known("parent-1", "child-1", "child-2", "child-3") == ["parent-1", "child-1", "child-3"]
    finally:
        _goes_on.set()
    assert under_way.get_result() == 2
    assert durable.forget_ended(CHILD, before=days_later(1), most=9) == 1
    assert known("child-1", "child-3") == ["child-3"]


class Kept:
    """Rounds under the real DBOS that forget what is older than 90 days; ``late`` is when that is all there is."""

    def __init__(self, database: Database, clock: ManualClock) -> None:
        self.seller = HoldingSeller("harbor", clock, offer("harbor-1", "0.05", cell=CELLS[3], available=8), room=8)
        self.world = SmallRound(database, clock, WEB, self.seller)
        self.world.demand.now = (certain(WEB, 1),)
        self.moves, self.orders = MoveHistory(database), Orders(database)
        self.late = ManualClock(max(clock.now(), datetime.now(UTC)) + KEPT + timedelta(days=1))
        store = SimpleNamespace(
            records=self.world.records, plans=self.world.plans, shard_map=self.world.map, moves=self.moves,
            orders=self.orders,
        )  # fmt: skip
        self.forgetting = Forgetting(cast(Any, store), self.world.holds, KEPT, self.late)
        nothing = cast(Any, None)
        self.plane = ControlPlane(
            name="sw", store=nothing, steps=self.world.steps, fleet=nothing, clock=clock, observe=self.world._listen,
            url="", forgetting=self.forgetting,
        )  # fmt: skip

    def rounds(self, count: int) -> list[str]:
        return [record.id for record in self.plane.rounds(count, every_seconds=60)]


@pytest.fixture
def kept(database: Database, clock: ManualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    found = Kept(database, clock)
    monkeypatch.setattr(rounds, "_steps", found.world.steps)
    with durable_workflows("test", f"sqlite:///{tmp_path / 'workflows.sqlite'}"):
        yield found


def test_rounds_go_on_under_new_ids_and_buy_nothing_twice(kept: Kept) -> None:
    assert kept.rounds(4) == [f"sw-round-{number}" for number in range(1, 5)]
    assert known(*(f"sw-round-{number}" for number in range(1, 5))) == ["sw-round-3", "sw-round-4"]
    (asked,) = kept.world.cells.asked
    kept.world.map.update_node(asked, state=NodeState.JOINED)
    assert kept.rounds(2) == ["sw-round-5", "sw-round-6"]
    assert kept.world.cells.asked == [asked]
    target = kept.world.plans.target()
    assert target is not None
    assert [planned.node.id for cell in target.cells for planned in cell.nodes] == [asked]
    assert len(kept.seller.held) == 1
    assert kept.world.holds.hold_of(kept.world.plans.bought([asked])[0].token) is not None
    assert [plan.id for plan in kept.world.plans.latest(99)] == [target.id, target.parent]


def test_a_store_that_cannot_forget_stops_no_round(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> int:
        raise OSError("no space left on device")

    monkeypatch.setattr(kept.world.records, "forget", full)
    assert kept.rounds(1) == ["sw-round-1"]
    assert "forget: what is old stays until the next round: OSError: no space left on device" in kept.world.said


def test_moves_and_orders_that_the_store_still_asks_for_stay(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """They broke off: how far each came is told by its workflow alone, until the store has their ends."""
    monkeypatch.setattr(orders, "_contexts", [SimpleNamespace(orders=kept.orders)])
    monkeypatch.setattr(migration, "_contexts", [])
    requests = [a_request(f"move-{number}") for number in range(3)]
    asked = [move_order().model_copy(update={"id": OrderId(f"order-{number}")}) for number in range(3)]
    for request, order in zip(requests, asked, strict=True):
        with pytest.raises(MoveFailed, match="not configured"):
            DurableMover().move(request)
        with SetWorkflowID(order.id), pytest.raises(UnknownName):
            DBOS.start_workflow(orders.carry_out, order.id).get_result()
    names = [*(request.id for request in requests), *(order.id for order in asked)]
    kept.moves.announce(requests[:1], NOW)
    kept.orders.put(asked[0])
    kept.forgetting.once()
    assert known(*names) == ["move-0", "move-2", "order-0", "order-2"]
    kept.moves.put(a_report(requests[0]))
    kept.orders.put(asked[0].model_copy(update={"state": OrderState.ENDED}))
    kept.forgetting.once()
    assert known(*names) == ["move-2", "order-2"]
