"""What runs now, as the planner sees it."""

from datetime import datetime, timedelta
from typing import Annotated

from pydantic import Field

from engine.model.capacity import Amount, Resources
from engine.model.ids import provider_of
from engine.model.market import PurchaseOption
from engine.model.placement import Node, NodeState
from engine.model.plan import PlannedNode, ShardSlot
from engine.model.value import Value
from engine.planner.policy import PlanPolicy


class InventoryNode(Value):
    """A node that is there or on its way."""

    node: Node
    slots: tuple[ShardSlot, ...]
    """Carved, or planned to be carved, on it."""
    planned: PlannedNode
    """As it was bought; its quote tells survival, correlation group and commitment."""
    in_use: Annotated[int, Field(ge=0)] | None = None
    """Shards bound to a component; None: all of them."""
    denied: bool = False
    """It is not there, for its provider had none left when it was to be created."""
    overdue: bool = False
    """It was bought so long ago that nobody waits for its agent any more."""

    holds_data: bool = False
    """Storage on it is in use: it can be neither moved nor given up."""
    grown: Resources = Resources(vcpus=0, memory_gib=0)
    """What its shards take beyond their types, since they were resized while they ran."""
    memory_gib: Amount = 0
    """Of the largest shard in use: what a move copies beside the disk."""
    outgrown: bool = False
    """A shard in use is larger than its type: no place of its type elsewhere would hold it."""
    lost: bool = False
    """Its agent has been silent for so long that what it served is replaced."""

    @property
    def shards(self) -> int:
        return sum(slot.count for slot in self.slots)

    @property
    def shards_in_use(self) -> int:
        return self.shards if self.in_use is None else min(self.in_use, self.shards)

    @property
    def stays(self) -> bool:
        """Whether keeping it is a choice at all: not when it is gone, lost, reclaimed, drained, overdue or denied."""
        there = self.node.state in (NodeState.EXPECTED, NodeState.JOINED)
        return there and not (self.denied or self.lost or self.overdue)

    @property
    def provider(self) -> str:
        return provider_of(self.node.cell)

    @property
    def correlation_group(self) -> str:
        quote = self.planned.quote
        if quote is not None:
            return quote.offer.reliability.correlation_group
        return f"{self.node.cell}/{self.node.zone}/{self.node.instance_type}"

    def loss_within(self, hours: float, policy: PlanPolicy) -> float:
        """Probability that it is reclaimed within ``hours``, at the hazard its quote told."""
        quote = self.planned.quote
        if quote is not None:
            return float(1 - quote.survival ** (hours / max(quote.term.hours, 1e-9)))
        if self.node.option is PurchaseOption.SPOT:
            return float(1 - policy.default_spot_survival**hours)
        return 0.0

    def committed_for(self, now: datetime) -> timedelta:
        """How much longer it is paid for whether it is kept or not."""
        quote = self.planned.quote
        if quote is None or self.node.option is not PurchaseOption.COMMITMENT:
            return timedelta(0)
        return max(timedelta(0), quote.term.end - now)


class Inventory(Value):
    nodes: tuple[InventoryNode, ...] = ()
