"""A round: one pass from forecast to running shards, as a durable workflow.

The workflow only orders the steps; each step is idempotent and recorded, so a control plane that is killed anywhere
goes on after its last recorded step: the same holds (by key), the same instances (by token), the same shards (by id).
"""

from collections.abc import Callable, Sequence
from typing import ParamSpec, Protocol, TypeVar

from dbos import DBOS

from engine.allocation.holds import HoldsReport
from engine.errors import BudgetExceeded, NoOfferFits, ShardwrightError
from engine.market.beliefs import as_advertised
from engine.market.discovery import MarketView
from engine.market.negotiation import Negotiation
from engine.model.capacity import CapacityTarget
from engine.model.ids import NodeId, OfferId, PlanId, RoundId
from engine.model.move import MoveReport, MoveRequest
from engine.model.plan import Plan
from engine.model.value import Utc
from engine.reconcile import CellFailure, CellResult
from engine.round_record import CarveReport, RoundRecord
from stacks.base import CellOutcome

P = ParamSpec("P")
R = TypeVar("R")

NAME = "round"
MAX_PLANS_PER_ROUND = 3
"""How often a round plans again because a quote could not be held after all."""


class RoundSteps(Protocol):
    """What a round does, step by step; each may be called again after a crash and must then find its own traces."""

    def started(self, round_id: RoundId) -> Utc: ...

    def forecast(self, round_id: RoundId) -> tuple[CapacityTarget, ...]: ...

    def discover(self, targets: Sequence[CapacityTarget]) -> MarketView: ...

    def negotiate(self, round_id: RoundId, targets: Sequence[CapacityTarget], view: MarketView) -> Negotiation: ...

    def ask_anyway(self, round_id: RoundId, targets: Sequence[CapacityTarget], view: MarketView) -> Negotiation:
        """Negotiate again, over what is advertised: what is believed to be left is too little."""
        ...

    def decide(
        self,
        targets: Sequence[CapacityTarget],
        view: MarketView,
        negotiation: Negotiation,
        excluded: Sequence[OfferId],
    ) -> Plan: ...

    def hold(self, plan: Plan) -> HoldsReport:
        """Takes a hold for every purchase; all or nothing."""
        ...

    def release(self, plan: Plan) -> None: ...

    def gate(self, plan: Plan) -> None:
        """The policy pack judges a preview of every cell. Raises PolicyViolation, before anything is bought."""
        ...

    def adopt(self, plan: Plan) -> PlanId:
        """Makes the plan the target, if its parent still is. Raises ConcurrentUpdate."""
        ...

    def confirm(self, plan: Plan) -> HoldsReport:
        """Pays for what is held. Raises NotFound when a hold has lapsed; then everything was given back."""
        ...

    def grow(self, plan: Plan) -> tuple[CellResult, ...]:
        """One attempt per cell; nodes that leave are still kept."""
        ...

    def moves_off(self, plan: Plan) -> tuple[MoveRequest, ...]:
        """Where each bound shard of a leaving node goes; before carving, so that its new place is still free."""
        ...

    def move(self, requests: Sequence[MoveRequest]) -> tuple[MoveReport, ...]:
        """Not a recorded step: every move is a workflow of its own."""
        ...

    def carve(self, plan: Plan, targets: Sequence[CapacityTarget]) -> CarveReport:
        """Waits (bounded) for the agents, carves the slots, binds the components."""
        ...

    def to_close(self, plan: Plan) -> tuple[NodeId, ...]:
        """Which of the nodes that leave nobody has drained, once what is drained there has gone.

        A step of its own: once they are closed they look drained, and those that have to stay must be opened again.
        """
        ...

    def shrink(self, plan: Plan, undrained: Sequence[NodeId]) -> tuple[CellResult, ...]:
        """The second attempt per cell, without the nodes that leave; ``undrained`` (``to_close``) are closed first."""
        ...

    def record(self, record: RoundRecord) -> None: ...


_steps: RoundSteps | None = None


def serve(steps: RoundSteps) -> None:
    """Say which steps the workflow uses; once per process, before DBOS is launched (a recovered round needs them)."""
    global _steps
    _steps = steps


