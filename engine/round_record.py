"""The record that explains a round."""

from pydantic import ConfigDict

from engine.market.discovery import ProviderFailure
from engine.model.capacity import CapacityTarget
from engine.model.ids import RoundId
from engine.model.market import Quote
from engine.model.move import MoveReport
from engine.model.placement import Shard
from engine.model.plan import Plan
from engine.model.value import Utc, Value
from engine.reconcile import CellFailure
from stacks.base import CellOutcome


class CarveReport(Value):
    """The shards there are after carving, and what kept others from being there."""

    shards: tuple[Shard, ...]
    problems: tuple[str, ...] = ()
    """One sentence each: a node that has not joined, a shard that its agent could not carve."""


class RoundRecord(Value):
    """The record that explains a round: what was seen, decided, done and spent."""

    id: RoundId
    started_at: Utc
    finished_at: Utc
    targets: tuple[CapacityTarget, ...]
    offers_seen: int
    absent: tuple[ProviderFailure, ...] = ()
    """Providers that could not be asked, and why: the round went on without them."""
    quotes: tuple[Quote, ...]
    plan: Plan
    outcomes: tuple[CellOutcome, ...]
    failures: tuple[CellFailure, ...]
    shards: tuple[Shard, ...]
    problems: tuple[str, ...] = ()
    """Why shards that are paid for are not there; the next round tries them again."""
    moves: tuple[MoveReport, ...]

    @property
    def changed(self) -> bool:
        return any(not outcome.changes.none for outcome in self.outcomes) or bool(self.moves)


class RoundOutline(Value):
    """What pages and gauges tell of a round, read from its record without the plan and the quotes in it."""

    model_config = ConfigDict(extra="ignore")
    finished_at: Utc
    targets: tuple[CapacityTarget, ...]
