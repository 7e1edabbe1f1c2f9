"""Several invoices in one delivery of a bill; a delivery may come back with content that was there before."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

_CONTENT = ("uq_bill_deliveries_content", ["provider", "invoice_id", "sha256"])


def upgrade() -> None:
    _alter_deliveries(unique=False)
    op.create_table(
        "further_invoices",
        sa.Column("delivery", sa.Integer(), nullable=False),
        sa.Column("invoice_id", sa.String(length=128), nullable=False),
        sa.Column("total", sa.String(length=64), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.ForeignKeyConstraint(["delivery"], ["bill_deliveries.id"]),
        sa.PrimaryKeyConstraint("delivery", "invoice_id"),
    )


def downgrade() -> None:
    op.drop_table("further_invoices")
    _alter_deliveries(unique=True)


def _alter_deliveries(*, unique: bool) -> None:
    """SQLite drops a constraint by copying the table, and drops no table that others refer to: charges step aside."""
    copies = op.get_bind().dialect.name == "sqlite"
    if copies:
        op.execute("CREATE TABLE charges_aside AS SELECT * FROM charges")
        op.execute("DELETE FROM charges")
    with op.batch_alter_table("bill_deliveries") as table:
        if unique:
            table.create_unique_constraint(*_CONTENT)
        else:
            table.drop_constraint(_CONTENT[0], type_="unique")
    if copies:
        op.execute("INSERT INTO charges SELECT * FROM charges_aside")
        op.drop_table("charges_aside")
