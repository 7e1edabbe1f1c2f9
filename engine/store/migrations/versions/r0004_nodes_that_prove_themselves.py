"""Instances that have joined on their provider's word; until when a node may let each of its shards run."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "attested_instances",
        sa.Column("provider", sa.String(length=128), nullable=False),
        sa.Column("instance_id", sa.String(length=256), nullable=False),
        sa.Column("node", sa.String(length=128), nullable=False),
        sa.Column("key_sha256", sa.String(length=64), nullable=False),
        sa.Column("joined_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("provider", "instance_id"),
    )
    op.create_table(
        "run_leases",
        sa.Column("shard", sa.String(length=128), nullable=False),
        sa.Column("node", sa.String(length=128), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("shard"),
    )


def downgrade() -> None:
    op.drop_table("run_leases")
    op.drop_table("attested_instances")
