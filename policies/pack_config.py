"""The policy pack's configuration: limits, and what the plan has outside the cell that is judged."""

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from engine.model.market import PurchaseOption
from engine.model.placement import Cell
from engine.model.plan import Plan, PlannedNode
from policies.rules import FLEET_RULES, INGRESS_RULES, INSTANCE_RULES, Elsewhere, Limits


def pack_config(limits: Limits, plan: Plan | None, cell: Cell) -> str:
    """JSON for ``--policy-pack-config``: every policy gets the limits, and the rest of ``plan`` (if there is one)."""
    shared = {
        "limits": limits.model_dump_json(),
        "elsewhere": elsewhere(plan, cell).model_dump_json() if plan else Elsewhere().model_dump_json(),
    }
    ids = [*(r.id for r in INSTANCE_RULES), *(r.id for r in INGRESS_RULES), *(r.id for r in FLEET_RULES)]
    return json.dumps(dict.fromkeys(ids, shared))


def elsewhere(plan: Plan, cell: Cell) -> Elsewhere:
    others = [(other.cell, node) for other in plan.cells if other.cell.id != cell.id for node in other.nodes]
    return Elsewhere(
        nodes=len(others),
        spot_nodes=sum(node.node.option is PurchaseOption.SPOT for _, node in others),
        same_provider_nodes=sum(where.provider == cell.provider for where, _ in others),
        hourly_cost=sum((_price(node) for _, node in others if node.node.id not in plan.leaving), Decimal(0)),
        leaving=plan.leaving,
    )


def read_config(config: Mapping[str, Any]) -> tuple[Limits, Elsewhere]:
    """The inverse, as the pack gets it; the defaults where nothing was configured."""
    limits, rest = config.get("limits"), config.get("elsewhere")
    return (
        Limits.model_validate_json(limits) if limits else Limits(),
        Elsewhere.model_validate_json(rest) if rest else Elsewhere(),
    )


def _price(node: PlannedNode) -> Decimal:
    return (node.quote.unit_price if node.quote is not None else node.node.hourly_price).amount
