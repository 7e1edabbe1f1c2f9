"""Moves that are said to be under way and that nobody carries out any more: ended here, and nowhere else.

Whoever asks for moves announces them and enters their reports. It may break off instead (its store fails, its workflow
is cancelled), or be left by an older version, whose workflows never go on. Then what it has announced would stay under
way for ever, and evacuations would wait for it. Such a move

- may go on by itself: its end is waited for
- may have ended: its report is entered; one that an older version has written, and that cannot be read, is in doubt
- may never have begun, or have broken off before it did anything: it is entered as given up
- may have broken off later: it is in doubt, and the sweep does the rest
"""

from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import Protocol

import structlog

from engine.migration.base import MoveInDoubt
from engine.model.ids import MoveId
from engine.model.move import MovePhase, MoveReport, MoveRequest, MoveUnderWay

EVERY_SECONDS = 2.0
_log = structlog.get_logger()


class Carried(StrEnum):
    GOES_ON = "goes_on"
    ENDED = "ended"
    BROKE_OFF = "broke_off"
    NEVER_BEGUN = "never_begun"


class MoveWorkflows(Protocol):
    """The part of engine.migration.workflow.DurableMover that this needs."""

    def carried(self, move: MoveId) -> Carried: ...

    def looked(self, request: MoveRequest) -> MoveInDoubt | None: ...

    def report(self, move: MoveId) -> MoveReport: ...


class MovesUnderWay(Protocol):
    """The part of engine.store.moves.MoveHistory that this needs."""

    def under_way(self) -> tuple[MoveUnderWay, ...]: ...

    def put_first(self, report: MoveReport) -> bool: ...


def end_abandoned(
    history: MovesUnderWay, workflows: MoveWorkflows, goes_on: Callable[[str], bool], now: datetime
) -> tuple[MoveReport, ...]:
    """Look once at every move that is under way; returns the reports that were entered. Safe to repeat."""
    entered = []
    for one in history.under_way():
        # Whoever has asked is looked at first: once it does not go on, nothing about its moves begins any more.
        if one.asked_by is not None and goes_on(one.asked_by):
            continue
        try:
            report = _end(one.progress.request, workflows, now)
        except (ValueError, LookupError) as problem:  # what an older version has recorded: the others are looked at
            _log.warning("a move cannot be ended", move=one.progress.request.id, error=str(problem))
            continue
        if report is not None and history.put_first(report):
            entered.append(report)
    return tuple(entered)


def _end(request: MoveRequest, workflows: MoveWorkflows, now: datetime) -> MoveReport | None:
    carried = workflows.carried(request.id)
    if carried is Carried.GOES_ON:
        return None
    told, nothing = "its workflow broke off", " before it had done anything"
    if carried is Carried.ENDED:
        try:
            return workflows.report(request.id)
        except ValueError:
            told, nothing = "what an older version has reported cannot be read", ": it had done nothing"
    found = workflows.looked(request) if carried is not Carried.NEVER_BEGUN else None
    if found is None:
        never = carried is Carried.NEVER_BEGUN
        told = "it was not begun: what had asked for it broke off" if never else told + nothing
    return MoveReport(
        request=request,
        phase=MovePhase.ABORTED if found is None else MovePhase.IN_DOUBT,
        strategy="pre-copy",
        epoch_before=0 if found is None else found.epoch,
        epoch_after=0 if found is None else found.epoch,
        started_at=now if found is None else found.started_at,
        finished_at=now,
        downtime_seconds=0.0,
        memory_bytes=0,
        disk_bytes=0,
        error=told,
    )
