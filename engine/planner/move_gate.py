"""When a cheaper place is worth a move: the saving over the expected stay against everything the move costs."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

from engine.model.capacity import Resources
from engine.model.ids import NodeId, PoolId, ShardId
from engine.model.money import Money
from engine.model.placement import NodeState, Shard, ShardState
from engine.model.plan import MoveCause, MoveGateReport, Plan, PlannedNode
from engine.model.value import Value
from engine.planner.inventory import Inventory, InventoryNode
from engine.planner.policy import PlanPolicy

_CAUSES = {NodeState.RECLAIMING: MoveCause.RECLAIM, NodeState.DRAINING: MoveCause.OPERATOR}
"""By the state of the node that is left."""
_NOTHING = Resources.total(())


class MoveProposal(Value):
    shard: ShardId
    source: NodeId
    destination: NodeId
    cause: MoveCause
    gate: MoveGateReport | None
    """None for a move that is not a choice (the source is being reclaimed)."""


def move_gate(
    *,
    source_price: Money,
    target_price: Money,
    expected_stay_hours: float,
    egress_gib: float,
    egress_price_per_gib: Money,
    double_pay_hours: float,
    downtime_cost: Money,
    risk_at_target: Money,
    lost_commitment: Money,
    min_saving: float = 0.0,
) -> MoveGateReport:
    """Prices per hour of the shard's share of its node. Passes when the saving over the expected stay exceeds every
    cost of the move by more than ``min_saving`` of what staying would cost.
    """
    stay = _exact(expected_stay_hours)
    report = MoveGateReport(
        saving=(source_price - target_price) * stay,
        egress=egress_price_per_gib * _exact(egress_gib),
        double_pay=target_price * _exact(double_pay_hours),
        downtime=downtime_cost,
        risk_at_target=risk_at_target,
        lost_commitment=lost_commitment,
        expected_stay_hours=expected_stay_hours,
        passes=False,
    )
    needed = report.cost + source_price * stay * _exact(min_saving)
    return report.model_copy(update={"passes": needed < report.saving})


def gate_for(
    policy: PlanPolicy, source: InventoryNode, *, target_price: Money, target_loss: float, now: datetime
) -> MoveGateReport:
    """The gate for one shard of ``source``, whose price is shared evenly by the shards on it.

    ``target_price`` per shard-hour: nothing where the shard moves into free room that is paid for anyway.
    ``target_loss``: probability that the target is reclaimed within the expected stay.
    """
    terms, currency = policy.moves, policy.currency
    source_price = share_of(source.node.hourly_price, source.shards)
    committed = source.committed_for(now).total_seconds() / 3600
    return move_gate(
        source_price=source_price,
        target_price=target_price,
        expected_stay_hours=terms.expected_stay_hours,
        egress_gib=terms.egress_gib + source.memory_gib,
        egress_price_per_gib=Money(amount=terms.egress_price_per_gib, currency=currency),
        double_pay_hours=terms.double_pay_hours,
        downtime_cost=Money(amount=terms.downtime_cost, currency=currency),
        risk_at_target=Money(amount=terms.loss_cost * _exact(target_loss), currency=currency),
        lost_commitment=source_price * _exact(min(committed, terms.expected_stay_hours)),
        min_saving=policy.min_move_saving,
    )


def gate_to_running(
    policy: PlanPolicy, source: InventoryNode, target: InventoryNode, *, now: datetime
) -> MoveGateReport:
    """The gate for one shard of ``source`` into free room of a node that is paid for anyway."""
    loss = target.loss_within(policy.moves.expected_stay_hours, policy)
    return gate_for(policy, source, target_price=Money.zero(policy.currency), target_loss=loss, now=now)


def propose_moves(
    policy: PlanPolicy, plan: Plan, inventory: Inventory, shards: Sequence[Shard]
) -> tuple[MoveProposal, ...]:
    """Where the bound shards of leaving nodes go: for each, the cheapest planned slot of its pool and type that
    is free.

    Cost-driven moves carry the gate that let them pass; one that does not pass is left out (the planner keeps such
    nodes in the first place, so that happens only when the market moved in between). Reclaims, and nodes that an
    operator drains, go without a gate.
    """
    leaving = set(plan.leaving)
    places = _Places(plan, shards)
    sources = {item.node.id: item for item in inventory.nodes}
    proposals = []
    for shard in sorted(shards, key=lambda shard: shard.id):
        source = sources.get(shard.node)
        if shard.node not in leaving or source is None or shard.state is not ShardState.BOUND:
            continue
        target = places.cheapest_for(shard)
        if target is None:
            continue
        destination = target.node.id
        cause = _CAUSES.get(source.node.state, MoveCause.COST)
        gate = None
        if cause is MoveCause.COST:
            kept = target.quote is None
            price = Money.zero(policy.currency) if kept else _price_each(target)
            loss = _loss(policy, target, sources.get(destination) if kept else None)
            gate = gate_for(policy, source, target_price=price, target_loss=loss, now=plan.made_at)
            if not gate.passes:
                continue
        places.take(shard, destination)
        proposals.append(
            MoveProposal(shard=shard.id, source=shard.node, destination=destination, cause=cause, gate=gate)
        )
    return tuple(proposals)


class _Places:
    """Planned slots less bound shards already there. A slot is of one pool and one type: a shard of another type is
    replaced by one of the type that is planned, not moved into its place.
    """

    def __init__(self, plan: Plan, shards: Sequence[Shard]) -> None:
        planned = [node for cell in plan.cells for node in cell.nodes]
        self._nodes = {node.node.id: node for node in planned}
        self._free: dict[tuple[NodeId, PoolId, str], int] = {}
        self._taken = {node.node.id: _NOTHING for node in planned}
        """As large as the bound shards are: one may have outgrown its type."""
        self._open: dict[tuple[PoolId, str], list[NodeId]] = {}
        """By pool and type the nodes that may have a free slot, cheapest first."""
        for node in sorted(planned, key=_by_price):
            for slot in node.slots:
                key = (node.node.id, slot.pool, slot.shard_type)
                self._free[key] = self._free.get(key, 0) + slot.count
                self._open.setdefault((slot.pool, slot.shard_type), []).append(node.node.id)
        for shard in shards:
            if shard.state is ShardState.BOUND and shard.node in self._nodes:
                self.take(shard, shard.node)

    def cheapest_for(self, shard: Shard) -> PlannedNode | None:
        waiting = self._open.get((shard.pool, shard.shard_type), [])
        position = 0
        while position < len(waiting):
            node = waiting[position]
            if self._free[node, shard.pool, shard.shard_type] <= 0:
                del waiting[position]  # slots are only ever taken
            elif self._nodes[node].node.resources.short_of(shard.nominal, (self._taken[node],)):
                position += 1
            else:
                return self._nodes[node]
        return None

    def take(self, shard: Shard, node: NodeId) -> None:
        key = (node, shard.pool, shard.shard_type)
        if key in self._free:
            self._free[key] -= 1
        self._taken[node] = Resources.total((self._taken[node], shard.nominal))


def _by_price(planned: PlannedNode) -> tuple[Decimal, NodeId]:
    return _price_each(planned).amount, planned.node.id


def _loss(policy: PlanPolicy, target: PlannedNode, kept: InventoryNode | None) -> float:
    """Probability that the target is reclaimed within the expected stay. What a kept node was bought on is not in the
    plan that keeps it, but in the inventory, from which the planner judged it.
    """
    known = kept or InventoryNode(node=target.node, slots=target.slots, planned=target)
    return known.loss_within(policy.moves.expected_stay_hours, policy)


def _price_each(planned: PlannedNode) -> Money:
    return share_of(planned.node.hourly_price, sum(slot.count for slot in planned.slots))


def share_of(price: Money, shards: int) -> Money:
    """One shard's part of its node's price."""
    return price * (Decimal(1) / Decimal(max(1, shards)))


def _exact(number: float) -> Decimal:
    return Decimal(str(number))
