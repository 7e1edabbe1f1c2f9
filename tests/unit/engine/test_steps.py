"""The steps of a round on a real store: what they hand to the cells, and what they put right after a bad end."""

from datetime import timedelta
from typing import Any, cast

import pytest

from engine.allocation.holds import PlanHolds
from engine.allocation.locking import ResourceLocking
from engine.clock import ManualClock
from engine.composition.composition import Composition
from engine.errors import ProviderUnavailable
from engine.events import unseen
from engine.market_watch import MarketWatch
from engine.model.capacity import Resources, ShardType
from engine.model.ids import NodeId, PoolId, ShardId
from engine.model.market import Hold, Quote, Reservation
from engine.model.placement import NodeState, Shard, ShardState
from engine.model.plan import Plan
from engine.planner.policy import PlanPolicy
from engine.steps import ControlSteps, Terms
from engine.store.database import Database
from engine.store.market_memory import MarketMemory
from engine.store.plans import PlanStore
from engine.store.shard_map import ShardMap
from tests.unit.engine.planner.cases import CELLS, certain, inventory_of, offer, plan_of, pool, quote
from tests.unit.engine.small_round import Cells, Fleet, no_composites

WEB = pool()


class Harbor:
    """Knows holds."""

    name = "harbor"

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.held: set[str] = set()
        self.paid: set[str] = set()
        self.down = False

    def offers(self, need: object) -> tuple[()]:
        return ()

    def quote(self, offer: object, quantity: int, term: object) -> Quote:
        raise AssertionError("not asked here")

    def hold(self, quote: Quote, *, key: str) -> Hold:
        self.held.add(f"h-{key}")
        expires_at = self._clock.now() + timedelta(minutes=3)
        return Hold(id=f"h-{key}", key=key, quote=quote, expires_at=expires_at, provider_reference=f"h-{key}")  # type: ignore[arg-type]

    def confirm(self, hold: Hold) -> Reservation:
        self.paid.add(str(hold.provider_reference))
        return cast(Reservation, None)

    def release(self, hold_id: str) -> None:
        if self.down:
            raise ProviderUnavailable("harbor is down")
        self.held.discard(hold_id)
        self.paid.discard(hold_id)


class World:
    def __init__(self, database: Database, clock: ManualClock) -> None:
        self.cells, self.harbor = Cells(), Harbor(clock)
        self.map, self.plans = ShardMap(database, clock), PlanStore(database)
        self.fleet = Fleet(self.map)
        self.holds = PlanHolds(ResourceLocking(database, clock), {"harbor": self.harbor})
        terms = Terms(policy=PlanPolicy(), pools=(WEB,), cells=CELLS, term=timedelta(hours=24), seed=1)
        self.steps = ControlSteps(
            terms=terms, demand=cast(Any, None), providers={}, strategies=(), shard_map=self.map, plans=self.plans,
            records=cast(Any, None), holds=self.holds, updates=cast(Any, self.cells), fleet=cast(Any, self.fleet),
            moves=cast(Any, None), clock=clock, observe=unseen,
            watch=MarketWatch(MarketMemory(database), self.map, self.plans, clock),
            composition=no_composites(database, clock, self.map, self.fleet),
        )  # fmt: skip
        quotes = [quote(offer("harbor-1", "0.05", cell=CELLS[3])), quote(offer("aws-1", "0.06"))]
        self.plan: Plan = plan_of([certain(WEB, 4)], quotes, PlanPolicy(max_provider_share=0.5))
        self.bought = {planned.node.id: planned for cell in self.plan.cells for planned in cell.nodes}

    def buy(self) -> None:
        self.holds.hold_all(self.plan)
        self.plans.make_target(self.plan)
        self.holds.confirm_all(self.plan)

    def keeping(self, *leaving: NodeId) -> Plan:
        """The plan after, which keeps every node but those."""
        inventory = inventory_of(self.plan)
        kept = plan_of([certain(WEB, 4)], [], PlanPolicy(), inventory=inventory, parent=self.plan)
        cells = tuple(
            cell.model_copy(update={"nodes": tuple(one for one in cell.nodes if one.node.id not in leaving)})
            for cell in kept.cells
        )
        return cast(Plan, kept.model_copy(update={"cells": cells, "leaving": leaving}))

    def bind(self, node: NodeId) -> ShardId:
        return self.add(node, ShardState.BOUND)

    def add(self, node: NodeId, state: ShardState, shard_type: str = "cpu.small") -> ShardId:
        shard = self.map.add_shard(
            ShardId(f"{node}-s{len(self.map.search(node=node))}"), shard_type=shard_type, pool=PoolId("web"), node=node,
            nominal=Resources(vcpus=1, memory_gib=1), state=state,
        )  # fmt: skip
        return shard.id


