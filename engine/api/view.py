"""What the API and the web page show: read-only, the same facts the command line prints."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from engine.billing.reconciliation import Reconciliation
from engine.billing.report import CostReport
from engine.model.billing import Charge
from engine.model.capacity import CapacityTarget
from engine.model.move import MoveReport
from engine.model.placement import Binding, ComponentName, Node, Shard, ShardQuery
from engine.model.plan import Plan
from engine.model.value import Value

ALL_SHARDS = ShardQuery()


class ShardView(Value):
    """A shard, where it is now, and what is bound to it."""

    shard: Shard
    node: Node
    component: ComponentName | None


class BillView(Value):
    report: CostReport
    reconciliation: Reconciliation


class ControlView(Protocol):
    """The read side of the control plane. Raises UnknownName for a component that is not bound."""

    name: str

    def nodes(self) -> Sequence[Node]: ...

    def shards(self, query: ShardQuery = ALL_SHARDS) -> Sequence[ShardView]: ...

    def plan(self) -> Plan | None: ...

    def targets(self) -> Sequence[CapacityTarget]: ...

    def moves(self) -> Sequence[MoveReport]: ...

    def bills(self) -> BillView: ...

    def charges(self) -> Iterable[Charge]:
        """Every charge that counts, of all providers: the rows of the merged bill."""
        ...

    def resolve(self, component: ComponentName) -> ShardView: ...


def shard_views(shards: Sequence[Shard], nodes: Sequence[Node], bindings: Sequence[Binding]) -> tuple[ShardView, ...]:
    """Joined by id; a shard whose node is unknown is left out."""
    by_id = {node.id: node for node in nodes}
    component = {binding.shard: binding.component for binding in bindings}
    return tuple(
        ShardView(shard=shard, node=by_id[shard.node], component=component.get(shard.id))
        for shard in shards
        if shard.node in by_id
    )
