"""Leases in the control store: one row per key, one counter per stock, every change one short transaction.

The stock's row is the lock: SQLite takes the database's write lock anyway, PostgreSQL locks the row. Lock order is
always stock, then lease, so that callers cannot wait for each other in a circle.
"""

import json
from collections.abc import Collection
from datetime import datetime

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    ForeignKey,
    Index,
    Integer,
    RowMapping,
    ScalarSelect,
    Select,
    String,
    Table,
    Text,
    delete,
    exists,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from engine.allocation.lease import Lease, LeaseState, Stock
from engine.errors import ConcurrentUpdate, InsufficientCapacity, NotFound, StaleEpoch
from engine.model.market import Quote
from engine.store.database import Database, UtcDateTime, metadata

stocks = Table(
    "stocks",
    metadata,
    Column("id", String(255), primary_key=True),
    Column("taken", Integer, nullable=False),
    Column("fence", Integer, nullable=False),
)

leases = Table(
    "leases",
    metadata,
    Column("key", String(255), primary_key=True),
    Column("group_key", String(255), nullable=False, index=True),
    Column("stock", String(255), ForeignKey("stocks.id"), nullable=False),
    Column("units", Integer, nullable=False),
    Column("shards_per_unit", Integer, nullable=False),
    Column("holder", String(255), nullable=False),
    Column("state", String(16), nullable=False),
    Column("fencing", Integer, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("quote", Text),
    Column("hold_document", Text),
    Index("ix_leases_stock_state", "stock", "state", "expires_at"),
)

lease_groups = Table(
    "lease_groups",
    metadata,
    Column("id", String(255), primary_key=True),
    Column("phase", String(16), nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
)

_ACTIVE = (LeaseState.HELD.value, LeaseState.CONFIRMED.value)


class _LapsedElsewhere(ConcurrentUpdate):
    """The key's last hold has lapsed on another stock and its units are not back yet.

    They must be given back under that stock's lock, and one transaction never waits for two.
    """

    stock = ""

    @classmethod
    def of(cls, lease: Lease) -> "_LapsedElsewhere":
        made = cls(f"lease {lease.key}: its hold on {lease.stock} has lapsed and is not swept yet")
        made.stock = lease.stock
        return made


class LeaseStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    def reserve(
        self,
        stock: Stock,
        units: int,
        *,
        key: str,
        group: str,
        holder: str,
        now: datetime,
        expires_at: datetime,
        at_least: int | None = None,
        shards_per_unit: int = 1,
        quote: Quote | None = None,
    ) -> Lease:
        """``units``, or as many as are left where that is ``at_least`` so many (None: all of them).

        Raises InsufficientCapacity; ConcurrentUpdate when the key is used for something else.
        """
        wanted = Lease(
            key=key,
            group=group,
            stock=stock.id,
            units=units,
            shards_per_unit=shards_per_unit,
            holder=holder,
            state=LeaseState.HELD,
            fencing=1,
            created_at=now,
            expires_at=expires_at,
            quote=quote,
        )
        least = units if at_least is None else at_least
        try:
            return self._grant(stock, wanted, least)
        except _LapsedElsewhere as lapsed:
            self._sweep(lapsed.stock, now)
            return self._grant(stock, wanted, least)

    def _grant(self, stock: Stock, wanted: Lease, least: int) -> Lease:
        """``wanted`` under the stock's next fencing token, with as many of its units as there are.

        The stock is swept only where what has lapsed matters: when it is short, or the key's own hold is replaced.
        """
        now = wanted.created_at
        try:
            with self._database.transaction() as connection:
                taken, fence = self._lock_stock(connection, stock.id)
                known = _find(connection, wanted.key)
                if known is not None and known.as_of(now).is_active:
                    return _same(known, stock, least, wanted.units)
                if known is not None and known.is_active and known.stock != stock.id:
                    raise _LapsedElsewhere.of(known)
                if known is not None or stock.limit - taken < wanted.units:
                    taken -= _expire(connection, stock.id, now)
                left = max(0, stock.limit - taken)
                if left < least:
                    raise InsufficientCapacity(f"{stock.id}: {least} unit(s) wanted, {left} of {stock.limit} left")
                lease = wanted.model_copy(update={"units": min(wanted.units, left), "fencing": fence + 1})
                _write(connection, lease, replaces=known is not None)
                _set_stock(connection, stock.id, taken + lease.units, fence + 1)
                return lease
        except IntegrityError as error:
            raise ConcurrentUpdate(f"lease {wanted.key}: another caller reserved it on another stock") from error

    def confirm(self, key: str, fencing: int, now: datetime) -> Lease:
        """Idempotent. Raises NotFound when the lease has lapsed or was given back, StaleEpoch on an old token."""
        held = update(leases).where(
            leases.c.key == key,
            leases.c.fencing == fencing,
            leases.c.state == LeaseState.HELD.value,
            leases.c.expires_at > now,
        )
        with self._database.transaction() as connection:
            confirmed = connection.execute(held.values(state=LeaseState.CONFIRMED.value).returning(leases)).mappings()
            row = confirmed.first()
            if row is not None:
                return _read(row)
            lease = _fenced(connection, key, fencing)
            if lease.state is not LeaseState.CONFIRMED:
                raise NotFound(f"lease {key} is no longer held", why=_gone(lease, now), next_step="reserve it again")
            return lease

    def release(self, key: str, fencing: int) -> bool:
        """Held or confirmed units go back. False when they were back already. Raises StaleEpoch on an old token."""
        of_lease = select(leases.c.stock).where(leases.c.key == key).scalar_subquery()
        active = update(leases).where(leases.c.key == key, leases.c.fencing == fencing, leases.c.state.in_(_ACTIVE))
        with self._database.transaction() as connection:
            row = connection.execute(_locked_stock(of_lease)).first()
            if row is None:
                return False
            given_back = active.where(leases.c.stock == row.id).values(state=LeaseState.RELEASED.value)
            units = connection.execute(given_back.returning(leases.c.units)).scalar()
            if units is None:
                _fenced(connection, key, fencing)
                return False
            _set_stock(connection, row.id, row.taken - units, row.fence)
            return True

    def expire(self, now: datetime) -> int:
        """Give back the units of every lapsed hold; how many leases lapsed."""
        with self._database.transaction() as connection:
            query = select(leases.c.stock).where(leases.c.state == LeaseState.HELD.value, leases.c.expires_at <= now)
            lapsed = list(connection.execute(query.order_by(leases.c.stock)).scalars())
        for stock in sorted(set(lapsed)):
            self._sweep(stock, now)
        return len(lapsed)

    def _sweep(self, stock: str, now: datetime) -> None:
        with self._database.transaction() as connection:
            taken, fence = self._lock_stock(connection, stock)
            _set_stock(connection, stock, taken - _expire(connection, stock, now), fence)

    def note_hold(self, key: str, fencing: int, document: str, expires_at: datetime) -> Lease:
        """What the provider answered: its hold, and until when it keeps it."""
        with self._database.transaction() as connection:
            connection.execute(
                update(leases)
                .where(leases.c.key == key, leases.c.fencing == fencing)
                .values(hold_document=document, expires_at=expires_at)
            )
            return _fenced(connection, key, fencing)

    def get(self, key: str) -> Lease | None:
        with self._database.transaction() as connection:
            return _find(connection, key)

    def of_group(self, group: str) -> tuple[Lease, ...]:
        """In order of their keys, whatever their state."""
        with self._database.transaction() as connection:
            rows = connection.execute(select(leases).where(leases.c.group_key == group).order_by(leases.c.key))
            return tuple(_read(row) for row in rows.mappings())

    def taken(self, stock: str) -> int:
        with self._database.transaction() as connection:
            return int(connection.execute(select(stocks.c.taken).where(stocks.c.id == stock)).scalar() or 0)

    def set_phase(self, group: str, phase: str, now: datetime) -> None:
        row = {"id": group, "phase": phase, "updated_at": now}
        with self._database.transaction() as connection:
            insert = self._database.insert(lease_groups).values(row)
            connection.execute(insert.on_conflict_do_update(index_elements=[lease_groups.c.id], set_=row))

    def phase(self, group: str) -> str | None:
        with self._database.transaction() as connection:
            query = select(lease_groups.c.phase).where(lease_groups.c.id == group)
            return connection.execute(query).scalar()

    def groups_in(self, *phases: str) -> tuple[str, ...]:
        with self._database.transaction() as connection:
            query = select(lease_groups.c.id).where(lease_groups.c.phase.in_(phases)).order_by(lease_groups.c.id)
            return tuple(connection.execute(query).scalars())

    def forget(self, *, before: datetime, ended: Collection[str], most: int) -> int:
        """Drop leases that were made earlier and have been given back or have lapsed, the oldest first; how many.

        Then stocks and groups of which nothing is left. Only where the group's phase is one of ``ended``: until then
        it is told from its leases whether all of them are still there.
        """
        under_way = select(lease_groups.c.id).where(lease_groups.c.phase.not_in(ended))
        over = (
            leases.c.state.not_in(_ACTIVE),
            leases.c.created_at < before,
            leases.c.group_key.not_in(under_way),
        )
        oldest = select(leases.c.stock).where(*over).order_by(leases.c.created_at).limit(most)
        with self._database.transaction() as connection:
            stocks_of_them = set(connection.execute(oldest).scalars())
        forgotten = sum(self._forget_of(stock, over, before) for stock in sorted(stocks_of_them))
        empty = (
            select(lease_groups.c.id)
            .where(lease_groups.c.phase.in_(ended), lease_groups.c.updated_at < before)
            .where(~exists().where(leases.c.group_key == lease_groups.c.id))
            .limit(most)
        )
        with self._database.transaction() as connection:
            connection.execute(delete(lease_groups).where(lease_groups.c.id.in_(empty)))
        return forgotten

    def _forget_of(self, stock: str, over: Collection[ColumnElement[bool]], before: datetime) -> int:
        """Under the stock's lock, as whoever grants a lease of it; a quote's units, so not many.

        None while the quote stands: under fencing tokens that begin anew the same key would find what was given back.
        """
        with self._database.transaction() as connection:
            self._lock_stock(connection, stock)
            quotes = connection.execute(select(leases.c.quote).where(leases.c.stock == stock, *over)).scalars()
            if any(quote is not None and _stands(quote, before) for quote in quotes):
                return 0
            forgotten = connection.execute(delete(leases).where(leases.c.stock == stock, *over)).rowcount
            in_use = exists().where(leases.c.stock == stocks.c.id)
            connection.execute(delete(stocks).where(stocks.c.id == stock, stocks.c.taken == 0, ~in_use))
        return forgotten

    def _lock_stock(self, connection: Connection, stock: str) -> tuple[int, int]:
        """(units taken, last fencing token)"""
        query = _locked_stock(stock)
        row = connection.execute(query).first()
        if row is None:
            new = {"id": stock, "taken": 0, "fence": 0}
            connection.execute(self._database.insert(stocks).values(new).on_conflict_do_nothing())
            row = connection.execute(query).one()
        return row.taken, row.fence


def _locked_stock(stock: "str | ScalarSelect[str]") -> Select[tuple[str, int, int]]:
    return select(stocks.c.id, stocks.c.taken, stocks.c.fence).where(stocks.c.id == stock).with_for_update()


def _find(connection: Connection, key: str) -> Lease | None:
    row = connection.execute(select(leases).where(leases.c.key == key)).mappings().first()
    return None if row is None else _read(row)


def _fenced(connection: Connection, key: str, fencing: int) -> Lease:
    lease = _find(connection, key)
    if lease is None:
        raise NotFound(f"no lease {key}")
    if lease.fencing != fencing:
        raise StaleEpoch(
            f"lease {key}: fencing token {fencing} is old, {lease.fencing} holds it now",
            why="it lapsed and was granted again",
        )
    return lease


def _same(known: Lease, stock: Stock, least: int, most: int) -> Lease:
    if known.stock != stock.id or not least <= known.units <= most:
        raise ConcurrentUpdate(
            f"lease {known.key} is for {known.units} of {known.stock}, not {most} of {stock.id}",
            why="an idempotency key stands for one request only",
        )
    return known


def _expire(connection: Connection, stock: str, now: datetime) -> int:
    """Mark lapsed holds of one stock; the units that come back."""
    rows = connection.execute(
        update(leases)
        .where(leases.c.stock == stock, leases.c.state == LeaseState.HELD.value, leases.c.expires_at <= now)
        .values(state=LeaseState.EXPIRED.value)
        .returning(leases.c.units)
    )
    return sum(rows.scalars())


def _set_stock(connection: Connection, stock: str, taken: int, fence: int) -> None:
    connection.execute(update(stocks).where(stocks.c.id == stock).values(taken=taken, fence=fence))


def _stands(quote: str, at: datetime) -> bool:
    expires_at = datetime.fromisoformat(json.loads(quote)["expires_at"])  # an older version may have written it
    return expires_at >= at


def _gone(lease: Lease, now: datetime) -> str:
    lapsed = lease.state is LeaseState.HELD and lease.expires_at <= now
    return f"it lapsed at {lease.expires_at}" if lapsed else f"it is {lease.state.value}"


def _write(connection: Connection, lease: Lease, *, replaces: bool) -> None:
    row = {
        "key": lease.key,
        "group_key": lease.group,
        "stock": lease.stock,
        "units": lease.units,
        "shards_per_unit": lease.shards_per_unit,
        "holder": lease.holder,
        "state": lease.state.value,
        "fencing": lease.fencing,
        "created_at": lease.created_at,
        "expires_at": lease.expires_at,
        "quote": None if lease.quote is None else lease.quote.model_dump_json(),
        "hold_document": lease.hold_document,
    }
    if replaces:
        connection.execute(update(leases).where(leases.c.key == lease.key).values(row))
    else:
        connection.execute(leases.insert().values(row))


def _read(row: RowMapping) -> Lease:
    return Lease(
        key=row["key"],
        group=row["group_key"],
        stock=row["stock"],
        units=row["units"],
        shards_per_unit=row["shards_per_unit"],
        holder=row["holder"],
        state=LeaseState(row["state"]),
        fencing=row["fencing"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        quote=None if row["quote"] is None else Quote.model_validate_json(row["quote"]),
        hold_document=row["hold_document"],
    )
