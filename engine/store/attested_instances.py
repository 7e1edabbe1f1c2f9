"""Which instances have joined on their provider's word: each with one key, once and for all."""

from sqlalchemy import Column, String, Table, insert, select
from sqlalchemy.exc import IntegrityError

from engine.clock import Clock
from engine.errors import AuthenticationFailed
from engine.model.ids import NodeId
from engine.store.database import Database, UtcDateTime, metadata

attested_instances = Table(
    "attested_instances",
    metadata,
    Column("provider", String(128), primary_key=True),
    Column("instance_id", String(256), primary_key=True),
    Column("node", String(128), nullable=False),
    Column("key_sha256", String(64), nullable=False),
    Column("joined_at", UtcDateTime, nullable=False),
)


class AttestedInstances:
    """One use per instance; the key that used it may come again, since a certificate for it is of no use to others."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock

    def key_of(self, provider: str, instance_id: str) -> str | None:
        """The key (SHA-256, hex) that the instance has joined with; None: it has not joined yet."""
        with self._database.transaction() as connection:
            return connection.execute(
                select(attested_instances.c.key_sha256).where(
                    attested_instances.c.provider == provider, attested_instances.c.instance_id == instance_id
                )
            ).scalar()

    def use(self, provider: str, instance_id: str, node: NodeId, key_sha256: str) -> None:
        """Raises AuthenticationFailed where the instance has joined with another key."""
        row = {"provider": provider, "instance_id": instance_id, "node": node, "key_sha256": key_sha256}
        try:
            with self._database.transaction() as connection:
                connection.execute(insert(attested_instances).values(row | {"joined_at": self._clock.now()}))
        except IntegrityError:
            if self.key_of(provider, instance_id) != key_sha256:
                raise AuthenticationFailed(
                    f"node {node} may not join", why=f"instance {instance_id} has joined already, with another key"
                ) from None
