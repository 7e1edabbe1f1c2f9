"""By which keys each provider is known: those of the first meeting, until an operator accepts others."""

from collections.abc import Collection
from contextlib import suppress

from sqlalchemy import Column, Connection, String, Table, delete, insert, select
from sqlalchemy.exc import IntegrityError

from engine.clock import Clock
from engine.store.database import Database, UtcDateTime, metadata

provider_keys = Table(
    "provider_keys",
    metadata,
    Column("provider", String(64), primary_key=True),
    Column("thumbprint", String(64), primary_key=True),
    Column("since", UtcDateTime, nullable=False),
)
_MOST_KEYS = 100
"""Of one provider: a list that somebody else writes is not kept at any length."""


class ProviderKeys:
    """``providers.base.KeyMemory``."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock

    def meet(self, provider: str, keys: Collection[str]) -> frozenset[str]:
        """What is trusted of that provider. At the first meeting it is ``keys``, which are recorded."""
        known = self.known(provider)
        if known or not keys:
            return known
        with suppress(IntegrityError), self._database.transaction() as connection:  # somebody else may be first
            if not _known(connection, provider):
                self._record(connection, provider, sorted(keys)[:_MOST_KEYS])
        return self.known(provider)

    def known(self, provider: str) -> frozenset[str]:
        """Empty: never met."""
        with self._database.transaction() as connection:
            return _known(connection, provider)

    def accept(self, provider: str, keys: Collection[str]) -> None:
        """From now on these and no others."""
        with self._database.transaction() as connection:
            connection.execute(delete(provider_keys).where(provider_keys.c.provider == provider))
            self._record(connection, provider, keys)

    def _record(self, connection: Connection, provider: str, keys: Collection[str]) -> None:
        since = self._clock.now()
        rows = [{"provider": provider, "thumbprint": key, "since": since} for key in keys]
        connection.execute(insert(provider_keys), rows)


def _known(connection: Connection, provider: str) -> frozenset[str]:
    query = select(provider_keys.c.thumbprint).where(provider_keys.c.provider == provider)
    return frozenset(connection.execute(query).scalars())
