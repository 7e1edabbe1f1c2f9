"""A running control plane: rounds one after another, nodes joining, evacuations when a provider takes a node back."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import structlog
from dbos import DBOS, SetWorkflowID, WorkflowHandle

from agent.wire import NoticeReport
from engine.clock import Clock
from engine.durable import next_id, unfinished, why
from engine.errors import ProviderUnavailable, ShardwrightError, UnknownName
from engine.evacuation.workflow import NAME as EVACUATION
from engine.evacuation.workflow import evacuation_begun, evacuation_id, start_evacuation
from engine.events import Event, Observe
from engine.fleet.nodes import Fleet
from engine.forgetting import Forgetting
from engine.metrics import observe_reclaim, observe_round
from engine.model.ids import NodeId, RoundId, provider_of
from engine.model.market import ReclaimNotice
from engine.model.move import MoveReport
from engine.orders import workflow as orders
from engine.retraining import workflow as retraining
from engine.retraining.base import Retrainer
from engine.round_record import RoundRecord
from engine.rounds import NAME as ROUND
from engine.rounds import run_round
from engine.steps import ControlSteps
from engine.store.opened import Store
from providers.base import SupportsInventory

_log = structlog.get_logger()


@dataclass(frozen=True)
class ControlPlane:
    """Everything is wired and the workflows are launched; see engine.app for how."""

    name: str
    store: Store
    steps: ControlSteps
    fleet: Fleet
    clock: Clock
    observe: Observe
    url: str
    """Where agents join."""
    retrainer: Retrainer | None = None
    """None: the network is never trained again by itself."""
    forgetting: Forgetting | None = None
    """None: everything is kept for good."""
    _noticing: threading.Lock = field(default_factory=threading.Lock, repr=False)
    """An agent and its provider may tell of the same reclaim at once."""

    def rounds(self, count: int, *, every_seconds: float = 0.0, stays: bool = False) -> Iterator[RoundRecord]:
        """Run ``count`` rounds, first those that were left unfinished; gives the records of those that ended well.

        A round that fails is told, and the next one begins when it is due: what stopped one (a provider, a full disk)
        may have passed by then, and evacuations and orders need this process meanwhile. The last one raises what
        stopped it, unless the process ``stays`` up after it.

        Ends once the evacuations, orders and the retraining that are under way then have ended.
        """
        resumed = [RoundId(one) for one in unfinished(ROUND)]
        for number in range(count):
            if number and every_seconds:
                self.clock.sleep(every_seconds)
            started_at = self.clock.now()
            last = number + 1 == count
            try:
                record = self._begin_round(resumed).get_result()
            except Exception as problem:
                ended_at = self.clock.now()
                seconds = (ended_at - started_at).total_seconds()
                observe_round(seconds=seconds, ended_at=ended_at.timestamp(), error=problem)
                if last and not stays:
                    raise
                what_now = "what is there is served on, without further rounds" if last else _next_in(every_seconds)
                self.observe(Event(step="round", text=f"failed: {_named(problem)}; {what_now}"))
                _log.debug("a round failed", exc_info=problem)
                continue
            self._retrain_if_due()
            yield record
        self._wait_for(EVACUATION, "evacuation")
        self._wait_for(orders.NAME, "order")
        self._end_retrainings()

    def _begin_round(self, resumed: list[RoundId]) -> WorkflowHandle[RoundRecord]:
        """The next of the ``resumed`` ones, which is taken off; those go on since the workflows were launched."""
        if resumed:
            return self._goes_on(resumed.pop(0), DBOS.retrieve_workflow)
        left = next(iter(unfinished(ROUND)), None)
        if left is not None:  # it failed and that could not be written down, as on a full disk: nobody carries it out
            return self._goes_on(RoundId(left), DBOS.resume_workflow)
        self.steps.recover()
        self._forget()
        round_id = self._next_id()
        with SetWorkflowID(round_id):
            return DBOS.start_workflow(run_round, round_id)

    def _forget(self) -> None:
        """A part of what is old, while no round is under way that would ask for it; again before the next round."""
        if self.forgetting is None:
            return
        try:
            self.forgetting.once()
        except Exception as problem:  # the round is done all the same
            self.observe(Event(step="forget", text=f"what is old stays until the next round: {_named(problem)}"))
            _log.debug("forgetting failed", exc_info=problem)

    def _goes_on(
        self, round_id: RoundId, take_up: Callable[[str], WorkflowHandle[RoundRecord]]
    ) -> WorkflowHandle[RoundRecord]:
        self.observe(Event(step="resume", text=f"round {round_id} goes on where it was interrupted"))
        return take_up(round_id)

    def _wait_for(self, name: str, step: str) -> None:
        """What breaks off is told and stops nothing: an evacuation is begun anew, an order is ended (each looks after
        its own).
        """
        for under_way in unfinished(name):
            try:
                DBOS.retrieve_workflow(under_way).get_result()
            except Exception as problem:  # whatever its steps have met
                self.observe(Event(step=step, text=f"{under_way} broke off: {why(problem)}"))

    def _retrain_if_due(self) -> None:
        """Beside the rounds, one at a time; the rounds go on with the network that stands until it has ended."""
        if self.retrainer is None or unfinished(retraining.NAME):
            return
        try:
            verdict = self.retrainer.due()
            if verdict.cause is not None:
                self.observe(Event(step="retraining", text=f"due: {verdict.why}"))
                retraining.start_retraining(retraining.next_key(self.name))
        except Exception as problem:  # the round is done all the same
            self.observe(Event(step="retraining", text=f"cannot be begun: {_named(problem)}"))

    def _end_retrainings(self) -> None:
        """What went wrong with one was told by itself; it stops nothing."""
        for key in unfinished(retraining.NAME) if self.retrainer is not None else ():
            self.observe(Event(step="retraining", text=f"waiting for {key}"))
            with contextlib.suppress(Exception):
                DBOS.retrieve_workflow(key).get_result()

    def on_notice(self, node: NodeId, report: NoticeReport) -> None:
        """From an agent: its provider takes the node back. Starts the evacuation, once.

        An agent reports until it has an answer: should this process die in here, the next one hears of it again.
        """
        with self._noticing:
            notice = self.fleet.notice(node, report)
            if notice is None or evacuation_begun(node):
                return
            text = f"{notice.provider} takes {node} back in {_left(notice):.0f} s: {notice.reason}"
            self.observe(Event(step="notice", text=text))
            observe_reclaim(notice)
            self.steps.watch.taken_back(notice)
            start_evacuation(notice)

    def on_reclaim(self, told: ReclaimNotice) -> None:
        """From a provider itself, about a node of its own; of any other it is not believed."""
        try:
            cell = self.store.shard_map.node(told.node).cell
        except UnknownName:
            return  # of another installation on the same account, or long forgotten
        if provider_of(cell) != told.provider:
            text = f"{told.provider} says that {told.node} is taken back, which is a node of {cell}: ignored"
            self.observe(Event(step="notice", text=text))
            return
        self.on_notice(told.node, NoticeReport(seen_at=told.seen_at, at=told.at, reason=told.reason))

    def leaves(self, node: NodeId) -> bool:
        """Whether the node's evacuation has begun; the node is marked as reclaimed a little earlier."""
        return evacuation_begun(node)

    def evacuation(self, node: NodeId) -> tuple[MoveReport, ...]:
        """Blocks until the node's evacuation has ended. It must have begun (``leaves``). Raises what broke it off."""
        handle: WorkflowHandle[tuple[MoveReport, ...]] = DBOS.retrieve_workflow(evacuation_id(node))
        return handle.get_result()

    def instances_left(self) -> int:
        """Running instances with our tag, over all providers that can list them."""
        return sum(
            sum(record.running for record in provider.instances())
            for provider in self.steps.providers.values()
            if isinstance(provider, SupportsInventory)
        )

    def _next_id(self) -> RoundId:
        return RoundId(next_id(ROUND, f"{self.name}-round-"))


class NoticeDesk:
    """Where agents' notices arrive, which may be before the control plane is complete.

    Until then a notice is not taken: an agent that was answered never reports again, and what is in memory alone is
    lost with a start that fails. An agent that was refused asks again within a second.
    """

    def __init__(self) -> None:
        self._plane: ControlPlane | None = None

    def __call__(self, node: NodeId, report: NoticeReport) -> None:
        """Raises ProviderUnavailable while there is no control plane to hand it to."""
        if self._plane is None:
            raise ProviderUnavailable("the control plane is starting")
        self._plane.on_notice(node, report)

    def open(self, plane: ControlPlane) -> None:
        self._plane = plane


def _left(notice: ReclaimNotice) -> float:
    return notice.notice.total_seconds()


def _next_in(seconds: float) -> str:
    return f"the next one begins in {seconds:g} s" if seconds else "the next one begins"


def _named(problem: Exception) -> str:
    """With its kind where it is none of ours, whose texts say nothing by themselves."""
    return why(problem) if isinstance(problem, ShardwrightError) else f"{type(problem).__name__}: {why(problem)}"
