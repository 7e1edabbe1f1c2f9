"""Two phases over a plan: everything or nothing, also when the control plane dies in between."""

from datetime import timedelta

import pytest

from engine.allocation.holds import HoldPhase, PlanHolds
from engine.allocation.locking import ResourceLocking
from engine.clock import ManualClock
from engine.errors import ConcurrentUpdate, InsufficientCapacity, NotFound, ProviderUnavailable
from engine.model.ids import HoldId, ReservationId
from engine.model.market import Hold, Quote, Reservation
from engine.model.plan import Plan
from engine.planner.policy import PlanPolicy
from tests.unit.engine.planner.cases import CELLS, NOW, certain, offer, plan_of, pool, quote


class Crash(BaseException):
    """The process is gone: nothing catches it."""


class Market:
    """A provider that knows holds; ``crash`` and ``fail`` name the call in which it does so, once it has acted."""

    def __init__(self, name: str, clock: ManualClock) -> None:
        self.name, self._clock = name, clock
        self.holds: dict[str, Hold] = {}
        self.paid: set[str] = set()
        self.answered: dict[str, Hold] = {}
        self.calls: list[str] = []
        self.crash: str | None = None
        self.fail: Exception | None = None

    def offers(self, need: object) -> tuple[()]:
        return ()

    def quote(self, offer: object, quantity: int, term: object) -> Quote:
        raise InsufficientCapacity("not asked here")

    def hold(self, quote: Quote, *, key: str) -> Hold:
        self.calls.append(f"hold {key}")
        if self.fail is not None:
            raise self.fail
        assert quote.quantity == 1
        expires_at = self._clock.now() + timedelta(minutes=3)
        found = Hold(id=HoldId(f"h-{key}"), key=key, quote=quote, expires_at=expires_at, provider_reference=f"r-{key}")
        if key not in self.answered:
            self.answered[key] = self.holds[f"r-{key}"] = found
        self._maybe_crash("hold")
        return self.answered[key]

    def confirm(self, hold: Hold) -> Reservation:
        reference = hold.provider_reference or ""
        if reference not in self.holds:
            raise NotFound(f"no hold {reference}")
        self.paid.add(reference)
        self._maybe_crash("confirm")
        return Reservation(
            id=ReservationId(reference), hold_id=hold.id, quote=hold.quote, confirmed_at=self._clock.now()
        )

    def release(self, hold_id: str) -> None:
        self.holds.pop(hold_id, None)
        self.paid.discard(hold_id)
        self._maybe_crash("release")

    def _maybe_crash(self, call: str) -> None:
        if self.crash == call:
            self.crash = None
            raise Crash


class PlainProvider:
    """Knows no holds."""

    name = "aws"

    def offers(self, need: object) -> tuple[()]:
        return ()

    def quote(self, offer: object, quantity: int, term: object) -> Quote:
        raise InsufficientCapacity("not asked here")


@pytest.fixture
def plan() -> Plan:
    """Two nodes at harbor (which knows holds), two at aws (which does not)."""
    quotes = [quote(offer("harbor-1", "0.05", cell=CELLS[3])), quote(offer("aws-1", "0.06"))]
    return plan_of([certain(pool(), 8)], quotes, PlanPolicy(max_provider_share=0.5))


@pytest.fixture
def harbor(clock: ManualClock) -> Market:
    return Market("harbor", clock)


@pytest.fixture
def holds(locking: ResourceLocking, harbor: Market) -> PlanHolds:
    return PlanHolds(locking, {"harbor": harbor, "aws": PlainProvider()})


def _tokens(plan: Plan) -> list[str]:
    return [node.token for cell in plan.cells for node in cell.nodes]


def test_holds_every_purchase_once(plan: Plan, holds: PlanHolds, harbor: Market) -> None:
    first, second = holds.hold_all(plan), holds.hold_all(plan)
    assert first == second
    assert not first.refused
    assert len(first.held) == 4
    assert len(harbor.calls) == 2, "the same keys are not asked for again"
    references = {held.hold.provider_reference for held in first.held}
    assert len(references - {None}) == 2
    assert None in references, "where the provider knows no holds, ours stands alone"


def test_confirms_and_repeats_without_paying_twice(plan: Plan, holds: PlanHolds, harbor: Market) -> None:
    holds.hold_all(plan)
    assert holds.confirm_all(plan) == holds.confirm_all(plan)
    assert len(harbor.paid) == 2
    assert holds.hold_all(plan).held, "a repeated step finds what is confirmed"


def test_one_refusal_gives_everything_back(
    plan: Plan, holds: PlanHolds, harbor: Market, locking: ResourceLocking
) -> None:
    harbor.fail = ProviderUnavailable("harbor is down")
    report = holds.hold_all(plan)
    assert not report.held
    assert {refusal.offer for refusal in report.refused} == {"harbor-1"}
    assert "harbor is down" in report.refused[0].reason
    assert locking.leases.taken("quote:aws:q-aws-1") == 0
    assert locking.leases.phase(plan.id) == HoldPhase.RELEASED
    with pytest.raises(ConcurrentUpdate):
        holds.confirm_all(plan)


