"""Moves that did not come to their end are looked at again, until one side runs and nothing is left of the other.

A node that was silent answers again, or is given up with its shards; nobody has to do anything by hand.
"""

from typing import Protocol

from engine.migration.base import MoveContext, Transfer
from engine.migration.qemu import QemuMove
from engine.model.move import MoveReport

EVERY_SECONDS = 10.0


class UnsettledMoves(Protocol):
    """The part of the history of moves that a sweep needs (engine.store.moves.MoveHistory)."""

    def unsettled(self) -> tuple[MoveReport, ...]: ...

    def put(self, report: MoveReport) -> None: ...


def sweep(context: MoveContext, history: UnsettledMoves) -> tuple[MoveReport, ...]:
    """Look once at every unsettled move and do what can be done now; returns the reports that have changed.

    Safe to repeat and to interrupt: every act is read again from the store and the nodes.
    """
    changed = []
    for report in history.unsettled():
        standing = Transfer(
            phase=report.phase, strategy=report.strategy, epoch_after=report.epoch_after,
            downtime_seconds=report.downtime_seconds, memory_bytes=report.memory_bytes, disk_bytes=report.disk_bytes,
            error=report.error,
        )  # fmt: skip
        settled = QemuMove(context, report.request).settle(report.epoch_before, standing, report.started_at)
        found = ("phase", "strategy", "epoch_after", "error")  # what was measured before stays
        fresh = report.model_copy(update={name: getattr(settled, name) for name in found})
        if fresh != report:
            history.put(fresh)
            changed.append(fresh)
    return tuple(changed)
