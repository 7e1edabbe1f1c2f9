"""Several moves at once, at most so many per node: each is a durable workflow of its own."""

from collections import Counter
from collections.abc import Callable, Sequence

from engine.errors import ShardwrightError
from engine.events import Event, Observe
from engine.migration.workflow import DurableMover
from engine.model.ids import NodeId
from engine.model.move import MovePhase, MoveReport, MoveRequest

PER_NODE = 2
"""Moves at once that leave or enter one node; more would share its link and all finish later."""


class Moves:
    """Safe to call again with the same requests: a move that has ended is only read."""

    def __init__(
        self,
        mover: DurableMover,
        observe: Observe,
        *,
        keep: Callable[[MoveReport], None],
        announce: Callable[[Sequence[MoveRequest]], None],
    ) -> None:
        """``keep`` stores each report; ``announce`` is told of moves before they begin or wait for their turn."""
        self._mover, self._observe, self._keep, self._announce = mover, observe, keep, announce

    def run(self, requests: Sequence[MoveRequest]) -> tuple[MoveReport, ...]:
        """Blocks until all have ended; reports in the order of the requests."""
        reports: dict[str, MoveReport] = {}
        self._announce(requests)
        for batch in batches(requests):
            handles = [(request, self._mover.start(request)) for request in batch]
            for request, handle in handles:
                report = self._mover.result(handle)
                reports[request.id] = report
                self._keep(report)
                self._observe(moved(report))
        return tuple(reports[request.id] for request in requests)


def batches(requests: Sequence[MoveRequest]) -> list[list[MoveRequest]]:
    """In order, as many at once as no node has more than PER_NODE of."""
    waiting = list(requests)
    result: list[list[MoveRequest]] = []
    while waiting:
        busy: Counter[NodeId] = Counter()
        batch: list[MoveRequest] = []
        for request in list(waiting):
            if busy[request.source] < PER_NODE and busy[request.destination] < PER_NODE:
                busy.update((request.source, request.destination))
                batch.append(request)
                waiting.remove(request)
        result.append(batch)
    return result


def require(reports: Sequence[MoveReport]) -> None:
    """Raises ShardwrightError naming the moves that did not end where they should."""
    failed = [report for report in reports if report.phase is not MovePhase.CLEANED]
    if failed:
        raise ShardwrightError("; ".join(f"{r.request.shard}: {r.phase} {r.error}" for r in failed))


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
