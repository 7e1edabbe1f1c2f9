import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from engine.billing.base import ingest
from engine.billing.sums import sums_of
from engine.model.billing import BillDelivery, BillFormat, Invoice
from engine.model.money import usd
from engine.model.value import Interval
from engine.store.database import Database
from engine.store.ledger import SqlLedger, charges

PERIOD = Interval(start=datetime(2026, 11, 1, tzinfo=UTC), end=datetime(2026, 12, 1, tzinfo=UTC))
HEADER = (
    "BilledCost,BillingCurrency,BillingAccountId,BillingPeriodStart,BillingPeriodEnd,ChargePeriodStart,"
    "ChargePeriodEnd,ChargeCategory,ChargeDescription,ProviderName,ServiceName\n"
)
TIMES = "2026-11-01T00:00:00Z,2026-12-01T00:00:00Z,2026-11-23T10:00:00Z,2026-11-23T11:00:00Z"


def delivery(*costs: str, invoice_id: str = "1", total: str = "1", further: Sequence[Invoice] = ()) -> BillDelivery:
    rows = "".join(f"{cost},USD,t,{TIMES},Usage,a unit,harbor,capacity\n" for cost in costs)
    content = (HEADER + rows).encode()
    return BillDelivery(
        provider="harbor",
        format=BillFormat.FOCUS,
        content_type="text/csv",
        content=content,
        sha256=hashlib.sha256(content).hexdigest(),
        invoice=Invoice(issuer="harbor", invoice_id=invoice_id, billing_period=PERIOD, total=usd(total)),
        further_invoices=tuple(further),
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
    assert len(list(ledger.charges())) == 2
    assert list(ledger.charges(provider="someone else")) == []


def test_an_open_period_that_is_delivered_again_counts_once(database: Database) -> None:
    ledger = SqlLedger(database)
    for number, costs in enumerate((("0.4",), ("0.4", "0.3"), ("0.4", "0.3", "0.2"))):
        part = delivery(*costs, invoice_id=f"open-{number}")
        ledger.append(part, ingest(part))
    assert [invoice.invoice_id for _, invoice in ledger.invoices()] == ["open-2"]
    assert len(list(ledger.charges())) == 3


def test_a_corrected_total_over_the_same_rows_is_a_new_delivery(database: Database) -> None:
    ledger = SqlLedger(database)
    typed, corrected = delivery("1", total="1234.65"), delivery("1", total="1234.56")
    assert [ledger.append(part, ingest(part)) for part in (typed, corrected, corrected)] == [True, True, False]
    assert [invoice.total for _, invoice in ledger.invoices()] == [usd("1234.56")]
    assert len(list(ledger.charges())) == 1


def test_the_same_content_read_better_is_a_new_delivery(database: Database) -> None:
    ledger, part = SqlLedger(database), delivery("1")
    (before,) = ingest(part)
    now = before.model_copy(update={"effective_cost": Decimal("0.7")})
    assert [ledger.append(part, rows) for rows in ([before], [now], [now])] == [True, True, False]
    assert list(ledger.charges()) == [now]


def test_a_return_to_earlier_content_counts(database: Database) -> None:
    ledger = SqlLedger(database)
    before, between = delivery("1"), delivery("0.7")
    assert all(ledger.append(part, ingest(part)) for part in (before, between, before))
    assert [charge.billed_cost for charge in ledger.charges()] == [Decimal("1")]


def invoice(invoice_id: str, total: str, issuer: str = "harbor") -> Invoice:
    return Invoice(issuer=issuer, invoice_id=invoice_id, billing_period=PERIOD, total=usd(total))


def test_every_invoice_of_a_delivery_is_kept_and_compared(database: Database) -> None:
    ledger = SqlLedger(database)
    first = delivery("1", further=[invoice("2", "-0.5")])
    raised = delivery("1", further=[invoice("2", "-0.4")])
    assert [ledger.append(part, ingest(part)) for part in (first, first, raised)] == [True, False, True]
    assert ledger.invoices() == [("harbor", invoice("1", "1")), ("harbor", invoice("2", "-0.4"))]


@pytest.mark.parametrize("odd", [invoice("1", "2"), invoice("2", "2", issuer="agora")], ids=["twice", "other issuer"])
def test_invoices_that_make_no_snapshot_are_refused(odd: Invoice) -> None:
    with pytest.raises(ValueError, match=r"there twice|one issuer"):
        delivery("1", further=[odd])


def test_sums_say_what_the_newest_charges_come_to_without_reading_them(database: Database) -> None:
    ledger = SqlLedger(database)
    for part in (delivery("1"), delivery("0.7", "0.300000000000000001")):
        ledger.append(part, ingest(part))
    assert ledger.sums() == sums_of("harbor", ledger.charges())
    with database.transaction() as connection:
        connection.execute(charges.update().values(document="no JSON"))
    (one,) = ledger.sums()
    assert (one.delivered_by, one.billed, one.rows) == ("harbor", Decimal("1.000000000000000001"), 2)


def test_charges_are_read_while_others_write(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page at a time, with no transaction open in between; a delivery that comes meanwhile changes nothing."""
    monkeypatch.setattr("engine.store.ledger._PAGE", 2)
    ledger = SqlLedger(database)
    first = delivery("0.1", "0.2", "0.3", "0.4", "0.5")
    ledger.append(first, ingest(first))
    reading = ledger.charges()
    seen = [next(reading)]
    with database.transaction():
        seen += [next(reading), next(reading)]
    assert ledger.append(delivery("9"), ingest(delivery("9")))
    assert [*seen, *reading] == list(ingest(first))
