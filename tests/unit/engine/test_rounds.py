"""Rounds one after another, on a real store: what one learns of the market, the next ones keep to."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from engine import rounds
from engine.clock import ManualClock
from engine.errors import AuthenticationFailed, NoOfferFits, PolicyViolation, ProviderUnavailable
from engine.inventory import JOINS_WITHIN
from engine.market.base import Market, Need
from engine.market.depth import HALF_LIFE, MEMORY, STANDS
from engine.model.capacity import CapacityTarget
from engine.model.ids import NodeId, RoundId, provider_of
from engine.model.market import Hold, Offer, PurchaseOption, Quote, ReclaimNotice
from engine.model.placement import NodeState
from engine.model.plan import Plan
from engine.round_record import RoundRecord
from engine.store.database import Database
from tests.unit.engine.planner.cases import CELLS, certain, offer, pool
from tests.unit.engine.small_round import HoldingSeller, Seller, SmallRound

WEB = pool()
AWS, GCP, HARBOR = CELLS[0], CELLS[1], CELLS[3]
SOON = timedelta(minutes=10)
Runs = Callable[[SmallRound, int], RoundRecord]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, clock: ManualClock) -> Runs:
    """One round for so many shards, its steps called as they are."""
    workflow: Any = rounds.run_round
    monkeypatch.setattr(rounds, "_step", lambda _, act, *args: act(*args))
    counted = iter(range(100))

    def one(world: SmallRound, shards: int) -> RoundRecord:
        monkeypatch.setattr(rounds, "_steps", world.steps)
        monkeypatch.setattr(world.demand, "now", (_wanted(shards),))
        record: RoundRecord = workflow.__wrapped__(RoundId(f"round-{next(counted)}"))
        clock.advance(SOON)
        return record

    return one


def _wanted(shards: int) -> CapacityTarget:
    return certain(WEB, shards)


def running(world: SmallRound) -> dict[str, int]:
    """Nodes that run or are on their way, by provider."""
    found: dict[str, int] = {}
    for node in world.map.nodes(states=[NodeState.EXPECTED, NodeState.JOINED]):
        provider = provider_of(node.cell)
        found[provider] = found.get(provider, 0) + 1
    return found


def shallow(database: Database, clock: ManualClock, room: int) -> tuple[SmallRound, HoldingSeller]:
    """harbor is cheap, posts eight units and has fewer; gcp is dear and has any number. A unit carries two shards."""
    harbor = HoldingSeller("harbor", clock, offer("harbor-1", "0.05", cell=HARBOR, available=8), room=room)
    gcp = Seller("gcp", clock, offer("gcp-1", "0.08", cell=GCP))
    return SmallRound(database, clock, WEB, harbor, gcp), harbor


def test_what_was_denied_is_not_asked_for_again_until_it_drifts(
    database: Database, clock: ManualClock, run: Runs
) -> None:
    world, harbor = shallow(database, clock, room=0)
    run(world, 4)
    assert len(harbor.hold_asked) == 2
    assert running(world) == {"gcp": 2}
    asked = len(harbor.asked)
    second = run(world, 8)
    assert (len(harbor.hold_asked), len(harbor.asked)) == (2, asked), "neither a price nor a hold"
    assert running(world) == {"gcp": 4}
    reasons = {one.offer: one.reason for one in second.plan.rejections}
    assert reasons["harbor-1"] == "exhausted: denied 2 of 2 at 12:00; believed depth 0"
    clock.advance(STANDS + HALF_LIFE)
    harbor.room = 8
    third = run(world, 12)
    assert running(world) == {"gcp": 2, "harbor": 4}, "as many as are believed to be there, cheaper as they are"
    chosen = {row.offer.id: row.reason for row in third.plan.decisions}
    assert chosen["harbor-1"].endswith("; denied 2 of 2 at 12:00; believed depth 4")


def test_a_place_that_granted_some_is_used_as_far_as_it_went(database: Database, clock: ManualClock, run: Runs) -> None:
    world, harbor = shallow(database, clock, room=1)
    run(world, 4)
    assert running(world) == {"gcp": 2}, "within a round, what was refused is left out altogether"
    run(world, 8)
    assert running(world) == {"gcp": 3, "harbor": 1}
    assert len(harbor.hold_asked) == 3, "one more, and granted"
    run(world, 12)
    assert running(world) == {"gcp": 5, "harbor": 1}
    assert len(harbor.hold_asked) == 3


def test_a_belief_gives_way_where_nothing_else_is_on_offer(database: Database, clock: ManualClock, run: Runs) -> None:
    harbor = HoldingSeller("harbor", clock, offer("harbor-1", "0.05", cell=HARBOR, available=8), room=1)
    world = SmallRound(database, clock, WEB, harbor)
    with pytest.raises(NoOfferFits):
        run(world, 4)
    harbor.room = 4
    run(world, 4)
    assert running(world) == {"harbor": 2}
    assert any("everything that is advertised is asked for" in said for said in world.said)


@pytest.mark.parametrize(
    "problem", [ProviderUnavailable("harbor is down"), AuthenticationFailed("harbor refuses the token")]
)
def test_a_provider_that_goes_between_quote_and_hold_leaves_the_round_to_the_others(
    database: Database, clock: ManualClock, run: Runs, monkeypatch: pytest.MonkeyPatch, problem: Exception
) -> None:
    """It has more offers than a round makes plans, each cheaper than what the others sell."""
    cheap = [offer(f"harbor-{number}", f"0.0{number}", cell=HARBOR) for number in range(1, 7)]
    harbor = HoldingSeller("harbor", clock, *cheap, room=8)
    world = SmallRound(database, clock, WEB, harbor, Seller("gcp", clock, offer("gcp-1", "0.08", cell=GCP)))

    def gone(quote: Quote, *, key: str) -> Hold:
        raise problem

    monkeypatch.setattr(harbor, "hold", gone)
    run(world, 4)
    assert running(world) == {"gcp": 2}
    assert "hold: harbor cannot be asked any more; the round goes on without what it offers" in world.said


def test_a_round_names_what_stopped_it_though_its_holds_cannot_be_given_back(
    database: Database, clock: ManualClock, run: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, harbor = shallow(database, clock, room=8)

    def refused(plan: Plan, user_data: object) -> None:
        raise PolicyViolation("the policy pack refuses the update")

    def down(hold_id: str) -> None:
        raise ProviderUnavailable("harbor is down")

    monkeypatch.setattr(world.cells, "judge", refused)
    with monkeypatch.context() as patched:
        patched.setattr(harbor, "release", down)
        with pytest.raises(PolicyViolation):
            run(world, 4)
    assert any("a later round tries again: harbor is down" in said for said in world.said)
    assert len(harbor.held) == 2
    world.steps.recover()
    assert harbor.held == set()


class Noting:
    """Buys nothing."""

    name = "noting"

    def __init__(self) -> None:
        self.keys: list[str] = []

    def negotiate(self, need: Need, offers: Sequence[Offer], market: Market) -> Sequence[Quote]:
        self.keys.append(need.key)
        return ()


def test_what_is_asked_for_anyway_is_asked_for_under_a_key_of_its_own(database: Database, clock: ManualClock) -> None:
    """Under the round's, a bid would be answered with what came of the one before it."""
    world, noting = SmallRound(database, clock, WEB, Seller("gcp", clock, offer("gcp-1", "0.08", cell=GCP))), Noting()
    steps, targets = replace(world.steps, strategies=(noting,)), (_wanted(2),)
    view = steps.discover(targets)
    steps.negotiate(RoundId("r1"), targets, view)
    for _ in range(2):
        steps.ask_anyway(RoundId("r1"), targets, view)
    first, second, again = noting.keys
    assert first == "r1"
    assert second == again != first, "the same again after a crash"


