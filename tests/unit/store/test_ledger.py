import hashlib
from datetime import UTC, datetime

from engine.billing.base import ingest
from engine.model.billing import BillDelivery, BillFormat, Invoice
from engine.model.money import usd
from engine.model.value import Interval
from engine.store.database import Database
from engine.store.ledger import SqlLedger

PERIOD = Interval(start=datetime(2026, 11, 1, tzinfo=UTC), end=datetime(2026, 12, 1, tzinfo=UTC))
HEADER = (
    "BilledCost,BillingCurrency,BillingAccountId,BillingPeriodStart,BillingPeriodEnd,ChargePeriodStart,"
    "ChargePeriodEnd,ChargeCategory,ChargeDescription,ProviderName,ServiceName\n"
)
TIMES = "2026-11-01T00:00:00Z,2026-12-01T00:00:00Z,2026-11-23T10:00:00Z,2026-11-23T11:00:00Z"


def delivery(*costs: str, invoice_id: str = "1") -> BillDelivery:
    rows = "".join(f"{cost},USD,t,{TIMES},Usage,a unit,harbor,capacity\n" for cost in costs)
    content = (HEADER + rows).encode()
    return BillDelivery(
        provider="harbor",
        format=BillFormat.FOCUS,
        content_type="text/csv",
        content=content,
        sha256=hashlib.sha256(content).hexdigest(),
        invoice=Invoice(issuer="harbor", invoice_id=invoice_id, billing_period=PERIOD, total=usd("1")),
        delivered_at=PERIOD.end,
    )


def test_the_same_delivery_twice_changes_nothing(database: Database) -> None:
    ledger = SqlLedger(database)
    first = delivery("0.4", "0.6")
    assert ledger.append(first, ingest(first))
    assert not ledger.append(first, ingest(first))
    assert [charge.billed_cost for charge in ledger.charges()] == [charge.billed_cost for charge in ingest(first)]


def test_a_restated_invoice_replaces_the_rows_but_keeps_one_invoice(database: Database) -> None:
    ledger = SqlLedger(database)
    for part in (delivery("1"), delivery("0.7", "0.3")):
        ledger.append(part, ingest(part))
    assert [invoice.invoice_id for _, invoice in ledger.invoices()] == ["1"]
    assert len(ledger.charges()) == 2
    assert ledger.charges(provider="someone else") == []


def test_an_open_period_that_is_delivered_again_counts_once(database: Database) -> None:
    ledger = SqlLedger(database)
    for number, costs in enumerate((("0.4",), ("0.4", "0.3"), ("0.4", "0.3", "0.2"))):
        part = delivery(*costs, invoice_id=f"open-{number}")
        ledger.append(part, ingest(part))
    assert [invoice.invoice_id for _, invoice in ledger.invoices()] == ["open-2"]
    assert len(ledger.charges()) == 3
