"""Charges summed as far as reports tell them apart, so that no report reads a ledger row by row. Pure."""

from collections import defaultdict
from collections.abc import Iterable
from decimal import Decimal, localcontext

from engine.model.billing import Charge, ChargeCategory, ChargeSum

NODE_TAG = "shardwright-node"
DIGITS = 60
"""In which sums are exact: a charge has up to 15 before its point, and no bill has a row for each atom."""

_Kind = tuple[str, str | None, str, str, str, bool]


def sums_of(delivered_by: str, charges: Iterable[Charge]) -> tuple[ChargeSum, ...]:
    """``delivered_by``: the provider's configured name."""
    costs: dict[_Kind, list[Decimal]] = defaultdict(lambda: [Decimal(0)] * 3)
    rows: dict[_Kind, int] = defaultdict(int)
    with localcontext(prec=DIGITS):
        for charge in charges:
            kind = _kind(charge)
            more = (charge.billed_cost, charge.effective_cost, charge.list_cost)
            costs[kind] = [known + part for known, part in zip(costs[kind], more, strict=True)]
            rows[kind] += 1
    return tuple(_sum(delivered_by, kind, costs[kind], count) for kind, count in rows.items())


def _kind(charge: Charge) -> _Kind:
    return (
        charge.invoice_issuer_name,
        charge.invoice_id,
        charge.provider_name,
        charge.billing_currency,
        dict(charge.tags).get(NODE_TAG, ""),
        charge.charge_category is ChargeCategory.ADJUSTMENT,
    )


def _sum(delivered_by: str, kind: _Kind, costs: list[Decimal], rows: int) -> ChargeSum:
    issuer, invoice_id, provider_name, currency, node, adjustment = kind
    billed, effective, list_cost = costs
    return ChargeSum(
        delivered_by=delivered_by,
        issuer=issuer,
        invoice_id=invoice_id,
        provider_name=provider_name,
        currency=currency,
        node=node,
        adjustment=adjustment,
        billed=billed,
        effective=effective,
        list_cost=list_cost,
        rows=rows,
    )
