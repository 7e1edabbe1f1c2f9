"""What a cell's Pulumi program is: a closure over the cell and its plan, free of any choice."""

from collections.abc import Callable, Mapping
from typing import Protocol

from engine.model.ids import NodeId
from engine.model.placement import Cell
from engine.model.plan import CellPlan
from engine.model.value import Value
from providers.base import ProviderSettings

PulumiFn = Callable[[], None]
Program = Callable[[Cell, CellPlan, ProviderSettings, Mapping[NodeId, str]], PulumiFn]
"""(cell, plan, provider, user data by node) -> inline program. User data is a secret: it holds the join token.

The program names each instance resource by its node id, tags it with ``shardwright-token`` (PlannedNode.token) and
``shardwright-node``, and exports ``nodes``: {node id: {"instance_id": …, "address": …}}.
"""


class ResourceChanges(Value):
    """Counts by what the engine did."""

    create: int = 0
    update: int = 0
    replace: int = 0
    delete: int = 0
    same: int = 0

    @property
    def none(self) -> bool:
        return not (self.create or self.update or self.replace or self.delete)


class PolicyFinding(Value):
    policy: str
    pack: str
    level: str
    urn: str
    message: str


class CellOutcome(Value):
    """What one attempt at one cell did."""

    cell: Cell
    generation: int
    changes: ResourceChanges
    findings: tuple[PolicyFinding, ...] = ()
    nodes: tuple[tuple[NodeId, str], ...] = ()
    """(node id, the provider's instance id)"""
    seconds: float = 0.0


class CellDriver(Protocol):
    """One attempt per call; raises PolicyViolation, ConcurrentUpdate, ProviderError.

    Blocks: call from a worker thread.
    """

    def preview(self, plan: CellPlan, user_data: Mapping[NodeId, str]) -> CellOutcome: ...

    def up(self, plan: CellPlan, user_data: Mapping[NodeId, str]) -> CellOutcome: ...

    def destroy(self, cell: Cell) -> None: ...