def test_a_node_that_could_not_be_created_is_given_up_and_had_elsewhere(
    database: Database, clock: ManualClock, run: Runs
) -> None:
    aws = Seller("aws", clock, offer("aws-1", "0.05", cell=AWS))
    gcp = Seller("gcp", clock, offer("gcp-1", "0.08", cell=GCP))
    world = SmallRound(database, clock, WEB, aws, gcp)
    world.cells.room = {"aws": 1}
    first = run(world, 6)
    assert [len(failure.denied) for failure in first.failures] == [2]
    denied = set(first.failures[0].denied)
    made = {node.id for node in world.map.nodes() if node.instance_id is not None}
    bought = {planned.node.id for cell in first.plan.cells for planned in cell.nodes}
    assert made == bought - denied, "what was made beside them is known, and its agent waited for"
    asked = len(world.cells.asked)
    second = run(world, 6)
    assert set(second.plan.leaving) == denied
    assert {world.map.node(node).state for node in denied} == {NodeState.GONE}
    assert running(world) == {"aws": 1, "gcp": 2}
    assert second.failures == ()
    assert not denied & set(world.cells.asked[asked:])
    told = {row.offer.id: row.reason for row in second.plan.decisions} | {
        one.offer: one.reason for one in second.plan.rejections
    }
    assert "denied 2 of 3 at 12:00; believed depth 1, 1 of it ours" in told["aws-1"]
    for node in denied:
        assert world.holds.hold_of(world.plans.bought([node])[0].token) is None, "what was leased for it is free"


def test_what_was_denied_is_asked_for_again_once_the_denial_is_forgotten(
    database: Database, clock: ManualClock, run: Runs
) -> None:
    world = SmallRound(database, clock, WEB, Seller("aws", clock, offer("aws-1", "0.05", cell=AWS)))
    world.cells.room = {"aws": 0}
    denied = run(world, 2).failures[0].denied
    clock.advance(MEMORY)
    world.cells.room = {}
    again = run(world, 2)
    assert again.plan.leaving == denied, "nobody waits for it any more"
    assert [len(cell.nodes) for cell in again.plan.cells] == [1]
    assert all(world.map.node(one.node.id).instance_id for cell in again.plan.cells for one in cell.nodes)


