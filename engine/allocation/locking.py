"""ResourceLocking: whoever asks first gets it, nobody gets it twice, and what is not confirmed comes back."""

from collections.abc import Collection
from contextlib import AbstractContextManager
from datetime import datetime, timedelta

from engine.allocation.lease import Lease, Stock, quote_stock
from engine.allocation.turns import Turns
from engine.clock import Clock
from engine.errors import QuoteExpired
from engine.model.market import Hold, Quote
from engine.store.database import Database
from engine.store.holds import LeaseStore

DEFAULT_TTL = timedelta(minutes=5)

_POSTGRESQL_TURNS = 2
"""Transactions at once. More of them only wait for each other at a stock that many want; each has a connection."""


class ResourceLocking:
    """Leases with fencing tokens over the control store; safe between threads and between processes.

    SQLite lets writers in by polling, which is unfair and slow under many threads, and the pool of connections to
    PostgreSQL may pass over a waiting thread for as long as others come. So the threads of a process queue here.
    """

    def __init__(self, database: Database, clock: Clock, *, ttl: timedelta = DEFAULT_TTL) -> None:
        self.leases = LeaseStore(database)
        self._clock, self._ttl = clock, ttl
        self._turns = Turns(1 if database.engine.dialect.name == "sqlite" else _POSTGRESQL_TURNS)

    def reserve(
        self,
        stock: Stock,
        units: int,
        *,
        key: str,
        group: str,
        holder: str,
        ttl: timedelta | None = None,
        at_least: int | None = None,
        shards_per_unit: int = 1,
        quote: Quote | None = None,
    ) -> Lease:
        """Hold ``units`` of ``stock`` for ``ttl``, or what is left of them where that is ``at_least`` so many.

        Same key, same lease, while it lasts; once it has lapsed or was given back the key may be granted anew, under
        a higher fencing token. Raises InsufficientCapacity.
        """
        now = self._clock.now()
        with self._turn():
            return self.leases.reserve(
                stock,
                units,
                key=key,
                group=group,
                holder=holder,
                now=now,
                expires_at=now + (self._ttl if ttl is None else ttl),
                at_least=at_least,
                shards_per_unit=shards_per_unit,
                quote=quote,
            )

    def reserve_quote(self, quote: Quote, units: int, *, key: str, group: str, holder: str) -> Lease:
        """Units of a quote, never more in all than it promises, and never for longer than it stands.

        Raises QuoteExpired, InsufficientCapacity.
        """
        ttl = min(self._ttl, quote.expires_at - self._clock.now())
        if ttl <= timedelta(0):
            raise QuoteExpired(f"quote {quote.id} expired at {quote.expires_at}", next_step="quote again")
        return self.reserve(quote_stock(quote), units, key=key, group=group, holder=holder, ttl=ttl, quote=quote)

    def confirm(self, lease: Lease) -> Lease:
        """From now on it does not lapse. Raises NotFound when it has, StaleEpoch when somebody else has it."""
        with self._turn():
            return self.leases.confirm(lease.key, lease.fencing, self._clock.now())

    def release(self, lease: Lease) -> bool:
        """Give it back, held or confirmed. Already back = success (False). Raises StaleEpoch."""
        with self._turn():
            return self.leases.release(lease.key, lease.fencing)

    def note_hold(self, lease: Lease, hold: Hold) -> Lease:
        """Keep what the provider answered, so that a restart can confirm or release it."""
        expires_at = min(lease.expires_at, hold.expires_at)
        with self._turn():
            return self.leases.note_hold(lease.key, lease.fencing, hold.model_dump_json(), expires_at)

    def expire(self) -> int:
        """Sweep lapsed holds of every stock (a reservation sweeps its own stock anyway)."""
        with self._turn():
            return self.leases.expire(self._clock.now())

    def forget(self, *, before: datetime, ended: Collection[str], most: int) -> int:
        """Drop old leases that are nobody's any more; see the store."""
        with self._turn():
            return self.leases.forget(before=before, ended=ended, most=most)

    def of_group(self, group: str) -> tuple[Lease, ...]:
        """In order of their keys, whatever their state; what has lapsed is expired here, swept or not."""
        with self._turn():
            found = self.leases.of_group(group)
        now = self._clock.now()
        return tuple(lease.as_of(now) for lease in found)

    def set_phase(self, group: str, phase: str) -> None:
        with self._turn():
            self.leases.set_phase(group, phase, self._clock.now())

    def _turn(self) -> AbstractContextManager[None]:
        return self._turns.turn()
