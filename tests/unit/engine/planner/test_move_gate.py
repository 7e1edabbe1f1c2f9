"""The sum that decides a move, and which moves a plan asks for."""

from decimal import Decimal

import pytest

from engine.model.ids import NodeId, PoolId, ShardId
from engine.model.money import Money, usd
from engine.model.placement import NodeState, Shard, ShardState
from engine.model.plan import MoveCause, Plan
from engine.planner.inventory import Inventory
from engine.planner.move_gate import move_gate, propose_moves
from engine.planner.policy import MoveTerms, PlanPolicy
from tests.unit.engine.planner.cases import CELLS, certain, inventory_of, offer, plan_of, pool, quote

FREE = usd(0)


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


def test_currencies_are_never_mixed() -> None:
    with pytest.raises(ValueError, match="cannot combine"):
        gate(downtime_cost=Money(amount=Decimal(1), currency="EUR"))
