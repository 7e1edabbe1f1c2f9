"""How many requests a second allocate_shards() serves over one scarce stock, and whether any shard is sold twice.

    python -m benchmarks.allocate_shards --calls 100000 --store sqlite|postgresql [--threads 64] [--output json]

The store is a real one in a temporary folder, as durable as in use: a file of SQLite, or a PostgreSQL server of its own
on a local socket, ended with the benchmark. Callers confirm and release what they got, release it unconfirmed, or
abandon it (as a crash would), and all of that counts into the time. The baseline is one thread, on a store of its own.

Double sales are counted from the store's own records: a trigger notes every change of a lease in the very transaction
that made it, and the notes are replayed. A unit granted beyond the stock, a fencing token granted twice, and a lease
that goes on after its end each count. A leak is a unit that is still taken once every hold must have lapsed.
"""

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from threading import Barrier

from sqlalchemy import func, select, text

from engine.allocation.allocate import AllocationRequest, Source, allocate_shards
from engine.allocation.lease import LeaseState, Stock
from engine.allocation.locking import ResourceLocking
from engine.clock import SystemClock
from engine.errors import InsufficientCapacity, NotFound
from engine.model.capacity import Pool
from engine.model.ids import NodeId, PoolId
from engine.model.money import usd
from engine.store.database import Database
from engine.store.holds import leases
from engine.store.migrate import upgrade
from tests.postgresql_server import private_postgresql
from tests.unit.engine.planner.cases import pool as some_pool

ABANDONED, RELEASED_UNCONFIRMED = 0.04, 0.3
"""Shares of the grants; the others are confirmed and then released."""
_SHORT, _LONG = timedelta(seconds=0.25), timedelta(minutes=5)
_ACTIVE = (LeaseState.HELD, LeaseState.CONFIRMED)

_NOTES = {
    "sqlite": (
        "CREATE TABLE lease_notes (seq INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT, units INTEGER, fencing INTEGER,"
        " state TEXT)",
        "CREATE TRIGGER note_grant AFTER INSERT ON leases BEGIN INSERT INTO lease_notes (key, units, fencing, state)"
        " VALUES (NEW.key, NEW.units, NEW.fencing, NEW.state); END",
        "CREATE TRIGGER note_change AFTER UPDATE ON leases BEGIN INSERT INTO lease_notes (key, units, fencing, state)"
        " VALUES (NEW.key, NEW.units, NEW.fencing, NEW.state); END",
    ),
    "postgresql": (
        "CREATE TABLE lease_notes (seq BIGSERIAL PRIMARY KEY, key TEXT, units INTEGER, fencing INTEGER, state TEXT)",
        "CREATE FUNCTION note_lease() RETURNS trigger AS $$ BEGIN INSERT INTO lease_notes (key, units, fencing, state)"
        " VALUES (NEW.key, NEW.units, NEW.fencing, NEW.state); RETURN NULL; END $$ LANGUAGE plpgsql",
        "CREATE TRIGGER note_lease AFTER INSERT OR UPDATE ON leases FOR EACH ROW EXECUTE FUNCTION note_lease()",
    ),
}


@dataclass(frozen=True)
class Note:
    """One change of a lease, in the order in which the store made them."""

    key: str
    units: int
    fencing: int
    state: LeaseState


@dataclass(frozen=True)
class Audit:
    grants: int
    most_taken: int
    """Units out at once."""
    double_sales: int


@dataclass(frozen=True)
class Row:
    store: str
    threads: int
    shards: int
    calls: int
    seconds: float
    calls_per_second: float
    granted: int
    granted_per_second: float
    refused: int
    abandoned: int
    lapsed_before_confirmed: int
    wait_p50_ms: float
    wait_p95_ms: float
    wait_max_ms: float
    most_taken: int
    double_sales: int
    leaks: int
    load: float
    """Of the machine, when the calls began."""


