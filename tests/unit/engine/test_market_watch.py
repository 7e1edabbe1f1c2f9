"""What is kept of a round: who was denied what, who ran for how long; and nothing twice."""

from datetime import timedelta

import pytest

from engine.allocation.holds import HoldsReport, Refusal
from engine.clock import ManualClock
from engine.market.negotiation import DeniedQuote, Negotiation
from engine.market.observations import Answer, AnswerKind
from engine.market_watch import KEPT
from engine.model.ids import NodeId, OfferId, provider_of
from engine.model.market import Place, ReclaimNotice
from engine.model.placement import NodeState
from engine.model.plan import Plan, PlannedNode
from engine.planner.policy import PlanPolicy
from engine.reconcile import CellFailure, CellResult
from engine.store.database import Database
from stacks.base import CellOutcome, ResourceChanges
from tests.unit.engine.planner.cases import CELLS, certain, offer, plan_of, pool, quote
from tests.unit.engine.small_round import SmallRound


class World(SmallRound):
    """Two nodes of one place at aws and one at gcp are bought; none is there yet."""

    def __init__(self, database: Database, clock: ManualClock) -> None:
        super().__init__(database, clock, pool())
        quotes = [quote(offer("aws-1", "0.05"), quantity=2), quote(offer("gcp-1", "0.06", cell=CELLS[1]))]
        self.plan: Plan = plan_of([certain(pool(), 6)], quotes, PlanPolicy())
        self.bought: list[PlannedNode] = [node for cell in self.plan.cells for node in cell.nodes]
        self.plans.make_target(self.plan)
        for planned in self.bought:
            self.map.put_node(planned.node)

    def at(self, provider: str) -> list[PlannedNode]:
        return [planned for planned in self.bought if provider_of(planned.node.place.cell) == provider]

    def place(self, provider: str) -> Place:
        return self.at(provider)[0].node.place

    def known(self) -> dict[Place, tuple[AnswerKind, int, int, int]]:
        """Place -> kind, asked, denied, held."""
        answers = self.memory.answers(since=self.clock.now() - KEPT)
        return {one.place: (one.kind, one.asked, one.denied, one.held) for one in answers}

    def failed(self, provider: str, *denied: NodeId) -> CellFailure:
        cell = next(cell for cell in self.plan.cells if cell.cell.provider == provider)
        return CellFailure(cell=cell.cell, generation=1, kind="ProviderError", what="failed", denied=denied)

    def made(self, provider: str) -> CellOutcome:
        cell = next(cell for cell in self.plan.cells if cell.cell.provider == provider)
        return CellOutcome(cell=cell.cell, generation=1, changes=ResourceChanges())

    def created(self, *results: CellResult) -> None:
        self.watch.created(self.plan, "grow", self.bought, results)


@pytest.fixture
def world(database: Database, clock: ManualClock) -> World:
    return World(database, clock)


def test_who_was_created_and_who_could_not_be(world: World) -> None:
    denied = world.at("aws")[1].node.id
    for _ in range(2):
        world.created(world.failed("aws", denied), world.made("gcp"))
    assert world.known() == {
        world.place("aws"): (AnswerKind.CREATE, 2, 1, 1),
        world.place("gcp"): (AnswerKind.CREATE, 1, 0, 1),
    }
    assert world.watch.beliefs().denied_nodes == {denied}


def test_of_a_cell_that_failed_for_another_reason_nothing_is_learned(world: World) -> None:
    world.created(world.failed("aws"), world.made("gcp"))
    assert list(world.known()) == [world.place("gcp")]


def test_a_second_attempt_that_went_well_takes_the_place_of_the_first(world: World) -> None:
    world.created(world.failed("aws", world.at("aws")[1].node.id), world.made("gcp"))
    for planned in world.bought:
        world.map.update_node(planned.node.id, instance_id=f"i-{planned.node.id}")
    world.created(world.made("aws"), world.made("gcp"))
    assert world.known()[world.place("aws")] == (AnswerKind.CREATE, 2, 0, 2)
    assert world.watch.beliefs().denied_nodes == frozenset()