@pytest.fixture
def world(database: Database, clock: ManualClock) -> World:
    return World(database, clock)


def _of(world: World, provider: str) -> NodeId:
    return next(name for name, planned in world.bought.items() if planned.node.cell.startswith(f"{provider}/"))


def test_a_purchase_names_the_hold_that_was_paid_for(world: World) -> None:
    world.buy()
    world.steps.grow(world.plan)
    assert world.cells.last[_of(world, "harbor")].hold in world.harbor.paid
    assert world.cells.last[_of(world, "aws")].hold is None


def test_a_node_that_could_not_be_created_is_created_later_on_what_was_paid_for(world: World) -> None:
    world.buy()
    world.cells.failing = {"harbor"}
    world.steps.grow(world.plan)
    world.cells.failing = set()
    node = _of(world, "harbor")
    after = world.keeping()
    world.steps.grow(after)
    created = world.cells.last[node]
    assert created.hold in world.harbor.paid
    assert created.quote == world.bought[node].quote, "with the ceiling that was agreed"
    assert world.cells.last[_of(world, "aws")].quote is None, "what runs is bought already"
    world.steps.grow(after)
    assert world.cells.last[node].quote is None


def test_a_node_that_is_taken_back_stays_in_its_cell_until_its_evacuation_has_ended(world: World) -> None:
    world.buy()
    world.steps.grow(world.plan)
    node = _of(world, "aws")
    world.map.update_node(node, state=NodeState.RECLAIMING)
    shard = world.bind(node)
    after = world.keeping(node)
    world.steps.grow(after)
    assert node in world.cells.last, "ending it now would end the guest that is being moved"
    assert world.steps.moves_off(after) == (), "its evacuation moves what is on it"
    world.map.move(shard, expected_epoch=1, to_node=_of(world, "harbor"))
    world.steps.shrink(after)
    assert node in world.cells.last, "the last of the guest's memory may still be on its way"
    world.map.update_node(node, state=NodeState.GONE)
    world.steps.grow(after)
    assert node not in world.cells.last


def test_a_drained_node_is_given_back_by_the_next_plan_once_it_is_empty(world: World) -> None:
    world.buy()
    world.steps.grow(world.plan)
    node, other = _of(world, "aws"), _of(world, "harbor")
    world.map.update_node(node, state=NodeState.DRAINING)
    shard = world.bind(node)
    assert node not in {item.node.id for item in world.steps.inventory().nodes if item.stays}
    after = world.keeping(node)
    world.steps.shrink(after)
    assert node in world.cells.last, "a component is still bound to one of its shards"
    world.map.move(shard, expected_epoch=1, to_node=other)
    world.steps.shrink(after)
    assert node not in world.cells.last
    assert world.map.node(node).state is NodeState.GONE


def test_nothing_moves_to_a_node_that_did_not_join_or_takes_nothing(world: World) -> None:
    world.buy()
    world.steps.grow(world.plan)
    node, other = _of(world, "aws"), _of(world, "harbor")
    world.map.update_node(node, state=NodeState.DRAINING)
    shard = world.bind(node)
    after = world.keeping(node)
    for state in (NodeState.EXPECTED, NodeState.DRAINING, NodeState.RECLAIMING):
        world.map.update_node(other, state=state)
        assert world.steps.moves_off(after) == ()
    world.map.update_node(other, state=NodeState.JOINED)
    assert [(one.shard, one.destination) for one in world.steps.moves_off(after)] == [(shard, other)]