@dataclass
class _Tally:
    """Of one thread."""

    waits: list[float] = field(default_factory=list)
    granted: dict[str, int] = field(default_factory=dict)
    """Fencing token by key."""
    refused: int = 0
    abandoned: int = 0
    lapsed: int = 0


class _OneNode:
    """A node with so many free slots, and no more to be had."""

    def __init__(self, shards: int) -> None:
        self.stock = Stock(id="node:scarce", limit=shards)
        self._sources = (Source(stock=self.stock, price_per_shard_hour=usd("0"), node=NodeId("scarce")),)

    def expected(self, pool: PoolId) -> int:
        return 0

    def sources(self, pool: Pool, shards: int) -> Sequence[Source]:
        return self._sources

    def request_more(self, pool: Pool, shards: int, *, key: str) -> bool:
        return False


class _LaterClock(SystemClock):
    """The system's clock, ahead by ``ahead``."""

    ahead = timedelta()

    def now(self) -> datetime:
        return super().now() + self.ahead


def audit(notes: Iterable[Note], limit: int) -> Audit:
    """Replay what the store noted; pure. Double sales: see the module's text."""
    out: dict[str, Note] = {}
    tokens: set[int] = set()
    taken = most = doubles = 0
    for note in notes:
        before = out.get(note.key)
        if note.state is LeaseState.HELD and (before is None or before.fencing != note.fencing):
            doubles += (note.fencing in tokens) + (before is not None)
            tokens.add(note.fencing)
            out[note.key] = note
            taken += note.units
            doubles += max(0, min(note.units, taken - limit))
        elif note.state in _ACTIVE:
            doubles += before is None or before.fencing != note.fencing
        elif before is not None:
            taken -= out.pop(note.key).units
        most = max(most, taken)
    return Audit(grants=len(tokens), most_taken=most, double_sales=doubles)


def measure(store: str, url: str, *, threads: int, calls: int, shards: int, seed: int) -> Row:
    """``calls`` in all on an empty store. Raises RuntimeError when callers and store disagree on what was granted."""
    database, clock, node = Database(url), _LaterClock(), _OneNode(shards)
    try:
        upgrade(database)
        with database.transaction() as connection:
            for statement in _NOTES[store]:
                connection.execute(text(statement))
        locking = ResourceLocking(database, clock)
        load, start = os.getloadavg()[0], Barrier(threads + 1)

        def caller(number: int) -> _Tally:
            share = calls // threads + (number < calls % threads)
            start.wait()
            return _call(locking, node, number, share, random.Random(f"{seed}/{number}"))  # noqa: S311

        with ThreadPoolExecutor(threads) as executor:
            waiting = [executor.submit(caller, number) for number in range(threads)]
            start.wait()
            began = time.perf_counter()
            tallies = [one.result() for one in waiting]
            seconds = time.perf_counter() - began
        clock.ahead = 2 * _LONG
        locking.expire()
        found = _audited(database, tallies, shards)
        leaks = _leaks(database, locking, node.stock)
    finally:
        database.dispose()
    waits = sorted(wait for tally in tallies for wait in tally.waits)
    granted = sum(len(tally.granted) for tally in tallies)
    return Row(
        store=store,
        threads=threads,
        shards=shards,
        calls=len(waits),
        seconds=seconds,
        calls_per_second=len(waits) / seconds,
        granted=granted,
        granted_per_second=granted / seconds,
        refused=sum(tally.refused for tally in tallies),
        abandoned=sum(tally.abandoned for tally in tallies),
        lapsed_before_confirmed=sum(tally.lapsed for tally in tallies),
        wait_p50_ms=1000 * statistics.median(waits),
        wait_p95_ms=1000 * waits[int(0.95 * (len(waits) - 1))],
        wait_max_ms=1000 * waits[-1],
        most_taken=found.most_taken,
        double_sales=found.double_sales,
        leaks=leaks,
        load=load,
    )