def test_only_what_a_provider_has_none_of_is_told_as_denied(plan: Plan, holds: PlanHolds, harbor: Market) -> None:
    harbor.fail = InsufficientCapacity("none left")
    assert [refusal.denied for refusal in holds.hold_all(plan).refused] == [True, True]
    harbor.fail = ProviderUnavailable("harbor is down")
    assert [refusal.denied for refusal in holds.hold_all(plan).refused] == [False, False]


def test_a_limit_of_our_own_is_no_denial(plan: Plan, holds: PlanHolds, locking: ResourceLocking) -> None:
    """Somebody else here has all that the quote promises."""
    quote = next(node.quote for cell in plan.cells for node in cell.nodes if node.quote is not None)
    locking.reserve_quote(quote, quote.quantity, key="other", group="other", holder="other")
    refused = holds.hold_all(plan).refused
    assert {refusal.offer for refusal in refused} == {quote.offer.id}
    assert not any(refusal.denied for refusal in refused)


def test_a_plan_made_anew_is_held_anew(plan: Plan, holds: PlanHolds, harbor: Market) -> None:
    """Same nodes, same tokens, and the provider remembers the keys of what was given back."""
    holds.hold_all(plan)
    holds.release_all(plan.id)
    assert not harbor.holds
    holds.hold_all(plan)
    assert len(harbor.holds) == 2
    holds.confirm_all(plan)
    assert harbor.paid == set(harbor.holds)


def test_a_lapsed_hold_gives_everything_back(
    plan: Plan, holds: PlanHolds, harbor: Market, clock: ManualClock, locking: ResourceLocking
) -> None:
    holds.hold_all(plan)
    clock.advance(timedelta(minutes=4))
    with pytest.raises(NotFound):
        holds.confirm_all(plan)
    assert not harbor.holds
    assert not harbor.paid
    locking.expire()
    assert locking.leases.taken("quote:aws:q-aws-1") == 0


@pytest.mark.parametrize("call", ["hold", "confirm"])
def test_a_crash_is_recovered_from(
    call: str, plan: Plan, holds: PlanHolds, harbor: Market, locking: ResourceLocking
) -> None:
    """Before the line everything is given back; after it everything is confirmed."""
    harbor.crash = call

    def round_() -> None:
        holds.hold_all(plan)
        holds.confirm_all(plan)

    with pytest.raises(Crash):
        round_()
    restarted = PlanHolds(locking, {"harbor": harbor, "aws": PlainProvider()})
    report = restarted.recover()
    if call == "hold":
        assert report.released == (plan.id,)
        assert not harbor.holds
        assert locking.leases.taken("quote:aws:q-aws-1") == 0
    else:
        assert report.confirmed == (plan.id,)
        assert len(harbor.paid) == 2
        assert locking.leases.taken("quote:aws:q-aws-1") == 2
    assert restarted.recover() == type(report)(), "once is enough"


def test_a_crash_before_the_confirmation_gives_back(plan: Plan, holds: PlanHolds, harbor: Market) -> None:
    holds.hold_all(plan)
    assert holds.recover().released == (plan.id,)
    assert not harbor.holds


def test_a_round_that_resumes_by_itself_keeps_its_holds(plan: Plan, holds: PlanHolds, harbor: Market) -> None:
    holds.hold_all(plan)
    assert holds.recover(in_progress=[plan.id]) == type(holds.recover(in_progress=[plan.id]))()
    assert len(harbor.holds) == 2
    assert len(holds.confirm_all(plan).held) == 4


def test_a_crash_while_confirming_that_outlasts_the_holds(
    plan: Plan, holds: PlanHolds, harbor: Market, clock: ManualClock
) -> None:
    """Our leases are confirmed before anybody is paid, so a long outage loses nothing that was paid for."""
    holds.hold_all(plan)
    harbor.crash = "confirm"
    with pytest.raises(Crash):
        holds.confirm_all(plan)
    clock.advance(timedelta(hours=2))
    assert holds.recover().confirmed == (plan.id,)
    assert len(harbor.paid) == 2


def test_a_crash_while_giving_back_is_finished(
    plan: Plan, holds: PlanHolds, harbor: Market, locking: ResourceLocking
) -> None:
    holds.hold_all(plan)
    harbor.crash = "release"
    with pytest.raises(Crash):
        holds.release_all(plan.id)
    assert holds.recover().released == (plan.id,)
    assert not harbor.holds
    assert locking.leases.taken("quote:harbor:q-harbor-1") == 0


def test_a_node_that_left_is_given_back(plan: Plan, holds: PlanHolds, harbor: Market) -> None:
    holds.hold_all(plan)
    holds.confirm_all(plan)
    token = next(token for token in _tokens(plan) if "harbor" in token)
    assert holds.hold_of(token) is not None
    holds.release_node(token)
    holds.release_node(token)
    holds.release_node("shard:nowhere:sw-0-0:0")
    assert holds.hold_of(token) is None
    assert len(harbor.paid) == 1


def test_two_plans_share_one_quote_without_overselling(locking: ResourceLocking) -> None:
    scarce = [quote(offer("aws-1", "0.06"), quantity=2)]
    holds = PlanHolds(locking, {"aws": PlainProvider()})
    first = plan_of([certain(pool(), 4)], scarce, seed=1)
    second = plan_of([certain(pool(), 4)], scarce, PlanPolicy(node_prefix="other"), seed=2)
    assert first.made_at == NOW
    assert not holds.hold_all(first).refused
    assert "left" in holds.hold_all(second).refused[0].reason