def _serving() -> RoundSteps:
    if _steps is None:
        raise ShardwrightError("no control plane serves rounds in this process", why="rounds.serve() was not called")
    return _steps


def _step(name: str, act: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    return DBOS.run_step({"name": name}, act, *args, **kwargs)


@DBOS.workflow(name=NAME)
def run_round(round_id: RoundId) -> RoundRecord:
    """One round; the workflow id is the round id. Raises the error that stopped it, with every hold released
    that can be; the others are before the next round."""
    steps = _serving()
    started_at = _step("start", steps.started, round_id)
    targets = _step("forecast", steps.forecast, round_id)
    view = _step("discover", steps.discover, targets)
    negotiation = _step("negotiate", steps.negotiate, round_id, targets, view)
    view, negotiation, plan = _plan_and_hold(steps, round_id, targets, view, negotiation)
    try:
        _step("gate", steps.gate, plan)
        _step("adopt", steps.adopt, plan)
        _step("confirm", steps.confirm, plan)
    except ShardwrightError:
        _step("release", steps.release, plan)
        raise
    grown = _step("grow", steps.grow, plan)
    moves = _move_off(steps, plan)
    carved = _step("carve", steps.carve, plan, targets)
    attempts = grown + _shrink(steps, plan)
    record = RoundRecord(
        id=round_id,
        started_at=started_at,
        finished_at=_step("finish", steps.started, round_id),
        targets=targets,
        offers_seen=len(view.offers),
        absent=view.failures,
        quotes=negotiation.quotes,
        plan=plan,
        outcomes=tuple(result for result in attempts if isinstance(result, CellOutcome)),
        failures=tuple(result for result in attempts if isinstance(result, CellFailure)),
        shards=carved.shards,
        problems=carved.problems,
        moves=moves,
    )
    _step("record", steps.record, record)
    return record


def _plan_and_hold(
    steps: RoundSteps,
    round_id: RoundId,
    targets: tuple[CapacityTarget, ...],
    view: MarketView,
    negotiation: Negotiation,
) -> tuple[MarketView, Negotiation, Plan]:
    """Plan, then hold; what cannot be held is left out of the next plan (InsufficientCapacity -> next quote).

    The plan, and the market that it was made on: a belief may be wrong, so where there is no plan within what is
    believed, everything that is advertised is asked for before the round gives up.
    """
    excluded: tuple[OfferId, ...] = ()
    for _ in range(MAX_PLANS_PER_ROUND):
        try:
            plan = _step("decide", steps.decide, targets, view, negotiation, excluded)
        except (NoOfferFits, BudgetExceeded):
            advertised = as_advertised(view)
            if advertised is None:
                raise
            view = advertised
            negotiation = _step("ask_anyway", steps.ask_anyway, round_id, targets, view)
            plan = _step("decide", steps.decide, targets, view, negotiation, excluded)
        report = _step("hold", steps.hold, plan)
        if not report.refused:
            return view, negotiation, plan
        excluded += _left_out(report, negotiation)
    raise ShardwrightError(
        f"{MAX_PLANS_PER_ROUND} plans in a row could not be held",
        why="the market changes faster than holds can be taken",
        next_step="shardwright run --rounds 1",
    )


def _left_out(report: HoldsReport, negotiation: Negotiation) -> tuple[OfferId, ...]:
    """What was refused, and whatever else a provider sells that is gone since it quoted."""
    refused = (refusal.offer for refusal in report.refused)
    return (*refused, *(quote.offer.id for quote in negotiation.quotes if quote.offer.provider in report.gone))


def _move_off(steps: RoundSteps, plan: Plan) -> tuple[MoveReport, ...]:
    if not plan.leaving:
        return ()
    requests = _step("moves_off", steps.moves_off, plan)
    return steps.move(requests)


def _shrink(steps: RoundSteps, plan: Plan) -> tuple[CellResult, ...]:
    if not plan.leaving:
        return ()
    undrained = _step("to_close", steps.to_close, plan)
    return _step("shrink", steps.shrink, plan, undrained)
