"""One-use join tokens, stored as hashes: whoever reads the store cannot join with it."""

import hashlib
import hmac
from base64 import urlsafe_b64encode
from datetime import timedelta

from sqlalchemy import Column, Connection, Integer, String, Table, insert, or_, select, update

from engine.clock import Clock
from engine.errors import AuthenticationFailed
from engine.model.ids import NodeId
from engine.store.database import Database, UtcDateTime, metadata

TOKEN_LIFE = timedelta(hours=24)
"""An instance may wait for capacity; an unused token is extended whenever it is asked for again."""

join_tokens = Table(
    "join_tokens",
    metadata,
    Column("node", String(128), primary_key=True),
    Column("serial", Integer, nullable=False),
    Column("token_sha256", String(64), nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("used_at", UtcDateTime),
    Column("key_sha256", String(64)),
)


class JoinTokens:
    """Tokens are derived from ``secret``, the node and a serial, so that a node's user data is the same every round."""

    def __init__(self, database: Database, clock: Clock, secret: bytes) -> None:
        self._database, self._clock, self._secret = database, clock, secret

    def issue(self, node: NodeId) -> str:
        """The node's token; the same one until ``replace`` or ``void``."""
        expires = self._clock.now() + TOKEN_LIFE
        with self._database.transaction() as connection:
            serial = connection.execute(select(join_tokens.c.serial).where(join_tokens.c.node == node)).scalar()
            token = self._token(node, serial or 1)
            if serial is None:
                row = {"node": node, "serial": 1, "token_sha256": _digest(token), "expires_at": expires}
                connection.execute(insert(join_tokens).values(row))
            else:
                unused = (join_tokens.c.node == node) & join_tokens.c.used_at.is_(None)
                fresh = {"expires_at": expires, "token_sha256": _digest(token)}  # void has taken the digest away
                connection.execute(update(join_tokens).where(unused).values(fresh))
        return token

    def replace(self, node: NodeId) -> str:
        """A new token for a new instance of the same node; the old one is void."""
        self.issue(node)
        with self._database.transaction() as connection:
            serial = connection.execute(select(join_tokens.c.serial).where(join_tokens.c.node == node)).scalar_one() + 1
            token = self._token(node, serial)
            fresh = {"serial": serial, "token_sha256": _digest(token), "used_at": None, "key_sha256": None}
            fresh["expires_at"] = self._clock.now() + TOKEN_LIFE
            connection.execute(update(join_tokens).where(join_tokens.c.node == node).values(fresh))
        return token

    def redeem(self, node: NodeId, token: str, key_sha256: str) -> None:
        """Use the token up. Raises AuthenticationFailed.

        The same key may come again, however late (its first answer was lost, or its certificate has ended while nobody
        could renew it): a certificate for that key is of no use to anyone else.
        """
        now = self._clock.now()
        first = join_tokens.c.used_at.is_(None) & (join_tokens.c.expires_at > now)
        usable = (
            update(join_tokens)
            .where(join_tokens.c.node == node, join_tokens.c.token_sha256 == _digest(token))
            .where(or_(join_tokens.c.key_sha256 == key_sha256, first))
            .values(used_at=now, key_sha256=key_sha256)
        )
        with self._database.transaction() as connection:
            if connection.execute(usable).rowcount != 1:
                raise AuthenticationFailed(f"node {node} may not join", why="its token is wrong, used or too old")

    def _token(self, node: NodeId, serial: int) -> str:
        code = hmac.new(self._secret, f"join:{node}:{serial}".encode(), hashlib.sha256).digest()
        return urlsafe_b64encode(code).decode().rstrip("=")


def void(connection: Connection, node: NodeId) -> None:
    """Nobody joins with the node's token any more, and whoever has is not admitted any longer. None = success."""
    nothing = {"serial": join_tokens.c.serial + 1, "token_sha256": "", "used_at": None, "key_sha256": None}
    connection.execute(update(join_tokens).where(join_tokens.c.node == node).values(nothing))


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
