"""Replicas that are checked and drained; storage that is attached from elsewhere."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("bindings", sa.Column("draining_until", sa.DateTime(timezone=True), nullable=True))
    op.create_table(
        "shard_health",
        sa.Column("shard", sa.String(length=128), nullable=False),
        sa.Column("node", sa.String(length=128), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reported_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("shard"),
    )
    op.create_table(
        "attachments",
        sa.Column("namespace", sa.String(length=63), nullable=False),
        sa.Column("workload", sa.String(length=63), nullable=False),
        sa.Column("component", sa.String(length=63), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("storage", sa.String(length=128), nullable=False),
        sa.Column("shard", sa.String(length=128), nullable=True),
        sa.Column("node", sa.String(length=128), nullable=True),
        sa.Column("shard_epoch", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("namespace", "workload", "component", "ordinal"),
        sa.UniqueConstraint("storage"),
    )


def downgrade() -> None:
    op.drop_table("attachments")
    op.drop_table("shard_health")
    op.drop_column("bindings", "draining_until")
