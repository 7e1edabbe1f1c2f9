import csv
import gzip
import io
import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from engine.billing.base import ingest
from engine.billing.reconciliation import reconcile
from engine.clock import ManualClock
from engine.errors import NotFound, ProviderAnswerInvalid
from engine.model.billing import BillDelivery
from engine.model.money import usd
from engine.model.value import Interval
from engine.store.database import Database
from engine.store.ledger import SqlLedger
from providers.aws_bills import fetch_bill, month_of
from tests.unit.providers.aws_script import ScriptedApi

NOW = datetime(2026, 3, 5, tzinfo=UTC)
PERIOD = Interval(start=datetime(2026, 2, 3, tzinfo=UTC), end=datetime(2026, 2, 4, tzinfo=UTC))
MANIFEST = "daily/costs/20260201-20260301/costs-Manifest.json"
HEADER = ["bill/InvoiceId", "lineItem/UnblendedCost"]


def report(*rows: list[str], header: list[str] = HEADER) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows([header, *rows])
    return gzip.compress(text.getvalue().encode())


def definition(compression: str = "GZIP") -> dict[str, str]:
    return {
        "ReportName": "costs",
        "Format": "textORcsv",
        "Compression": compression,
        "S3Bucket": "bills",
        "S3Prefix": "/daily/",
        "S3Region": "eu-west-1",
    }


def summary(invoice_id: str, total: str, kind: str = "INVOICE") -> dict[str, Any]:
    amount = {"TotalAmount": total, "CurrencyCode": "USD"}
    return {"InvoiceId": invoice_id, "InvoiceType": kind, "BaseCurrencyAmount": amount}


class Body(io.BytesIO):
    """What boto3 hands over as an object's body."""


def bill(
    files: dict[str, bytes], *summaries: dict[str, Any], definitions: list[dict[str, str]] | None = None
) -> BillDelivery:
    objects = {
        MANIFEST: json.dumps({"assemblyId": "a", "bucket": "bills", "reportKeys": list(files)}).encode(),
        **files,
    }

    def get_object(Bucket: str, Key: str) -> dict[str, Any]:
        assert Bucket == "bills"
        if Key not in objects:
            raise NotFound(Key)
        return {"Body": Body(objects[Key])}

    def list_invoice_summaries(Selector: dict[str, str]) -> dict[str, Any]:
        return {"InvoiceSummaries": [found for found in summaries if found["InvoiceId"] == Selector["Value"]]}

    script = {
        "describe_report_definitions": {"ReportDefinitions": definitions or [definition()]},
        "get_object": get_object,
        "list_invoice_summaries": list_invoice_summaries,
    }
    return fetch_bill(ScriptedApi(script, ManualClock(NOW)), "aws", PERIOD, now=NOW)


def test_a_single_file_is_passed_on_as_it_came() -> None:
    file = report(["7", "1.25"])
    delivery = bill({"one.csv.gz": file}, summary("7", "1.25"))
    assert delivery.content == file
    assert (delivery.invoice.invoice_id, delivery.invoice.total.amount) == ("7", Decimal("1.25"))
    assert delivery.invoice.billing_period == month_of(PERIOD.start)


def test_several_files_become_one_with_one_header() -> None:
    files = {"one.csv.gz": report(["7", "1"]), "two.csv.gz": report(["7", "2"])}
    delivery = bill(files, summary("7", "3"))
    rows = list(csv.reader(io.StringIO(gzip.decompress(delivery.content).decode())))
    assert rows == [HEADER, ["7", "1"], ["7", "2"]]


def test_each_of_several_invoices_has_its_total_and_a_credit_memo_is_taken_off() -> None:
    file = report(["7", "5"], ["8", "-1"], ["7", "2"])
    delivery = bill({"f": file}, summary("7", "7.00"), summary("8", "1.00", "CREDIT_MEMO"))
    totals = [(invoice.invoice_id, invoice.total) for invoice in delivery.invoices]
    assert totals == [("7", usd("7.00")), ("8", usd("-1.00"))]


