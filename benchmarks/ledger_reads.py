"""How long bills take to read from a large ledger, and how long a writer waits meanwhile, as leases and moves would.

    python -m benchmarks.ledger_reads [--charges 300000] [--nodes 400]

The ledger is a SQLite store with one AWS month of made-up charges. What a scrape reads (sums) is told beside what the
download goes through (every charge), and the append that brought them.
"""

import argparse
import hashlib
import resource
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from engine.api.bill_csv import bill_csv
from engine.api.stored_view import StoredView
from engine.billing.sums import NODE_TAG
from engine.clock import SystemClock
from engine.model.billing import BillDelivery, BillFormat, Charge, ChargeCategory, Invoice
from engine.model.money import Money
from engine.model.value import Interval
from engine.store.database import Database
from engine.store.opened import opened_store
from engine.store.run_leases import run_leases

MONTH = Interval(start=datetime(2026, 11, 1, tzinfo=UTC), end=datetime(2026, 12, 1, tzinfo=UTC))
_COST = Decimal("0.0123456789")
_WRITES_EVERY = 0.02


def charge(number: int, nodes: int) -> Charge:
    """An hour of one of the nodes."""
    start = MONTH.start + timedelta(hours=number % 720)
    return Charge(
        charge_id=f"aws/1/{number:08d}",
        **dict.fromkeys(("billed_cost", "effective_cost", "list_cost", "contracted_cost"), _COST),
        billing_currency="USD",
        billing_account_id="123456789012",
        billing_period=MONTH,
        charge_period=Interval(start=start, end=start + timedelta(hours=1)),
        charge_category=ChargeCategory.USAGE,
        charge_description="per On Demand Linux m7i.xlarge instance hour",
        provider_name="AWS",
        publisher_name="AWS",
        invoice_issuer_name="AWS",
        invoice_id="1",
        region_id="us-east-1",
        resource_id=f"i-{number % nodes:017x}",
        service_name="Amazon Elastic Compute Cloud",
        tags=((NODE_TAG, f"node-{number % nodes}"),),
    )


def delivery(charges: int) -> BillDelivery:
    total = Money(amount=_COST * charges, currency="USD").to_minor_units()
    return BillDelivery(
        provider="aws",
        format=BillFormat.AWS_CUR,
        content_type="text/csv",
        content=b"",
        sha256=hashlib.sha256(str(charges).encode()).hexdigest(),
        invoice=Invoice(issuer="AWS", invoice_id="1", billing_period=MONTH, total=total),
        delivered_at=MONTH.end,
    )


@contextmanager
def writing(url: str, waits: list[float]) -> Iterator[None]:
    """Short write transactions on a connection of their own, beside whatever is done."""
    done = threading.Event()

    def write() -> None:
        database = Database(url)
        while not done.wait(_WRITES_EVERY):
            begun = time.perf_counter()
            with database.transaction() as connection:
                connection.execute(run_leases.delete())
            waits.append(time.perf_counter() - begun)
        database.dispose()

    writer = threading.Thread(target=write, name="writer")
    writer.start()
    try:
        yield
    finally:
        done.set()
        writer.join()


def measure(what: str, url: str, act: Callable[[], object]) -> None:
    waits: list[float] = []
    with writing(url, waits):
        begun = time.perf_counter()
        found = act()
        seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    wait = max(waits, default=0.0)
    print(
        f"{what}: {seconds:.2f} s, longest write {wait:.2f} s, peak memory so far {peak:.0f} MiB ({found})", flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--charges", type=int, default=300_000)
    parser.add_argument("--nodes", type=int, default=400)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ledger-") as folder:
        url = f"sqlite:///{Path(folder) / 'store.sqlite'}"
        with opened_store(url, SystemClock()) as store:
            rows = (charge(number, asked.nodes) for number in range(asked.charges))
            measure("append", url, lambda: store.ledger.append(delivery(asked.charges), rows))
            view = StoredView("benchmark", store, {})
            measure("sums, report and verdicts", url, lambda: f"{view.bills().reconciliation.verdicts[0].rows} rows")
            measure("download", url, lambda: f"{sum(map(len, bill_csv(view.charges()))) >> 20} MiB")


if __name__ == "__main__":
    main()