def test_a_shard_that_comes_while_nodes_are_given_back_keeps_its_node(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.buy()
    world.steps.grow(world.plan)
    first, second = _of(world, "aws"), _of(world, "harbor")
    for node in (first, second):
        world.map.update_node(node, state=NodeState.JOINED)
    spare = world.add(first, ShardState.READY)
    seen: list[NodeState] = []
    release = world.fleet.release

    def slowly(shard: Shard) -> None:
        seen.append(world.map.node(second).state)
        world.bind(second)
        release(shard)

    monkeypatch.setattr(world.fleet, "release", slowly)
    world.steps.shrink(world.keeping(first, second))
    assert world.fleet.released == [spare]
    assert seen == [NodeState.DRAINING], "nobody is sent to a node that is given back"
    assert second in world.cells.last
    assert (world.map.node(first).state, world.map.node(second).state) == (NodeState.GONE, NodeState.JOINED)


@pytest.mark.parametrize("state", [ShardState.BOUND, ShardState.DRAINING])
def test_a_node_whose_replica_is_drained_stays_too(world: World, state: ShardState) -> None:
    world.buy()
    world.steps.grow(world.plan)
    node = _of(world, "aws")
    world.map.update_node(node, state=NodeState.JOINED)
    world.add(node, state)
    world.steps.shrink(world.keeping(node))
    assert world.fleet.released == []
    assert node in world.cells.last


def test_nothing_is_carved_on_or_bound_to_a_drained_node(world: World) -> None:
    world.buy()
    world.steps.grow(world.plan)
    node = _of(world, "aws")
    world.map.update_node(node, state=NodeState.DRAINING)
    spare = world.map.add_shard(
        ShardId("spare"), shard_type="cpu.small", pool=PoolId("web"), node=node,
        nominal=Resources(vcpus=1, memory_gib=1), state=ShardState.READY,
    )  # fmt: skip
    report = world.steps.carve(world.plan, ())
    assert f"{node} is drained; its shards wait for the next round" in report.problems
    assert world.map.get(spare.id).state is ShardState.READY


def test_a_shard_whose_type_is_not_configured_any_more_is_named_and_the_others_are_carved(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.buy()
    world.steps.grow(world.plan)
    node = _of(world, "aws")
    world.map.update_node(node, state=NodeState.JOINED)
    old = world.add(node, ShardState.HELD, shard_type="cpu.old")
    known = world.bought[node].slots[0].shard_type
    types = {known: ShardType(name=known, resources=Resources(vcpus=1, memory_gib=1))}
    monkeypatch.setattr(Composition, "shard_types", lambda _self: types)
    carved: list[ShardId] = []
    monkeypatch.setattr(world.fleet, "carve_all", lambda shards: carved.extend(shard.id for shard in shards) or ())
    report = world.steps.carve(world.plan, ())
    assert f"{old}: its type cpu.old is not configured any more" in report.problems
    assert carved
    assert old not in carved
    types.clear()
    carved.clear()
    report = world.steps.carve(world.plan, ())
    assert len([problem for problem in report.problems if "is not configured any more" in problem]) >= 2
    assert carved == []


def test_what_a_silent_node_did_not_give_up_is_given_up_once_it_answers(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.buy()
    world.steps.grow(world.plan)
    silent, other = _of(world, "aws"), _of(world, "harbor")
    for _ in range(2):
        world.add(silent, ShardState.RELEASED)
    spare = world.add(other, ShardState.RELEASED)
    asked: list[ShardId] = []
    release = world.fleet.release

    def answers(shard: Shard) -> None:
        asked.append(shard.id)
        if shard.node == silent:
            raise ProviderUnavailable(f"node {silent} does not answer")
        release(shard)

    with monkeypatch.context() as patched:
        patched.setattr(world.fleet, "release", answers)
        world.steps.carve(world.plan, ())
    assert len(asked) == 2, "a silent node is asked once a round"
    assert world.fleet.released == [spare]
    world.steps.carve(world.plan, ())
    assert len(world.fleet.released) == 3
    assert world.map.search() == ()


def test_a_node_that_never_came_up_leaves_at_once_and_what_was_paid_for_it_is_given_back(world: World) -> None:
    world.buy()
    world.cells.failing = {"harbor"}
    world.steps.grow(world.plan)
    node = _of(world, "harbor")
    after = world.keeping(node)
    world.steps.grow(after)
    assert node not in world.cells.last
    world.cells.failing = set()
    world.steps.shrink(after)
    assert world.map.node(node).state is NodeState.GONE
    assert world.harbor.paid == set()


def test_what_a_round_held_before_it_broke_off_is_given_back(world: World) -> None:
    world.holds.hold_all(world.plan)
    world.steps.recover()
    assert world.harbor.held == set()
    assert world.map.nodes() == ()


def test_a_provider_that_is_down_does_not_stop_the_rounds_of_the_others(world: World) -> None:
    world.holds.hold_all(world.plan)
    world.harbor.down = True
    world.steps.recover()
    assert world.harbor.held
    world.harbor.down = False
    world.steps.recover()
    assert world.harbor.held == set()


def test_what_a_round_paid_for_before_it_broke_off_is_created_by_the_next(world: World) -> None:
    world.buy()
    world.steps.recover()
    world.steps.recover()
    assert {node.id: node.state for node in world.map.nodes()} == dict.fromkeys(world.bought, NodeState.EXPECTED)
    world.steps.grow(world.keeping())
    assert {name: one.hold for name, one in world.cells.last.items()} == {
        _of(world, "harbor"): next(iter(world.harbor.paid)),
        _of(world, "aws"): None,
    }
