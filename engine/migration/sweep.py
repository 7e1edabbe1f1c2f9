"""Moves that did not come to their end are looked at again, until one side runs and nothing is left of the other.

A node that was silent answers again, or is given up with its shards; nobody has to do anything by hand.
"""

import threading
from collections.abc import Callable
from typing import Protocol

import structlog

from engine.migration.base import MoveContext, Transfer
from engine.migration.qemu import QemuMove
from engine.model.move import MoveReport

EVERY_SECONDS = 10.0
_STOP_SECONDS = 2.0
_log = structlog.get_logger()


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
        settled = QemuMove(context, report.request).settle(report.epoch_before, standing)
        found = ("phase", "strategy", "epoch_after", "error")  # what was measured before stays
        fresh = report.model_copy(update={name: getattr(settled, name) for name in found})
        if fresh != report:
            history.put(fresh)
            changed.append(fresh)
    return tuple(changed)


class Sweeper:
    """Sweeps now and every few seconds, in a thread of its own."""

    def __init__(
        self, once: Callable[[], object], *, every_seconds: float = EVERY_SECONDS, what: str = "moves"
    ) -> None:
        self._once, self._every, self._what = once, every_seconds, what
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"sweeper of {what}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Waits a little for a sweep under way; one that hangs on a silent node ends with the process."""
        self._stopped.set()
        self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._once()
            except Exception as problem:  # the next sweep finds the same
                _log.warning(f"{self._what} could not be swept", error=str(problem))
            self._stopped.wait(self._every)
