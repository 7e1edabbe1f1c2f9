"""The read side of the control plane, straight from the store: needs no credentials and no network."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from engine.api.view import ALL_SHARDS, BillView, ShardView, replicas_of, shard_views
from engine.billing.reconciliation import reconcile
from engine.billing.report import Shares, cost_report
from engine.clock import Clock, SystemClock
from engine.composition.standing_now import StandingNow
from engine.model.billing import Charge
from engine.model.capacity import CapacityTarget
from engine.model.ids import NodeId, PoolId
from engine.model.move import MoveReport, MoveUnderWay
from engine.model.placement import ComponentName, Node, NodeState, ShardQuery
from engine.model.plan import Plan
from engine.namespace.names import NameQuery
from engine.round_record import RoundOutline
from engine.store.opened import Store

MOVES_SHOWN = 200
_SHARE_PARTS = 5040
"""Parts of a shard, so that up to ten workloads of one pool share it evenly in whole numbers, and more nearly so."""


class StoredView:
    """``engine.api.view.ControlView``."""

    def __init__(
        self, name: str, store: Store, workloads: Mapping[PoolId, tuple[str, ...]], clock: Clock | None = None
    ) -> None:
        """``workloads``: pool -> the ``namespace/workload`` names that it serves."""
        self.name, self._store, self._workloads = name, store, workloads
        self._standings = StandingNow(store, clock or SystemClock())

    def nodes(self) -> Sequence[Node]:
        states = [state for state in NodeState if state is not NodeState.GONE]
        return self._store.shard_map.nodes(states=states)

    def shards(self, query: ShardQuery = ALL_SHARDS) -> Sequence[ShardView]:
        shard_map = self._store.shard_map
        found = shard_map.search(
            shard_type=query.shard_type, provider=query.provider, region=query.region, state=query.state
        )
        performing = [shard for shard in found if query.admits(shard)]
        bindings = shard_map.bindings()
        return shard_views(performing, shard_map.hosts(), bindings, self._standings(bindings))

    def plan(self) -> Plan | None:
        return self._store.plans.target()

    def targets(self) -> Sequence[CapacityTarget]:
        latest = self._store.records.latest(1)
        return RoundOutline.model_validate_json(latest[0].document).targets if latest else ()

    def moves(self) -> Sequence[MoveReport]:
        return self._store.moves.latest(MOVES_SHOWN)

    def moves_ended(self) -> int:
        return self._store.moves.count()

    def moves_under_way(self) -> Sequence[MoveUnderWay]:
        return self._store.moves.under_way()

    def charges(self) -> Iterator[Charge]:
        return self._store.ledger.charges()

    def bills(self) -> BillView:
        sums = self._store.ledger.sums()
        return BillView(
            report=cost_report(sums, self._shares(sorted({NodeId(one.node) for one in sums if one.node}))),
            reconciliation=reconcile(self._store.ledger.invoices(), sums),
        )

    def resolve(self, component: ComponentName) -> ShardView:
        shard_map = self._store.shard_map
        shard = shard_map.resolve(component)
        standing = self._standings(shard_map.bindings(namespace=component.namespace)).get(component)
        return ShardView(shard=shard, node=shard_map.node(shard.node), component=component, standing=standing)

    def replicas(self, query: NameQuery) -> Sequence[ShardView]:
        return replicas_of(self.shards(), query)

    def _shares(self, nodes: Sequence[NodeId]) -> Shares:
        """How many of a node's shards were bought for which workload; pools that serve several share evenly."""
        shares = {}
        for planned in self._store.plans.bought(nodes):
            counts: Counter[str] = Counter()
            for slot in planned.slots:
                names = self._workloads.get(slot.pool, ())
                for name in names:
                    counts[name] += slot.count * (_SHARE_PARTS // len(names))
            if counts:
                shares[planned.node.id] = tuple(sorted(counts.items()))
        return shares