def _call(locking: ResourceLocking, node: _OneNode, number: int, calls: int, rng: random.Random) -> _Tally:
    tally, pool = _Tally(), some_pool()
    for turn in range(calls):
        fate = rng.random()
        request = AllocationRequest(
            pool=pool,
            count=1,
            holder=f"caller-{number}",
            key=f"{number}/{turn}",
            ttl=_SHORT if fate < ABANDONED else _LONG,
        )
        began = time.perf_counter()
        try:
            made = allocate_shards(request, predict=node, discover=node, locking=locking, scale_out=node)
        except InsufficientCapacity:
            tally.refused += 1
            continue
        finally:
            tally.waits.append(time.perf_counter() - began)
        (lease,) = made.leases
        tally.granted[lease.key] = lease.fencing
        if fate < ABANDONED:
            tally.abandoned += 1
            continue
        try:
            if fate >= ABANDONED + RELEASED_UNCONFIRMED:
                locking.confirm(lease)
        except NotFound:
            tally.lapsed += 1
        locking.release(lease)
    return tally


def _audited(database: Database, tallies: Sequence[_Tally], limit: int) -> Audit:
    with database.transaction() as connection:
        rows = connection.execute(text("SELECT key, units, fencing, state FROM lease_notes ORDER BY seq")).all()
    notes = [Note(row.key, row.units, row.fencing, LeaseState(row.state)) for row in rows]
    noted = {note.key: note.fencing for note in notes}
    answered = {key: fencing for tally in tallies for key, fencing in tally.granted.items()}
    if noted != answered:
        raise RuntimeError(f"the callers were granted {len(answered)} leases, the store noted {len(noted)} or others")
    return audit(notes, limit)


def _leaks(database: Database, locking: ResourceLocking, stock: Stock) -> int:
    """Units that the counter or the leases still hold; none should, for whatever was confirmed was released."""
    active = select(func.coalesce(func.sum(leases.c.units), 0)).where(leases.c.state.in_(_ACTIVE))
    with database.transaction() as connection:
        held = int(connection.execute(active).scalar_one())
    return max(held, abs(locking.leases.taken(stock.id)))


@contextmanager
def _empty_store(store: str) -> Iterator[str]:
    if store == "postgresql":
        with private_postgresql() as url:
            yield url
    else:
        with tempfile.TemporaryDirectory(prefix="sw-allocate-") as folder:
            yield f"sqlite:///{Path(folder) / 'control.sqlite'}"


def _line(row: Row) -> str:
    return (
        f"{row.store}, {row.threads} thread(s): {row.calls} calls in {row.seconds:.1f} s,"
        f" {row.calls_per_second:.0f}/s ({row.granted_per_second:.0f}/s granted); wait p50 {row.wait_p50_ms:.0f} ms,"
        f" p95 {row.wait_p95_ms:.0f} ms, longest {row.wait_max_ms:.0f} ms; {row.refused} refused,"
        f" {row.abandoned} abandoned; at most {row.most_taken} of {row.shards} out;"
        f" {row.double_sales} double sales, {row.leaks} leaks; load {row.load:.1f}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=tuple(_NOTES), default="sqlite")
    parser.add_argument("--calls", type=int, default=2000, help="in all, under the threads")
    parser.add_argument("--baseline-calls", type=int, default=1000, help="by one thread")
    parser.add_argument("--threads", type=int, default=64)
    parser.add_argument("--shards", type=int, default=16, help="in the stock")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", choices=("table", "json"), default="table")
    given = parser.parse_args()
    rows = []
    for threads, calls in ((1, given.baseline_calls), (given.threads, given.calls)):
        with _empty_store(given.store) as url:
            row = measure(given.store, url, threads=threads, calls=calls, shards=given.shards, seed=given.seed)
        rows.append(row)
        print(_line(row), file=sys.stderr if given.output == "json" else sys.stdout, flush=True)
    if given.output == "json":
        json.dump([asdict(row) for row in rows], sys.stdout, indent=2)
        print()
    return int(any(row.double_sales or row.leaks for row in rows))


if __name__ == "__main__":
    sys.exit(main())
