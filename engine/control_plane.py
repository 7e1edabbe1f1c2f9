"""A running control plane: rounds one after another, nodes joining, evacuations when a provider takes a node back."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from dbos import DBOS, SetWorkflowID, WorkflowHandle

from agent.wire import NoticeReport
from engine.clock import Clock
from engine.durable import unfinished
from engine.errors import ShardwrightError, UnknownName
from engine.evacuation.workflow import evacuation_begun, evacuation_id, start_evacuation
from engine.events import Event, Observe
from engine.fleet.nodes import Fleet
from engine.metrics import observe_reclaim
from engine.model.ids import NodeId, RoundId, provider_of
from engine.model.market import ReclaimNotice
from engine.model.move import MoveReport
from engine.orders import workflow as orders
from engine.retraining import workflow as retraining
from engine.retraining.base import Retrainer
from engine.round_record import RoundRecord
from engine.rounds import run_round
from engine.steps import ControlSteps
from engine.store.opened import Store
from providers.base import SupportsInventory


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
    _noticing: threading.Lock = field(default_factory=threading.Lock, repr=False)
    """An agent and its provider may tell of the same reclaim at once."""

    def rounds(self, count: int, *, every_seconds: float = 0.0) -> Iterator[RoundRecord]:
        """Run ``count`` rounds, those that an earlier process left unfinished first. Raises what stopped a round.

        Ends once the evacuations, orders and the retraining that are under way then have ended.
        """
        resumed = [RoundId(one) for one in unfinished("round")]
        for number in range(count):
            if number and every_seconds:
                self.clock.sleep(every_seconds)
            handle: WorkflowHandle[RoundRecord]
            if resumed:
                round_id = resumed.pop(0)
                self.observe(Event(step="resume", text=f"round {round_id} goes on where it was interrupted"))
                handle = DBOS.retrieve_workflow(round_id)
            else:
                self.steps.recover()
                round_id = self._next_id()
                with SetWorkflowID(round_id):
                    handle = DBOS.start_workflow(run_round, round_id)
            record = handle.get_result()
            self._retrain_if_due()
            yield record
        for name in ("evacuate", orders.NAME):
            for under_way in unfinished(name):
                DBOS.retrieve_workflow(under_way).get_result()
        self._end_retrainings()

    def _retrain_if_due(self) -> None:
        """Beside the rounds, one at a time; the rounds go on with the network that stands until it has ended."""
        if self.retrainer is None or unfinished(retraining.NAME):
            return
        verdict = self.retrainer.due()
        if verdict.cause is not None:
            self.observe(Event(step="retraining", text=f"due: {verdict.why}"))
            retraining.start_retraining(retraining.next_key(self.name))

    def _end_retrainings(self) -> None:
        """What went wrong with one was told by itself; it stops nothing."""
        for key in unfinished(retraining.NAME) if self.retrainer is not None else ():
            self.observe(Event(step="retraining", text=f"waiting for {key}"))
            with contextlib.suppress(ShardwrightError):
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
        """Blocks until the node's evacuation has ended. It must have begun (``leaves``)."""
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
        known = DBOS.list_workflows(name="round", load_input=False, load_output=False)
        return RoundId(f"{self.name}-round-{len(known) + 1}")


class NoticeDesk:
    """Takes notices before the control plane is complete (agents may report at once) and hands them over after."""

    def __init__(self) -> None:
        self._plane: ControlPlane | None = None
        self._waiting: list[tuple[NodeId, NoticeReport]] = []
        self._lock = threading.Lock()

    def __call__(self, node: NodeId, report: NoticeReport) -> None:
        with self._lock:
            if self._plane is None:
                self._waiting.append((node, report))
                return
        self._plane.on_notice(node, report)

    def open(self, plane: ControlPlane) -> None:
        with self._lock:
            self._plane, waiting = plane, list(self._waiting)
            self._waiting.clear()
        for node, report in waiting:
            plane.on_notice(node, report)


def _left(notice: ReclaimNotice) -> float:
    return notice.notice.total_seconds()
