"""Several moves at once, at most so many per node: each is a durable workflow of its own.

Whoever runs them is a workflow too, and replays in the order that it has recorded. Which move ends first is a matter of
timing, so that is looked at in a recorded step, ``turn``: what it answers is the same when it is replayed.
"""

import threading
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Protocol

from dbos import DBOS, WorkflowHandle

from engine.clock import Clock
from engine.events import Event, Observe
from engine.model.ids import MoveId, NodeId
from engine.model.move import MoveReport, MoveRequest
from engine.model.value import Value

PER_NODE = 2
"""Moves at once that leave or enter one node; more would share its link and all finish later."""
_LOOK_SECONDS = 0.1


class StartsMoves(Protocol):
    """The part of engine.migration.workflow.DurableMover that this needs."""

    def start(self, request: MoveRequest) -> WorkflowHandle[str]: ...

    def result(self, handle: WorkflowHandle[str]) -> MoveReport: ...

    def under_way(self) -> tuple[MoveRequest, ...]: ...


class Turn(Value):
    """What to do next."""

    ended: tuple[MoveId, ...]
    """Their reports are there."""
    begin: tuple[MoveId, ...]


class Moves:
    """Safe to call again with the same requests: a move that has ended is only read. One for a control plane, since its
    callers (rounds, orders, evacuations) share the nodes.
    """

    def __init__(
        self,
        mover: StartsMoves,
        observe: Observe,
        *,
        clock: Clock,
        keep: Callable[[MoveReport], None],
        announce: Callable[[Sequence[MoveRequest], str | None], None],
        held_back: Callable[[Sequence[MoveRequest], float], Collection[MoveId]] = lambda _waiting, _seconds: (),
    ) -> None:
        """``keep`` stores each report; ``announce`` is told of moves before they begin or wait for their turn, and of
        the workflow that waits for them. ``held_back``: those that may not begin yet, having waited for so long.
        """
        self._mover, self._observe, self._clock = mover, observe, clock
        self._keep, self._announce, self._held_back = keep, announce, held_back
        self._choosing = threading.Lock()
        self._promised: dict[MoveId, MoveRequest] = {}
        """May begin, and have no workflow yet."""

    def run(self, requests: Sequence[MoveRequest]) -> tuple[MoveReport, ...]:
        """Blocks until all have ended; reports in the order of the requests, which is also that in which they begin.

        As soon as one has ended, the next one begins that its nodes have room for (``may_begin``).
        """
        handles: dict[MoveId, WorkflowHandle[str]] = {}
        reports: dict[MoveId, MoveReport] = {}
        self._announce(requests, DBOS.workflow_id)
        since = self._clock.now()
        try:
            while len(reports) < len(requests):
                waiting = [request for request in requests if request.id not in handles]
                turn = DBOS.run_step({"name": "turn"}, self._turn, waiting, handles.keys() - reports.keys(), since)
                begin = [request for request in waiting if request.id in turn.begin]
                self._promised |= {request.id: request for request in begin}  # in a replay the turn is only read
                for move in turn.ended:
                    reports[move] = self._mover.result(handles[move])
                    self._keep(reports[move])
                    self._observe(moved(reports[move]))
                for request in begin:
                    handles[request.id] = self._mover.start(request)
                    self._promised.pop(request.id, None)
        finally:
            for request in requests:
                self._promised.pop(request.id, None)
        return tuple(reports[request.id] for request in requests)

    def _turn(self, waiting: Sequence[MoveRequest], begun: Collection[MoveId], since: datetime) -> Turn:
        """Blocks until there is something to do."""
        while True:
            held = self._held_back(waiting, (self._clock.now() - since).total_seconds())
            with self._choosing:
                running = self._mover.under_way()
                busy = {request.id: request for request in (*running, *self._promised.values())}
                free = [request for request in waiting if request.id in busy or request.id not in held]
                begin = may_begin(free, busy.values())
                self._promised |= {request.id: request for request in begin}
            ended = sorted(move for move in begun if move not in busy)
            if ended or begin:
                return Turn(ended=tuple(ended), begin=tuple(request.id for request in begin))
            self._clock.sleep(_LOOK_SECONDS)


def may_begin(waiting: Sequence[MoveRequest], under_way: Collection[MoveRequest]) -> tuple[MoveRequest, ...]:
    """In order, as long as neither node of a request has PER_NODE moves. One that is under way already is only found.

    A move with a deadline waits for others with one only: those that have time must not make it late.
    """
    known = {request.id for request in under_way}
    everybody, pressed = Counter[NodeId](), Counter[NodeId]()

    def count(request: MoveRequest) -> None:
        everybody.update((request.source, request.destination))
        if request.deadline is not None:
            pressed.update((request.source, request.destination))

    for request in under_way:
        count(request)
    found = []
    for request in waiting:
        busy = everybody if request.deadline is None else pressed
        if request.id in known:
            found.append(request)
        elif busy[request.source] < PER_NODE and busy[request.destination] < PER_NODE:
            found.append(request)
            count(request)
    return tuple(found)


def moved(report: MoveReport) -> Event:
    """What a report says, as a line."""
    request = report.request
    text = (
        f"{request.shard}: {request.source} -> {request.destination} {report.phase.value} by {report.strategy}, "
        f"downtime {report.downtime_seconds * 1000:.0f} ms, "
        f"{(report.memory_bytes + report.disk_bytes) / 2**20:.0f} MiB in "
        f"{(report.finished_at - report.started_at).total_seconds():.1f} s"
    )
    facts = report.model_dump(mode="json")
    return Event(step="move", text=text + (f"; {report.error}" if report.error else ""), facts=facts)
