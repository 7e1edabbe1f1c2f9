"""A plan: immutable, and so specific that an executor makes no choices."""

from datetime import timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from engine.model.capacity import Probability
from engine.model.ids import NodeId, OfferId, PlanId, PoolId
from engine.model.market import Offer, Quote
from engine.model.money import Money
from engine.model.placement import Cell, Node
from engine.model.value import Utc, Value


class ShardSlot(Value):
    """``count`` shards of one pool to be carved on one node."""

    pool: PoolId
    shard_type: str
    count: Annotated[int, Field(gt=0)]


class PlannedNode(Value):
    """One unit to be had: either kept from the inventory (``quote`` None) or bought on a quote."""

    node: Node
    slots: tuple[ShardSlot, ...]
    quote: Quote | None
    token: str
    """``shard:<cell>:<node>:<generation>``: idempotency token and provider tag of the create."""
    hold: str | None = None
    """The provider's own id of the hold that was taken for it, once it is held; the create uses that capacity up."""


class CellPlan(Value):
    """Everything one cell update needs; nodes that are not named are to be gone."""

    cell: Cell
    generation: Annotated[int, Field(ge=0)]
    nodes: tuple[PlannedNode, ...]


class Verdict(StrEnum):
    CHOSEN = "chosen"
    WHY_NOT = "why_not"


class OfferDecision(Value):
    """One row of the plan's table: chosen, or why not."""

    offer: Offer
    verdict: Verdict
    units: Annotated[int, Field(ge=0)]
    reason: str
    """For a reader: ``dearer: 0.031 per shard-hour against 0.019``, ``concentration: aws already at 34 %`` …"""
    price_per_shard_hour: Money | None = None


class OfferRejection(Value):
    """An offer that never reached the planner, by name and reason (bad price, unknown currency, …)."""

    offer: OfferId
    provider: str
    reason: str


class PoolOutcome(Value):
    """What the plan means for one pool."""

    pool: PoolId
    desired: int
    planned: int
    quantile_met: Probability
    """Largest demand quantile that the planned shards cover over the horizon, spot survival counted."""
    shortfall_probability: Probability
    expected_shortfall_share: Probability
    """Expected share of demanded shard-hours left unserved."""
    history_age: timedelta | None = None
    """How old the newest usage was that the pool's forecast was made from; None: not told."""


class PoolParts(Value):
    """A pool whose shards are divided: ``parts`` for each that is asked for."""

    pool: PoolId
    parts: Annotated[int, Field(gt=1)]
    reason: str
    """For a reader: ``met by 3 parts of 2 vCPU, 4 GiB each: …``"""


class Plan(Value):
    """``parent`` is the plan it replaces; ``generation`` rises by one a plan and rejects stale executors."""

    id: PlanId
    parent: PlanId | None
    generation: Annotated[int, Field(ge=0)]
    made_at: Utc
    cells: tuple[CellPlan, ...]
    leaving: tuple[NodeId, ...] = ()
    """Nodes of the inventory that this plan gives back."""
    decisions: tuple[OfferDecision, ...]
    rejections: tuple[OfferRejection, ...] = ()
    """Offers that were refused before they could be weighed, by name and reason."""
    pools: tuple[PoolOutcome, ...]
    parts: tuple[PoolParts, ...] = ()
    """Pools whose counts above are of parts, and why."""
    expected_hourly_cost: Money
    cost_quantiles: tuple[tuple[float, Money], ...]
    """(q, total cost of the horizon) over demand and survival scenarios."""
    solver: str
    gap: Annotated[float, Field(ge=0)]
    solve_seconds: Annotated[float, Field(ge=0)]

    @property
    def is_noop(self) -> bool:
        return not self.leaving and all(node.quote is None for cell in self.cells for node in cell.nodes)

    def parts_of(self, pool: PoolId) -> int:
        """How many shards stand for one that is asked for."""
        return next((one.parts for one in self.parts if one.pool == pool), 1)


class MoveCause(StrEnum):
    RECLAIM = "reclaim"
    COST = "cost"
    OPERATOR = "operator"


class MoveGateReport(Value):
    """Saving over the expected stay against everything the move costs; shown as a sum."""

    saving: Money
    egress: Money
    double_pay: Money
    downtime: Money
    risk_at_target: Money
    lost_commitment: Money
    expected_stay_hours: Annotated[float, Field(ge=0)]
    passes: bool

    @property
    def cost(self) -> Money:
        return self.egress + self.double_pay + self.downtime + self.risk_at_target + self.lost_commitment
