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
from policies.rules import Elsewhere, Limits

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


def test_every_policy_reads_back_what_was_written() -> None:
    limits = Limits(regions=("us-east-1",), hourly_budget=Decimal("1.50"))
    written = json.loads(pack_config(limits, plan(), HERE))
    assert "hourly-budget" in written
    assert all(read_config(config) == (limits, elsewhere(plan(), HERE)) for config in written.values())


def test_without_configuration_there_are_defaults() -> None:
    assert read_config({}) == (Limits(), Elsewhere())
