"""What the API and the web page show: read-only, the same facts the command line prints."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from engine.billing.reconciliation import Reconciliation
from engine.billing.report import CostReport
from engine.composition.membership import Standing
from engine.errors import UnknownName
from engine.model.billing import Charge
from engine.model.capacity import CapacityTarget
from engine.model.move import MoveReport, MoveUnderWay
from engine.model.placement import Binding, ComponentName, Node, Shard, ShardQuery
from engine.model.plan import Plan
from engine.model.value import Value
from engine.namespace.names import NameQuery

ALL_SHARDS = ShardQuery()


class ShardView(Value):
    """A shard, where it is now, and what is bound to it."""

    shard: Shard
    node: Node
    component: ComponentName | None
    standing: Standing | None = None
    """Whether the component's name leads to it; None where nothing is bound to it."""


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

    def moves(self) -> Sequence[MoveReport]:
        """The latest ones, as many as a page shows."""
        ...

    def moves_ended(self) -> int:
        """All that the store knows of."""
        ...

    def moves_under_way(self) -> Sequence[MoveUnderWay]: ...

    def bills(self) -> BillView: ...

    def charges(self) -> Iterable[Charge]:
        """Every charge that counts, of all providers: the rows of the merged bill."""
        ...

    def resolve(self, component: ComponentName) -> ShardView: ...

    def replicas(self, query: NameQuery) -> Sequence[ShardView]:
        """Every replica that the name stands for, those first that its name leads to."""
        ...


def shard_views(
    shards: Sequence[Shard],
    nodes: Sequence[Node],
    bindings: Sequence[Binding],
    standings: Mapping[ComponentName, Standing] | None = None,
) -> tuple[ShardView, ...]:
    """Joined by id; a shard whose node is unknown is left out."""
    by_id = {node.id: node for node in nodes}
    component = {binding.shard: binding.component for binding in bindings}
    return tuple(
        ShardView(
            shard=shard,
            node=by_id[shard.node],
            component=name,
            standing=None if name is None or standings is None else standings.get(name),
        )
        for shard in shards
        if shard.node in by_id
        for name in (component.get(shard.id),)
    )


def replicas_of(views: Iterable[ShardView], query: NameQuery) -> tuple[ShardView, ...]:
    """Those that the name stands for, by number, those first that serve. Raises UnknownName."""
    found = [view for view in views if view.component is not None and query.matches(view.component)]
    if not found:
        raise UnknownName(
            f"{query} is not known",
            why="nothing is bound to it",
            next_step="shardwright shards lists what is there",
        )
    return tuple(sorted(found, key=_serving_first))


def serving_replica(replicas: Sequence[ShardView], query: NameQuery) -> ShardView:
    """The first whose standing is good or not known, as the resolver chooses. Raises UnknownName where nobody serves:
    who asks for any replica must not be sent to one that is being drained."""
    for view in replicas:
        if view.standing is None or view.standing.serves:
            return view
    raise UnknownName(f"nobody serves {query} any more", why="its last replicas are being drained")


def _serving_first(view: ShardView) -> tuple[bool, int]:
    serves = view.standing is not None and view.standing.serves
    return not serves, view.component.index if view.component is not None else 0