COST_HEADER = [
    *("bill/InvoiceId", "bill/PayerAccountId", "bill/BillingPeriodStartDate", "bill/BillingPeriodEndDate"),
    *("lineItem/UsageStartDate", "lineItem/UsageEndDate", "lineItem/LineItemType", "lineItem/CurrencyCode"),
    "lineItem/UnblendedCost",
]


def cost_report(*rows: tuple[str, str]) -> bytes:
    month, hour = ("2026-02-01", "2026-03-01"), ("2026-02-03T10:00:00Z", "2026-02-03T11:00:00Z")
    cells = [[invoice, "012345678901", *month, *hour, "Usage", "USD", cost] for invoice, cost in rows]
    return report(*cells, header=COST_HEADER)


def verdicts(ledger: SqlLedger, delivery: BillDelivery) -> dict[str, tuple[int, bool]]:
    ledger.append(delivery, ingest(delivery))
    found = reconcile(ledger.invoices(), ledger.sums()).verdicts
    return {verdict.invoice.invoice_id: (verdict.rows, verdict.reconciled) for verdict in found}


def test_a_month_with_a_marketplace_invoice_reconciles_invoice_by_invoice(database: Database) -> None:
    ledger = SqlLedger(database)
    delivery = bill(
        {"f": cost_report(("7", "5.5"), ("8", "3"), ("7", "1.5"))}, summary("7", "7.00"), summary("8", "3.00")
    )
    assert verdicts(ledger, delivery) == {"7": (2, True), "8": (1, True)}
    assert [charge.invoice_id for charge in ledger.charges()] == ["7", "8", "7"]
    restated = bill({"f": cost_report(("7", "7"), ("8", "3"))}, summary("7", "7.00"), summary("8", "3.01"))
    assert verdicts(ledger, restated) == {"7": (1, True), "8": (1, False)}


def test_rows_that_are_not_invoiced_yet_belong_to_no_invoice(database: Database) -> None:
    ledger = SqlLedger(database)
    delivery = bill({"f": cost_report(("8", "3"), ("", "4"))}, summary("8", "3.00"))
    assert verdicts(ledger, delivery) == {"8": (1, True)}
    assert [charge.invoice_id for charge in ledger.charges()] == ["8", None]


def test_a_month_without_an_invoice_is_not_there_yet() -> None:
    with pytest.raises(NotFound, match="no invoice for 2026-02"):
        bill({"f": report(["", "5"])})


def test_an_invoice_that_nobody_knows_is_not_found() -> None:
    with pytest.raises(NotFound, match="invoice 7"):
        bill({"f": report(["7", "5"])})


def test_an_account_without_a_csv_report_is_told_to_define_one() -> None:
    with pytest.raises(NotFound, match="gzipped CSV"):
        bill({}, definitions=[definition("Parquet")])


@pytest.mark.parametrize(
    "file",
    [
        b"",
        b"not gzip",
        gzip.compress(b""),
        report(["7"], header=["other"]),
        report(["7", "1"])[:-9],
        report(["7", "1"])[:10] + b"\xff" * 99,
        report(["7", "1" * 200_000]),
    ],
    ids=["empty", "not gzip", "no header", "no invoice column", "cut off", "garbled", "a cell too large"],
)
def test_a_damaged_report_is_refused(file: bytes) -> None:
    with pytest.raises(ProviderAnswerInvalid, match="cannot be read"):
        bill({"f": file}, summary("7", "1"))


def test_files_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(ProviderAnswerInvalid, match="different columns"):
        bill({"a": report(["7", "1"]), "b": report(["1", "7"], header=HEADER[::-1])}, summary("7", "1"))


@pytest.mark.parametrize(
    ("moment", "start", "end"),
    [
        (datetime(2026, 12, 31, 23, tzinfo=UTC), "2026-12-01", "2027-01-01"),
        (datetime(2028, 2, 29, tzinfo=UTC), "2028-02-01", "2028-03-01"),
    ],
)
def test_months(moment: datetime, start: str, end: str) -> None:
    month = month_of(moment)
    assert (f"{month.start:%Y-%m-%d}", f"{month.end:%Y-%m-%d}") == (start, end)
