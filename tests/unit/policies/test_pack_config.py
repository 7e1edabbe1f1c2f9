import json
from datetime import UTC, datetime
from decimal import Decimal

from engine.model.capacity import Resources
from engine.model.ids import NodeId, PlanId
from engine.model.market import PurchaseOption
from engine.model.money import usd
from engine.model.placement import Cell, Node
from engine.model.plan import CellPlan, Plan, PlannedNode
from policies.pack_config import elsewhere, pack_config, read_config
from policies.rules import FLEET_RULES, Elsewhere, FleetFacts, InstanceFacts, Limits, judged

HERE = Cell(provider="aws", kind="aws", account="1", region="us-east-1")
SAME = Cell(provider="aws", kind="aws", account="1", region="eu-west-1")
OTHER = Cell(provider="gcp", kind="gcp", account="p", region="us-central1")


def running(cell: Cell, name: str, option: PurchaseOption, price: str) -> PlannedNode:
    node = Node(
        id=NodeId(name),
        cell=cell.id,
        zone="z",
        instance_type="t",
        option=option,
        hourly_price=usd(price),
        resources=Resources(vcpus=2, memory_gib=4),
    )
    return PlannedNode(node=node, slots=(), quote=None, token=f"t-{name}")


def plan() -> Plan:
    cells = (
        CellPlan(cell=HERE, generation=1, nodes=(running(HERE, "a", PurchaseOption.SPOT, "9"),)),
        CellPlan(cell=SAME, generation=1, nodes=(running(SAME, "b", PurchaseOption.SPOT, "0.10"),)),
        CellPlan(cell=OTHER, generation=1, nodes=(running(OTHER, "c", PurchaseOption.ON_DEMAND, "0.2"),)),
    )
    return Plan(
        id=PlanId("p"),
        parent=None,
        generation=1,
        made_at=datetime(2026, 11, 23, tzinfo=UTC),
        cells=cells,
        decisions=(),
        pools=(),
        expected_hourly_cost=usd("0.3"),
        cost_quantiles=(),
        solver="given",
        gap=0,
        solve_seconds=0,
    )


def test_elsewhere_leaves_the_judged_cell_out() -> None:
    assert elsewhere(plan(), HERE) == Elsewhere(
        nodes=2, spot_nodes=1, same_provider_nodes=1, hourly_cost=Decimal("0.30")
    )


def test_the_price_of_a_node_that_leaves_is_no_part_of_what_the_plan_costs() -> None:
    """It runs until its shards have moved to what was bought in its place."""
    rule = next(one for one in FLEET_RULES if one.id == "hourly-budget")
    found = plan()
    leaving = found.model_copy(update={"leaving": (NodeId("a"),)})

    def costs(judged_plan: Plan, cell: Cell, budget: str) -> str:
        limits = Limits(hourly_budget=Decimal(budget))
        _, rest = read_config(json.loads(pack_config(limits, judged_plan, cell))[rule.id])
        nodes = [planned.node for one in judged_plan.cells if one.cell == cell for planned in one.nodes]
        facts = tuple(
            InstanceFacts(name=node.id, tags={"shardwright-hourly-price": str(node.hourly_price.amount)})
            for node in nodes
        )
        return "".join(judged(rule, FleetFacts(instances=facts, elsewhere=rest), limits))

    for cell in (HERE, SAME, OTHER):
        assert costs(leaving, cell, "0.30") == ""
        assert "costs 9.30 USD" in costs(found, cell, "0.30")
        assert "costs 0.30 USD an hour, the budget is 0.29" in costs(leaving, cell, "0.29")


def test_every_policy_reads_back_what_was_written() -> None:
    limits = Limits(regions=("us-east-1",), hourly_budget=Decimal("1.50"))
    written = json.loads(pack_config(limits, plan(), HERE))
    assert "hourly-budget" in written
    assert all(read_config(config) == (limits, elsewhere(plan(), HERE)) for config in written.values())


def test_without_configuration_there_are_defaults() -> None:
    assert read_config({}) == (Limits(), Elsewhere())
