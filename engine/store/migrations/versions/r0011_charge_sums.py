"""What each delivery's charges come to; those of the deliveries that count are summed here, once."""

import json
from collections import defaultdict
from decimal import Decimal, localcontext

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

_COSTS = {"billed": "billed_cost", "effective": "effective_cost", "list_cost": "list_cost"}
_COUNTING = "SELECT max(id) FROM bill_deliveries GROUP BY provider, issuer, period_start"


def upgrade() -> None:
    table = op.create_table(
        "charge_sums",
        sa.Column("delivery", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("issuer", sa.Text(), nullable=False),
        sa.Column("invoice_id", sa.Text()),
        sa.Column("provider_name", sa.Text(), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("adjustment", sa.Boolean(), nullable=False),
        sa.Column("billed", sa.Text(), nullable=False),
        sa.Column("effective", sa.Text(), nullable=False),
        sa.Column("list_cost", sa.Text(), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["delivery"], ["bill_deliveries.id"]),
        sa.PrimaryKeyConstraint("delivery", "number"),
    )
    for delivery in op.get_bind().execute(sa.text(_COUNTING)).scalars().all():
        if rows := _sums(delivery):
            op.bulk_insert(table, rows)


def downgrade() -> None:
    op.drop_table("charge_sums")


def _sums(delivery: int) -> list[dict[str, object]]:
    found: dict[tuple[object, ...], list[Decimal]] = defaultdict(lambda: [Decimal(0)] * len(_COSTS))
    rows: dict[tuple[object, ...], int] = defaultdict(int)
    query = sa.text("SELECT document FROM charges WHERE delivery = :delivery ORDER BY charge_id")
    with localcontext(prec=60):
        for document in op.get_bind().execute(query, {"delivery": delivery}).scalars():
            charge = json.loads(document)
            kind = _kind(charge)
            more = (Decimal(charge[cost]) for cost in _COSTS.values())
            found[kind] = [known + part for known, part in zip(found[kind], more, strict=True)]
            rows[kind] += 1
    names = ("issuer", "invoice_id", "provider_name", "currency", "node", "adjustment")
    return [
        {
            "delivery": delivery,
            "number": number,
            **dict(zip(names, kind, strict=True)),
            **dict(zip(_COSTS, map(str, costs), strict=True)),
            "rows": rows[kind],
        }
        for number, (kind, costs) in enumerate(found.items())
    ]


def _kind(charge: dict[str, object]) -> tuple[object, ...]:
    tags = charge.get("tags")
    node = dict(tags).get("shardwright-node", "") if isinstance(tags, list) else ""
    return (
        charge["invoice_issuer_name"],
        charge.get("invoice_id"),
        charge["provider_name"],
        charge["billing_currency"],
        node,
        charge["charge_category"] == "Adjustment",
    )
