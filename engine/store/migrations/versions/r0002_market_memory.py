"""What the market taught: the answers of places, and the stays of nodes."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "market_answers",
        sa.Column("event", sa.String(length=255), nullable=False),
        sa.Column("cell", sa.String(length=255), nullable=False),
        sa.Column("zone", sa.String(length=64), nullable=False),
        sa.Column("instance_type", sa.String(length=64), nullable=False),
        sa.Column("option", sa.String(length=16), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("asked", sa.Integer(), nullable=False),
        sa.Column("denied", sa.Integer(), nullable=False),
        sa.Column("held", sa.Integer(), nullable=False),
        sa.Column("denied_nodes", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("event", "cell", "zone", "instance_type", "option"),
    )
    op.create_index("ix_market_answers_at", "market_answers", ["at"], unique=False)
    op.create_table(
        "market_stays",
        sa.Column("node", sa.String(length=128), nullable=False),
        sa.Column("cell", sa.String(length=255), nullable=False),
        sa.Column("zone", sa.String(length=64), nullable=False),
        sa.Column("instance_type", sa.String(length=64), nullable=False),
        sa.Column("option", sa.String(length=16), nullable=False),
        sa.Column("correlation_group", sa.String(length=255), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reclaimed", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("node"),
    )
    op.create_index("ix_market_stays_until", "market_stays", ["until"], unique=False)


def downgrade() -> None:
    op.drop_table("market_stays")
    op.drop_table("market_answers")
