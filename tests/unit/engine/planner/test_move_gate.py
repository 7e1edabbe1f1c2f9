"""The sum that decides a move, and which moves a plan asks for."""

from decimal import Decimal

import pytest

from engine.model.capacity import Resources, RiskClass
from engine.model.ids import NodeId, PoolId, ShardId
from engine.model.market import PurchaseOption
from engine.model.money import Money, usd
from engine.model.placement import NodeState, Shard, ShardState
from engine.model.plan import MoveCause, Plan, PlannedNode
from engine.planner.inventory import Inventory
from engine.planner.move_gate import gate_for, move_gate, propose_moves
from engine.planner.policy import MoveTerms, PlanPolicy
from tests.unit.engine.planner.cases import CELLS, NOW, certain, inventory_of, offer, plan_of, pool, quote

FREE = usd(0)
ANY_RISK = RiskClass(name="any", rank=1, quantile=0.01, max_shortfall=1.0)


def gate(source: str = "0.10", target: str = "0.04", **changes: object):
    terms: dict[str, object] = {
        "source_price": usd(source),
        "target_price": usd(target),
        "expected_stay_hours": 24.0,
        "egress_gib": 1.0,
        "egress_price_per_gib": usd("0.09"),
        "double_pay_hours": 0.5,
        "downtime_cost": usd("0.001"),
        "risk_at_target": usd("0.01"),
        "lost_commitment": FREE,
    }
    return move_gate(**{**terms, **changes})  # type: ignore[arg-type]


def test_the_sum_is_exact() -> None:
    report = gate()
    assert report.saving == usd("1.44")
    assert report.cost == usd("0.09") + usd("0.02") + usd("0.001") + usd("0.01")
    assert report.passes


@pytest.mark.parametrize(
    "changes",
    [
        {"expected_stay_hours": 1.0},
        {"egress_gib": 20.0},
        {"downtime_cost": usd("2")},
        {"risk_at_target": usd("2")},
        {"lost_commitment": usd("2.4")},
        {"min_saving": 0.9},
        {"target": "0.10"},
        {"target": "0.12"},
    ],
)
def test_every_cost_can_stop_it(changes: dict[str, object]) -> None:
    assert not gate(**changes).passes  # type: ignore[arg-type]


def _shards(plan: Plan) -> list[Shard]:
    found = []
    for cell in plan.cells:
        for planned in cell.nodes:
            for slot in planned.slots:
                for index in range(slot.count):
                    number = len(found) + 1
                    found.append(
                        Shard(
                            id=ShardId(f"shard-{number:03d}-{index}"),
                            shard_type=slot.shard_type,
                            pool=PoolId(slot.pool),
                            node=planned.node.id,
                            state=ShardState.BOUND,
                            nominal=pool().shard_type.resources,
                            address=f"10.9.1.{number}",
                            mac=f"52:54:00:09:01:{number:02x}",
                        )
                    )
    return found


DEAR = quote(offer("dear", "0.20", cell=CELLS[0]))


def _moved(cheap_price: str, policy: PlanPolicy | None = None):
    first = plan_of([certain(pool(), 4)], [DEAR])
    cheap = quote(offer("cheap", cheap_price, cell=CELLS[3]))
    inventory = inventory_of(first)
    policy = policy or PlanPolicy()
    second = plan_of([certain(pool(), 4)], [DEAR, cheap], policy, inventory=inventory, parent=first)
    return policy, first, second, inventory


def test_a_cheaper_offer_moves_every_shard_through_the_gate() -> None:
    policy, first, second, inventory = _moved("0.05")
    assert len(second.leaving) == 2
    moves = propose_moves(policy, second, inventory, _shards(first))
    assert len(moves) == 4
    for move in moves:
        assert move.cause is MoveCause.COST
        assert move.source in second.leaving
        assert move.gate is not None
        assert move.gate.passes
        assert move.gate.saving == (usd("0.10") - usd("0.025")) * 24
    per_node = {move.destination: 0 for move in moves}
    for move in moves:
        per_node[move.destination] += 1
    assert set(per_node.values()) == {2}, "no node gets more than its slots"


@pytest.mark.parametrize(
    ("price", "policy"),
    [
        ("0.19", PlanPolicy()),
        ("0.05", PlanPolicy(moves=MoveTerms(expected_stay_hours=0.5))),
        ("0.05", PlanPolicy(moves=MoveTerms(downtime_cost=Decimal(5)))),
        ("0.05", PlanPolicy(min_move_saving=0.8)),
    ],
)
def test_what_does_not_pay_stays(price: str, policy: PlanPolicy) -> None:
    policy, first, second, inventory = _moved(price, policy)
    assert second.is_noop
    assert propose_moves(policy, second, inventory, _shards(first)) == ()
    cheap = next(d for d in second.decisions if d.offer.id == "cheap")
    assert cheap.reason.startswith("churn:")