@pytest.mark.parametrize("created", [True, False])
def test_a_node_that_never_joins_is_given_back_and_replaced(
    database: Database, clock: ManualClock, run: Runs, created: bool
) -> None:
    """Its boot fails, or its instance was taken back before its agent could tell, or it was never made."""
    seller = HoldingSeller("harbor", clock, offer("harbor-1", "0.05", cell=HARBOR), room=3)
    world = SmallRound(database, clock, WEB, seller)
    world.cells.failing = set() if created else {"harbor"}
    first = run(world, 2)
    (node,) = (planned.node.id for cell in first.plan.cells for planned in cell.nodes)
    (paid,) = seller.held
    clock.advance(JOINS_WITHIN - 2 * SOON)
    assert run(world, 2).plan.is_noop, "it may still boot"
    world.cells.failing = set()
    second = run(world, 2)
    assert second.plan.leaving == (node,)
    assert [one.node.id for cell in second.plan.cells for one in cell.nodes if one.quote is not None] != []
    assert f"decide: {node} has not joined for 30 minutes and is given back" in world.said
    assert world.map.node(node).state is NodeState.GONE
    assert node not in world.cells.last
    assert paid not in seller.held


def test_a_node_that_has_joined_is_not_asked_when_it_was_bought(
    database: Database, clock: ManualClock, run: Runs
) -> None:
    world = SmallRound(database, clock, WEB, Seller("aws", clock, offer("aws-1", "0.05", cell=AWS)))
    first = run(world, 2)
    for cell in first.plan.cells:
        for planned in cell.nodes:
            world.map.update_node(planned.node.id, state=NodeState.JOINED)
    clock.advance(2 * JOINS_WITHIN)
    assert run(world, 2).plan.is_noop


def test_a_place_that_takes_back_is_left_alone_and_trusted_less(
    database: Database, clock: ManualClock, run: Runs
) -> None:
    spot = offer("aws-1", "0.03", cell=AWS, option=PurchaseOption.SPOT)
    world = SmallRound(
        database, clock, WEB, Seller("aws", clock, spot), Seller("gcp", clock, offer("gcp-1", "0.05", cell=GCP))
    )
    first = run(world, 1)
    node = next(planned.node.id for cell in first.plan.cells for planned in cell.nodes)
    assert running(world) == {"aws": 1}
    world.map.update_node(node, state=NodeState.RECLAIMING)
    notice = ReclaimNotice(node=NodeId(node), provider="aws", seen_at=clock.now(), at=clock.now() + SOON)
    for _ in range(2):
        world.watch.taken_back(notice)
    run(world, 1)
    assert running(world) == {"gcp": 1}
    known = world.watch.beliefs()
    seen = known.of(spot)
    assert seen.reliability.own is not None
    assert (seen.reliability.own.reclaims, seen.reliability.own.node_hours) == (1, pytest.approx(1 / 6))
    assert seen.reliability.interruption_per_month is not None
    assert seen.reliability.interruption_per_month > 0.15


def test_what_runs_where_others_were_taken_back_is_trusted_less(
    database: Database, clock: ManualClock, run: Runs
) -> None:
    spot = offer("aws-1", "0.03", cell=AWS, option=PurchaseOption.SPOT)
    world = SmallRound(database, clock, WEB, Seller("aws", clock, spot))
    first = run(world, 4)
    taken, stays = sorted(planned.node.id for cell in first.plan.cells for planned in cell.nodes)[:2]
    world.map.update_node(taken, state=NodeState.RECLAIMING)
    before = world.steps.inventory().nodes
    world.watch.taken_back(ReclaimNotice(node=taken, provider="aws", seen_at=clock.now(), at=clock.now() + SOON))
    after = world.steps.inventory().nodes
    losses = [
        next(item.loss_within(24, world.steps.terms.policy) for item in nodes if item.node.id == stays)
        for nodes in (before, after)
    ]
    assert losses[0] * 1.5 < losses[1] < 0.5


def test_which_nodes_are_closed_is_written_down_before_they_are(
    database: Database, clock: ManualClock, run: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a round that goes on after a crash takes them for drained, and never opens those that stay."""
    world, _ = shallow(database, clock, room=8)
    run(world, 8)
    for node in world.map.nodes():
        world.map.update_node(node.id, state=NodeState.JOINED)
    seen: list[tuple[str, set[NodeState]]] = []

    def step(name: str, act: Callable[..., Any], *args: Any) -> Any:
        found = act(*args)
        seen.append((name, {node.state for node in world.map.nodes()}))
        return found

    monkeypatch.setattr(rounds, "_step", step)
    run(world, 2)
    states = dict(seen)
    assert list(states)[-4:] == ["to_close", "shrink", "finish", "record"]
    assert states["to_close"] == {NodeState.JOINED}
    assert states["shrink"] == {NodeState.JOINED, NodeState.GONE}
