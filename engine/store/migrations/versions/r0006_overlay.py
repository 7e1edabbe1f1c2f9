"""The overlay between nodes: hosts and their keys, the number of each tenant, the generation of it all."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "overlay_hosts",
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("slot", sa.Integer(), nullable=False),
        sa.Column("public_key", sa.String(length=44), nullable=True),
        sa.Column("endpoint", sa.String(length=32), nullable=True),
        sa.Column("namespace", sa.String(length=63), nullable=True),
        sa.Column("address", sa.String(length=15), nullable=True),
        sa.Column("mac", sa.String(length=17), nullable=True),
        sa.PrimaryKeyConstraint("name"),
        sa.UniqueConstraint("slot"),
        sa.UniqueConstraint("address"),
    )
    op.create_table(
        "overlay_tenants",
        sa.Column("namespace", sa.String(length=63), nullable=False),
        sa.Column("vni", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("namespace"),
        sa.UniqueConstraint("vni"),
    )
    op.create_table(
        "overlay_generation",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    number_the_namespaces()


def number_the_namespaces() -> None:
    """Shards that are bound already belong to a tenant from now on."""
    connection = op.get_bind()
    known = connection.execute(sa.text("SELECT DISTINCT namespace FROM bindings ORDER BY namespace")).scalars().all()
    for vni, namespace in enumerate(known, start=4097):
        row = {"namespace": namespace, "vni": vni}
        connection.execute(sa.text("INSERT INTO overlay_tenants (namespace, vni) VALUES (:namespace, :vni)"), row)


def downgrade() -> None:
    op.drop_table("overlay_generation")
    op.drop_table("overlay_tenants")
    op.drop_table("overlay_hosts")
