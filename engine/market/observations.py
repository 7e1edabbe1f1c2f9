"""What came of asking a market and of running on it: the facts that beliefs about supply are made from."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from engine.model.ids import NodeId
from engine.model.market import OwnHistory, Place
from engine.model.value import Utc, Value


class AnswerKind(StrEnum):
    QUOTE = "quote"
    """Asked for a price for all units at once."""
    HOLD = "hold"
    """Asked to keep units, one by one."""
    CREATE = "create"
    """Asked for instances, one by one."""
    RECLAIM = "reclaim"
    """Took a unit back, unasked."""


class Answer(Value):
    """What one place said once. ``event`` and ``place`` are its identity: told again, it is the same answer."""

    event: Annotated[str, Field(min_length=1, max_length=255)]
    """``hold:PLAN``, ``create:PLAN:ATTEMPT``, ``quote:ROUND``, ``reclaim:NODE``"""
    place: Place
    kind: AnswerKind
    at: Utc
    asked: Annotated[int, Field(ge=0)]
    denied: Annotated[int, Field(ge=0)]
    """Of ``asked``, for want of capacity."""
    held: Annotated[int, Field(ge=0)]
    """Units of ours there with what was granted, even where it was given back since."""
    denied_nodes: tuple[NodeId, ...] = ()
    """Nodes that were to be created and could not be."""

    @property
    def limits(self) -> bool:
        """Whether it says that there is no more."""
        return self.denied > 0 or self.kind is AnswerKind.RECLAIM

    @property
    def depth(self) -> int:
        """Units in all that there were: of what was denied at once, there may have been about half."""
        return self.held + ((self.denied - 1) // 2 if self.kind is AnswerKind.QUOTE and self.denied else 0)

    def told(self, now: datetime) -> str:
        """``denied 2 of 3 at 10:40``, in UTC; with the day, where it is not today's."""
        when = f"{self.at:%H:%M}" if self.at.date() == now.date() else f"{self.at:%Y-%m-%d %H:%M}"
        if self.kind is AnswerKind.RECLAIM:
            return f"taken back at {when}"
        if self.kind is AnswerKind.QUOTE:
            return f"no quote for {self.asked} at {when}"
        return f"denied {self.denied} of {self.asked} at {when}"


class Stay(Value):
    """One node's time at its place, as far as it was seen."""

    node: NodeId
    place: Place
    correlation_group: str
    since: Utc
    until: Utc
    reclaimed: bool = False

    @property
    def hours(self) -> float:
        return max(0.0, (self.until - self.since).total_seconds() / 3600)


def history_of(stays: Sequence[Stay]) -> OwnHistory:
    return OwnHistory(reclaims=sum(stay.reclaimed for stay in stays), node_hours=sum(stay.hours for stay in stays))
