"""Every table of the first version: shard map, joining, plans and rounds, moves, resource locking, ledger."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    _shard_map()
    _joining()
    _plans()
    _moves()
    _locking()
    _ledger()


def _shard_map() -> None:
    op.create_table(
        "nodes",
        sa.Column("id", sa.String(length=128), nullable=False),
        sa.Column("cell", sa.String(length=255), nullable=False),
        sa.Column("provider", sa.String(length=64), nullable=False),
        sa.Column("region", sa.String(length=64), nullable=False),
        sa.Column("zone", sa.String(length=64), nullable=False),
        sa.Column("instance_type", sa.String(length=64), nullable=False),
        sa.Column("option", sa.String(length=16), nullable=False),
        sa.Column("hourly_price", sa.String(length=64), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("resources", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("instance_id", sa.String(length=255), nullable=True),
        sa.Column("agent_url", sa.String(length=255), nullable=True),
        sa.Column("underlay_address", sa.String(length=64), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_nodes_cell", "nodes", ["cell"], unique=False)
    op.create_index("ix_nodes_provider", "nodes", ["provider"], unique=False)
    op.create_table(
        "shards",
        sa.Column("id", sa.String(length=128), nullable=False),
        sa.Column("shard_type", sa.String(length=64), nullable=False),
        sa.Column("pool", sa.String(length=128), nullable=False),
        sa.Column("node", sa.String(length=128), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("moved_by", sa.String(length=128), nullable=True),
        sa.Column("nominal", sa.Text(), nullable=False),
        sa.Column("measured", sa.Text(), nullable=True),
        sa.Column("address", sa.String(length=15), nullable=False),
        sa.Column("mac", sa.String(length=17), nullable=False),
        sa.ForeignKeyConstraint(
            ["node"],
            ["nodes.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("address"),
        sa.UniqueConstraint("mac"),
    )
    op.create_index("ix_shards_node", "shards", ["node"], unique=False)
    op.create_table(
        "bindings",
        sa.Column("namespace", sa.String(length=63), nullable=False),
        sa.Column("workload", sa.String(length=63), nullable=False),
        sa.Column("component", sa.String(length=63), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("shard", sa.String(length=128), nullable=False),
        sa.Column("bound_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["shard"],
            ["shards.id"],
        ),
        sa.PrimaryKeyConstraint("namespace", "workload", "component", "ordinal"),
        sa.UniqueConstraint("shard"),
    )
    op.create_table(
        "overlay_cursor",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("next", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )


def _joining() -> None:
    op.create_table(
        "join_tokens",
        sa.Column("node", sa.String(length=128), nullable=False),
        sa.Column("serial", sa.Integer(), nullable=False),
        sa.Column("token_sha256", sa.String(length=64), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("key_sha256", sa.String(length=64), nullable=True),
        sa.PrimaryKeyConstraint("node"),
    )


def _plans() -> None:
    op.create_table(
        "plans",
        sa.Column("id", sa.String(length=128), nullable=False),
        sa.Column("parent", sa.String(length=128), nullable=True),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_plans_generation", "plans", ["generation"], unique=False)
    op.create_table(
        "plan_target",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("plan", sa.String(length=128), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "purchases",
        sa.Column("node", sa.String(length=128), nullable=False),
        sa.Column("plan", sa.String(length=128), nullable=False),
        sa.Column("planned", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("node"),
    )
    op.create_index("ix_purchases_plan", "purchases", ["plan"], unique=False)
    op.create_table(
        "rounds",
        sa.Column("id", sa.String(length=128), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("plan", sa.String(length=128), nullable=True),
        sa.Column("document", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_rounds_started_at", "rounds", ["started_at"], unique=False)


def _locking() -> None:
    op.create_table(
        "stocks",
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("taken", sa.Integer(), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "leases",
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("group_key", sa.String(length=255), nullable=False),
        sa.Column("stock", sa.String(length=255), nullable=False),
        sa.Column("units", sa.Integer(), nullable=False),
        sa.Column("shards_per_unit", sa.Integer(), nullable=False),
        sa.Column("holder", sa.String(length=255), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("fencing", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("quote", sa.Text(), nullable=True),
        sa.Column("hold_document", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["stock"],
            ["stocks.id"],
        ),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_index("ix_leases_group_key", "leases", ["group_key"], unique=False)
    op.create_index("ix_leases_stock_state", "leases", ["stock", "state", "expires_at"], unique=False)
    op.create_table(
        "lease_groups",
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("phase", sa.String(length=16), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )


def _moves() -> None:
    op.create_table(
        "moves",
        sa.Column("id", sa.String(length=128), nullable=False),
        sa.Column("shard", sa.String(length=128), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_moves_shard", "moves", ["shard"], unique=False)
    op.create_index("ix_moves_finished_at", "moves", ["finished_at"], unique=False)


def _ledger() -> None:
    op.create_table(
        "bill_deliveries",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("provider", sa.String(length=64), nullable=False),
        sa.Column("invoice_id", sa.String(length=128), nullable=False),
        sa.Column("issuer", sa.String(length=128), nullable=False),
        sa.Column("period_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("period_end", sa.DateTime(timezone=True), nullable=False),
        sa.Column("total", sa.String(length=64), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("format", sa.String(length=64), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("provider", "invoice_id", "sha256", name="uq_bill_deliveries_content"),
    )
    op.create_table(
        "charges",
        sa.Column("delivery", sa.Integer(), nullable=False),
        sa.Column("charge_id", sa.String(length=256), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["delivery"],
            ["bill_deliveries.id"],
        ),
        sa.PrimaryKeyConstraint("delivery", "charge_id"),
    )


def downgrade() -> None:
    for table in (
        "charges",
        "bill_deliveries",
        "lease_groups",
        "leases",
        "stocks",
        "moves",
        "rounds",
        "purchases",
        "plan_target",
        "plans",
        "join_tokens",
        "overlay_cursor",
        "bindings",
        "shards",
        "nodes",
    ):
        op.drop_table(table)
