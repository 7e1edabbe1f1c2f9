"""Which workflow waits for a move that is under way."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.add_column("moves_under_way", sa.Column("asked_by", sa.String(length=128), nullable=True))


def downgrade() -> None:
    op.drop_column("moves_under_way", "asked_by")
