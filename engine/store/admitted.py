"""Whose certificate still counts: one for the key that the host was admitted with, for as long as the store has it.

A certificate alone says only that its owner was admitted once. It is good for an hour and can be renewed, so that a
gateway that was voided, or a node that was given up, is turned away here or never.
"""

from sqlalchemy import Connection, select

from engine.errors import AuthenticationFailed
from engine.model.ids import NodeId
from engine.model.placement import NodeState
from engine.store.attested_instances import attested_instances
from engine.store.database import Database
from engine.store.join_tokens import join_tokens
from engine.store.overlay_tables import overlay_hosts
from engine.store.shard_tables import nodes


class AdmittedKeys:
    """Safe to share between threads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def require(self, host: NodeId, key_sha256: str) -> None:
        """Returns for a node or gateway that still speaks with the key it was admitted with.

        Raises AuthenticationFailed. Reads only, and waits for nobody's write: every question of an agent comes by.
        """
        with self._database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            require_admitted(connection, host, key_sha256)


def require_admitted(connection: Connection, host: NodeId, key_sha256: str) -> None:
    """The same inside a transaction."""
    if not _there(connection, host):
        raise AuthenticationFailed(f"{host} takes no part in the fleet", why="it is unknown, or gone")
    if key_sha256 not in _admitted(connection, host):
        raise AuthenticationFailed(
            f"{host} was not admitted with this key", why="its certificate is void, or another host has its place"
        )


def _there(connection: Connection, host: NodeId) -> bool:
    state = connection.execute(select(nodes.c.state).where(nodes.c.id == host)).scalar()
    if state is not None:
        return bool(state != NodeState.GONE.value)
    gateway = select(overlay_hosts.c.name).where(overlay_hosts.c.name == host, overlay_hosts.c.namespace.is_not(None))
    return connection.execute(gateway).first() is not None


def _admitted(connection: Connection, host: NodeId) -> set[str]:
    """By token, or on its provider's word; of several instances that were the node one after the other, the newest."""
    by_token = select(join_tokens.c.key_sha256).where(join_tokens.c.node == host)
    vouched = (
        select(attested_instances.c.key_sha256)
        .where(attested_instances.c.node == host)
        .order_by(attested_instances.c.joined_at.desc())
        .limit(1)
    )
    return {key for query in (by_token, vouched) for key in connection.execute(query).scalars() if key}
