"""Two phases over a plan: everything or nothing, also when the control plane dies in between."""

from datetime import timedelta

import pytest

from engine.allocation.holds import HoldPhase, PlanHolds
from engine.allocation.locking import ResourceLocking
from engine.clock import ManualClock
from engine.errors import (
    AuthenticationFailed,
    ConcurrentUpdate,
    InsufficientCapacity,
    NotFound,
    PriceMismatch,
    ProviderUnavailable,
)
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
        self.refuses: dict[str, Exception] = {}
        """By call, how it is refused."""

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
        self._maybe_refuse("confirm")
        if reference not in self.holds:
            raise NotFound(f"no hold {reference}")
        self.paid.add(reference)
        self._maybe_crash("confirm")
        return Reservation(
            id=ReservationId(reference), hold_id=hold.id, quote=hold.quote, confirmed_at=self._clock.now()
        )

    def release(self, hold_id: str) -> None:
        self.calls.append(f"release {hold_id}")
        self._maybe_refuse("release")
        self.holds.pop(hold_id, None)
        self.paid.discard(hold_id)
        self._maybe_crash("release")

    def _maybe_refuse(self, call: str) -> None:
        if call in self.refuses:
            raise self.refuses[call]

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


DOWN = ProviderUnavailable("harbor is down")
EXPIRED = AuthenticationFailed("harbor refuses the token")
SCARCE = InsufficientCapacity("none left")


@pytest.mark.parametrize("problem", [DOWN, EXPIRED])
def test_a_provider_that_is_gone_is_named_and_not_asked_for_the_rest(
    plan: Plan, holds: PlanHolds, harbor: Market, locking: ResourceLocking, problem: Exception
) -> None:
    harbor.fail = problem
    report = holds.hold_all(plan)
    assert report.gone == ("harbor",)
    assert {(refusal.offer, refusal.reason) for refusal in report.refused} == {("harbor-1", str(problem))}
    assert len(report.refused) == 2
    assert len(set(harbor.calls)) == 1
    assert locking.leases.phase(plan.id) == HoldPhase.RELEASED


def test_one_that_has_none_left_is_still_there(plan: Plan, holds: PlanHolds, harbor: Market) -> None:
    harbor.fail = SCARCE
    assert holds.hold_all(plan).gone == ()
    assert len(harbor.calls) == 2, "and is not asked once more to learn what is to be given back"


def test_holds_that_cannot_be_given_back_fail_no_plan_and_are_given_back_later(
    plan: Plan, holds: PlanHolds, harbor: Market, locking: ResourceLocking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network goes down between one hold and the next."""
    take = harbor.hold

    def one_and_no_more(quote: Quote, *, key: str) -> Hold:
        if harbor.holds:
            raise DOWN
        return take(quote, key=key)

    with monkeypatch.context() as patched:
        patched.setattr(harbor, "hold", one_and_no_more)
        harbor.refuses["release"] = DOWN
        report = holds.hold_all(plan)
    assert (report.held, report.gone) == ((), ("harbor",))
    assert locking.leases.taken("quote:aws:q-aws-1") == 0, "what others hold is free all the same"
    assert len(harbor.holds) == 1
    with pytest.raises(ConcurrentUpdate):
        holds.confirm_all(plan)
    with pytest.raises(ProviderUnavailable):
        holds.recover()
    harbor.refuses.clear()
    assert holds.recover().released == (plan.id,)
    assert not harbor.holds


@pytest.mark.parametrize(("problem", "asked"), [(DOWN, 1), (EXPIRED, 1), (NotFound("a slip"), 2)])
def test_everything_is_given_back_that_can_be_before_the_first_problem_is_raised(
    plan: Plan, holds: PlanHolds, harbor: Market, locking: ResourceLocking, problem: Exception, asked: int
) -> None:
    holds.hold_all(plan)
    harbor.calls.clear()
    harbor.refuses["release"] = problem
    with pytest.raises(type(problem)):
        holds.release_all(plan.id)
    assert len(harbor.calls) == asked, "who is gone is asked once"
    assert locking.leases.taken("quote:aws:q-aws-1") == 0
    harbor.refuses.clear()
    holds.release_all(plan.id)
    assert not harbor.holds


def test_what_could_not_be_given_back_is_not_paid_for_later(plan: Plan, holds: PlanHolds, harbor: Market) -> None:
    """One hold lapsed, and as the others are given back the network goes down."""
    holds.hold_all(plan)
    harbor.holds.pop(min(harbor.holds))
    harbor.refuses["release"] = DOWN
    with pytest.raises(NotFound):
        holds.confirm_all(plan)
    with pytest.raises(ProviderUnavailable):
        holds.recover()
    harbor.refuses.clear()
    assert holds.recover().released == (plan.id,)
    assert (harbor.holds, harbor.paid) == ({}, set())


def test_a_plan_that_cannot_be_finished_stands_in_no_others_way(
    plan: Plan, locking: ResourceLocking, clock: ManualClock
) -> None:
    agora, harbor = Market("agora", clock), Market("harbor", clock)
    holds = PlanHolds(locking, {"agora": agora, "harbor": harbor})
    other = plan_of([certain(pool(), 2)], [quote(offer("agora-1", "0.05", cell=CELLS[4]))], seed=9)
    for one, seller in ((other, agora), (plan, harbor)):
        holds.hold_all(one)
        seller.refuses["confirm"] = DOWN
        with pytest.raises(ProviderUnavailable):
            holds.confirm_all(one)
    groups = locking.leases.groups_in(HoldPhase.CONFIRMING)
    first, last = (agora, harbor) if groups[0] == other.id else (harbor, agora)
    last.refuses.clear()
    with pytest.raises(ProviderUnavailable):
        holds.recover()
    assert last.paid
    assert not first.paid
    first.refuses.clear()
    assert holds.recover().confirmed == (groups[0],)
    assert first.paid


def test_what_is_charged_at_another_price_is_given_back_once_and_told(
    plan: Plan, holds: PlanHolds, harbor: Market, locking: ResourceLocking
) -> None:
    holds.hold_all(plan)
    harbor.crash = "confirm"
    with pytest.raises(Crash):
        holds.confirm_all(plan)
    harbor.refuses["confirm"] = PriceMismatch("taken at 0.05, charged at 0.06")
    with pytest.raises(PriceMismatch):
        holds.recover()
    assert (harbor.holds, harbor.paid) == ({}, set())
    assert locking.leases.phase(plan.id) == HoldPhase.RELEASED
    assert holds.recover() == type(holds.recover())(), "no later attempt meets it again"


def test_previews_may_take_longer_than_a_quote_stands_where_no_holds_are_known(
    locking: ResourceLocking, clock: ManualClock
) -> None:
    holds = PlanHolds(locking, {"aws": PlainProvider()})
    plan = plan_of([certain(pool(), 4)], [quote(offer("aws-1", "0.06"))])
    assert len(holds.hold_all(plan).held) == 2
    clock.advance(timedelta(minutes=40))
    assert len(holds.confirm_all(plan).held) == 2


def test_and_a_crash_meanwhile_gives_them_back(locking: ResourceLocking, clock: ManualClock) -> None:
    holds = PlanHolds(locking, {"aws": PlainProvider()})
    plan = plan_of([certain(pool(), 4)], [quote(offer("aws-1", "0.06"))])
    holds.hold_all(plan)
    assert holds.recover().released == (plan.id,)
    assert locking.leases.taken("quote:aws:q-aws-1") == 0
