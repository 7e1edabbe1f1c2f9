"""What a move is asked to do and what it did."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from engine.model.ids import MoveId, NodeId, ShardId
from engine.model.plan import MoveCause, MoveGateReport
from engine.model.value import Utc, Value


class MovePhase(StrEnum):
    """The state machine, in order; those after CLEANED are side exits."""

    REQUESTED = "requested"
    RESERVED = "reserved"
    PREPARED = "prepared"
    MIRRORING = "mirroring"
    PRECOPY = "precopy"
    SWITCHING = "switching"
    COMMITTED = "committed"
    POSTCOPY = "postcopy"
    """Committed, and the destination runs while the rest of its memory still follows."""
    CLEANED = "cleaned"
    ROLLING_BACK = "rolling_back"
    ABORTED = "aborted"
    IN_DOUBT = "in_doubt"


UNSETTLED = (MovePhase.IN_DOUBT, MovePhase.COMMITTED, MovePhase.ROLLING_BACK)
"""A report that ends in one of these is looked at again until its move is cleaned or aborted."""


class MoveRequest(Value):
    id: MoveId
    shard: ShardId
    source: NodeId
    destination: NodeId
    cause: MoveCause
    gate: MoveGateReport | None = None
    """For a cost-driven move the sum that let it pass, for an operator's the one that was shown; None: not known."""
    deadline: Utc | None = None
    """Set for a reclaim: when the source is gone."""


class MoveProgress(Value):
    """How a move stands that has not ended; ``at`` is when that was seen."""

    request: MoveRequest
    phase: MovePhase
    at: Utc
    strategy: str = "pre-copy"
    bytes_left: Annotated[int, Field(ge=0)] | None = None
    """Of the disk while it is mirrored, of the memory while that is copied; None: nothing is being copied."""
    bytes_per_second: Annotated[float, Field(ge=0)] = 0.0

    @property
    def seconds_left(self) -> float | None:
        """Of the copying, at the present bandwidth; a guest that goes on writing makes it longer."""
        if self.bytes_left is None or self.bytes_per_second <= 0:
            return None
        return self.bytes_left / self.bytes_per_second


class MoveUnderWay(Value):
    """A move that the history does not have yet."""

    progress: MoveProgress
    since: Utc
    cancelled: bool = False
    """An operator does not want it any more; before its commit point it is given up."""
    asked_by: str | None = None
    """The workflow that waits for it: a round, an order, an evacuation. None: nobody does."""


class MoveReport(Value):
    """Seconds and bytes as measured by QEMU on the source and by the controller."""

    request: MoveRequest
    phase: MovePhase
    strategy: str
    """pre-copy, post-copy, stop-and-copy, cold-restart"""
    epoch_before: int
    epoch_after: int
    started_at: Utc
    finished_at: Utc
    downtime_seconds: Annotated[float, Field(ge=0)]
    memory_bytes: Annotated[int, Field(ge=0)]
    disk_bytes: Annotated[int, Field(ge=0)]
    error: str = ""
