"""What a move is asked to do and what it did."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from engine.model.ids import MoveId, NodeId, ShardId
from engine.model.plan import MoveCause, MoveGateReport
from engine.model.value import Utc, Value


class MovePhase(StrEnum):
    """The state machine, in order; the last four are side exits."""

    REQUESTED = "requested"
    RESERVED = "reserved"
    PREPARED = "prepared"
    MIRRORING = "mirroring"
    PRECOPY = "precopy"
    SWITCHING = "switching"
    COMMITTED = "committed"
    CLEANED = "cleaned"
    ROLLING_BACK = "rolling_back"
    ABORTED = "aborted"
    COLD_RESTART = "cold_restart"
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
    """Set for a cost-driven move: the sum that let it pass."""
    deadline: Utc | None = None
    """Set for a reclaim: when the source is gone."""


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