def test_a_reclaim_moves_without_a_gate() -> None:
    first = plan_of([certain(pool(), 4)], [DEAR])
    nodes = [
        item.model_copy(update={"node": item.node.model_copy(update={"state": NodeState.RECLAIMING})})
        if index == 0
        else item
        for index, item in enumerate(inventory_of(first).nodes)
    ]
    inventory = Inventory(nodes=tuple(nodes))
    second = plan_of([certain(pool(), 4)], [DEAR], inventory=inventory, parent=first)
    assert second.leaving == (nodes[0].node.id,)
    moves = propose_moves(PlanPolicy(), second, inventory, _shards(first))
    assert [(move.cause, move.gate) for move in moves] == [(MoveCause.RECLAIM, None)] * 2
    assert {move.destination for move in moves} == {NodeId("sw-2-1")}


def _drained(first: Plan) -> Inventory:
    """Its first node is emptied by an operator."""
    leaving, *rest = inventory_of(first).nodes
    node = leaving.node.model_copy(update={"state": NodeState.DRAINING})
    return Inventory(nodes=(leaving.model_copy(update={"node": node}), *rest))


def test_a_shard_of_another_type_than_is_planned_is_not_moved_into_its_place() -> None:
    first = plan_of([certain(pool(), 4)], [DEAR])
    inventory, shards = _drained(first), _shards(first)
    second = plan_of([certain(pool(), 4)], [DEAR], inventory=inventory, parent=first)
    assert len(propose_moves(PlanPolicy(), second, inventory, shards)) == 2
    other = [shard.model_copy(update={"shard_type": "cpu.former"}) for shard in shards]
    assert propose_moves(PlanPolicy(), second, inventory, other) == ()


@pytest.mark.parametrize(("survival", "moves"), [(0.999, 2), (0.2, 0)])
def test_a_kept_node_is_as_safe_to_both_as_what_it_was_bought_on_says(survival: float, moves: int) -> None:
    """The planner gives nodes up only for moves that are then made."""
    spot = offer("spot", "0.03", cell=CELLS[3], option=PurchaseOption.SPOT, vcpus=4)
    policy = PlanPolicy(moves=MoveTerms(loss_cost=Decimal(10)), default_spot_survival=0.5)
    dear, cheap = plan_of([certain(pool(), 2)], [DEAR]), plan_of([certain(pool(), 2)], [quote(spot)])
    roomy = inventory_of(cheap).nodes[0]
    bought = roomy.planned.model_copy(update={"quote": quote(spot, survival=survival)})
    roomy = roomy.model_copy(update={"planned": bought, "node": roomy.node.model_copy(update={"id": NodeId("roomy")})})
    inventory = Inventory(nodes=(*inventory_of(dear).nodes, roomy))
    second = plan_of([certain(pool(risk=ANY_RISK), 4)], [], policy, inventory=inventory, parent=dear)
    assert len(second.leaving) == (1 if moves else 0)
    assert len(propose_moves(policy, second, inventory, _shards(dear))) == moves


def test_a_move_is_charged_with_the_memory_of_what_it_moves() -> None:
    (item,) = inventory_of(plan_of([certain(pool(), 2)], [DEAR])).nodes
    large = item.model_copy(update={"memory_gib": 8.0})
    terms = PlanPolicy(moves=MoveTerms(egress_gib=0.5, egress_price_per_gib=Decimal("0.10")))
    reports = [gate_for(terms, one, target_price=FREE, target_loss=0.0, now=NOW) for one in (item, large)]
    assert [report.egress for report in reports] == [usd("0.05"), usd("0.85")]


def test_currencies_are_never_mixed() -> None:
    with pytest.raises(ValueError, match="cannot combine"):
        gate(downtime_cost=Money(amount=Decimal(1), currency="EUR"))


def test_a_shard_that_outgrew_its_type_moves_only_where_it_has_room() -> None:
    first = plan_of([certain(pool(), 4)], [DEAR])
    leaving = inventory_of(first).nodes[0]
    drained = leaving.model_copy(update={"node": leaving.node.model_copy(update={"state": NodeState.DRAINING})})
    inventory = Inventory(nodes=(drained, *inventory_of(first).nodes[1:]))
    second = plan_of([certain(pool(), 4)], [DEAR], inventory=inventory, parent=first)
    grown, other = (shard for shard in _shards(first) if shard.node == leaving.node.id)
    whole = leaving.node.resources

    def places(nominal: Resources) -> dict[str, str]:
        resized = grown.model_copy(update={"nominal": nominal})
        moves = propose_moves(PlanPolicy(), second, inventory, [resized, other])
        return {move.shard: move.destination for move in moves}

    usual = places(other.nominal)
    assert usual[grown.id] == usual[other.id], "there is room for both"
    alone = places(whole)
    assert alone[grown.id] != alone[other.id]
    assert set(places(whole.model_copy(update={"vcpus": 9.0}))) == {other.id}
    limited = [grown.model_copy(update={"nominal": whole}), other]
    assert whole.storage_iops > 0
    assert len(propose_moves(PlanPolicy(), _without_iops(second), inventory, limited)) == 2


def _without_iops(plan: Plan) -> Plan:
    """As of nodes whose provider says nothing of them."""

    def unknown(planned: PlannedNode) -> PlannedNode:
        resources = planned.node.resources.model_copy(update={"storage_iops": 0.0})
        return planned.model_copy(update={"node": planned.node.model_copy(update={"resources": resources})})

    cells = tuple(cell.model_copy(update={"nodes": tuple(map(unknown, cell.nodes))}) for cell in plan.cells)
    return plan.model_copy(update={"cells": cells})