def test_who_could_not_be_held(world: World) -> None:
    def refusal(planned: PlannedNode, *, denied: bool) -> Refusal:
        assert planned.quote is not None
        return Refusal(
            node=planned.node.id, offer=planned.quote.offer.id, provider="p", reason="none left", denied=denied
        )

    for planned in world.bought:
        world.map.remove_node(planned.node.id)
    refused = (refusal(world.at("aws")[0], denied=True), refusal(world.at("gcp")[0], denied=False))
    world.watch.held(world.plan, HoldsReport(plan=world.plan.id, refused=refused))
    assert world.known() == {world.place("aws"): (AnswerKind.HOLD, 2, 1, 1)}


def test_what_was_refused_for_another_reason_was_not_granted(world: World) -> None:
    """One had none left; before that, the quote of the other had expired."""
    for planned in world.bought:
        world.map.remove_node(planned.node.id)
    first, second = (planned.node.id for planned in world.at("aws"))
    refused = tuple(
        Refusal(node=node, offer=OfferId("o"), provider="aws", reason="", denied=node == first)
        for node in (first, second)
    )
    world.watch.held(world.plan, HoldsReport(plan=world.plan.id, refused=refused))
    assert world.known() == {world.place("aws"): (AnswerKind.HOLD, 1, 1, 0)}


def test_what_was_denied_while_prices_were_asked_for(world: World) -> None:
    denied = DeniedQuote(place=world.place("aws"), units=6)
    world.watch.quoted("round-1", Negotiation(quotes=(), rejections=(), denied=(denied,)))
    assert world.known() == {world.place("aws"): (AnswerKind.QUOTE, 6, 6, 2)}


def test_node_hours_run_from_when_a_node_is_there_until_it_is_not(world: World) -> None:
    node, other = (planned.node.id for planned in world.at("aws"))
    world.watch.running()
    assert world.memory.stays() == (), "what is on its way does not run"
    for name in (node, other):
        world.map.update_node(name, state=NodeState.JOINED, instance_id=f"i-{name}")
    world.watch.running()
    for _ in range(3):
        world.clock.advance(timedelta(hours=1))
        world.watch.running()
    world.map.update_node(node, state=NodeState.GONE)
    world.clock.advance(timedelta(hours=1))
    world.watch.running()
    assert {stay.node: stay.hours for stay in world.memory.stays()} == {node: 3, other: 4}


def test_a_reclaim_counts_once_however_often_it_is_told(world: World) -> None:
    node, other = (planned.node.id for planned in world.at("aws"))
    for name in (node, other):
        world.map.update_node(name, state=NodeState.JOINED, instance_id=f"i-{name}")
    world.watch.running()
    world.clock.advance(timedelta(hours=2))
    world.map.update_node(node, state=NodeState.RECLAIMING)
    now = world.clock.now()
    for _ in range(3):
        world.watch.taken_back(ReclaimNotice(node=node, provider="aws", seen_at=now, at=now + timedelta(minutes=2)))
    own = world.watch.beliefs().own[world.place("aws")]
    assert (own.reclaims, own.node_hours) == (1, 2)
    assert world.known() == {world.place("aws"): (AnswerKind.RECLAIM, 0, 0, 1)}


def test_what_is_old_is_forgotten(world: World) -> None:
    old = Answer(
        event="hold:old", place=world.place("aws"), kind=AnswerKind.HOLD, at=world.clock.now(),
        asked=1, denied=1, held=0,
    )  # fmt: skip
    world.memory.answered([old])
    world.watch.forget()
    assert world.known()
    world.clock.advance(KEPT + timedelta(seconds=1))
    world.watch.forget()
    assert world.memory.answers(since=old.at) == ()
