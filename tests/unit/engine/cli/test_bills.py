"""Exit codes of the bills: whose invoice is off, and who delivered nothing."""

import hashlib
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from engine.app.configured import load, open_store
from engine.billing.base import ingest
from engine.model.billing import BillDelivery, BillFormat, Invoice
from engine.model.money import Money
from engine.model.value import Interval
from tests.command import InProcess
from tests.small_configuration import GOOD

PERIOD = Interval(start=datetime(2026, 11, 1, tzinfo=UTC), end=datetime(2026, 12, 1, tzinfo=UTC))
CONTENT = (
    b"BilledCost,BillingCurrency,BillingAccountId,BillingPeriodStart,BillingPeriodEnd,ChargePeriodStart,"
    b"ChargePeriodEnd,ChargeCategory,ChargeDescription,ProviderName,ServiceName,InvoiceId,InvoiceIssuerName\n"
    b"0.4,USD,t,2026-11-01T00:00:00Z,2026-12-01T00:00:00Z,2026-11-23T10:00:00Z,2026-11-23T11:00:00Z,Usage,a unit,"
    b"harbor,capacity,inv-7,harbor\n"
)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KEY_ID", "id")
    path = tmp_path / "shardwright.toml"
    extra = 'credentials.secret_access_key = { env = "KEY_ID" }\nendpoint = "http://127.0.0.1:9"\n'
    text = GOOD.replace('regions = ["us-east-1"]\n', f'regions = ["us-east-1"]\n{extra}')
    path.write_text(text.replace('name = "demo"', f'name = "demo"\n[state]\ndirectory = "{tmp_path}/state"\n', 1))
    return path


def deliver(file: Path, total: str, *, provider: str = "harbor", currency: str = "USD") -> None:
    content = CONTENT.replace(b"USD", currency.encode())
    asked = Money(amount=Decimal(total), currency=currency)
    delivery = BillDelivery(
        provider=provider,
        format=BillFormat.FOCUS,
        content_type="text/csv",
        content=content,
        sha256=hashlib.sha256(content).hexdigest(),
        invoice=Invoice(issuer="harbor", invoice_id="inv-7", billing_period=PERIOD, total=asked),
        delivered_at=PERIOD.end,
    )
    with open_store(load(file)) as store:
        store.ledger.append(delivery, ingest(delivery))


def test_an_invoice_that_is_off_is_six_and_the_bill_is_shown_all_the_same(command: InProcess, file: Path) -> None:
    deliver(file, "0.41")
    told = command("bills", "report", "--config", file, "--output", "json")
    assert told.code == 6
    assert told.data["report"]["lines"]
    assert "inv-7" in told.err
    assert "off by" in told.err
    assert "next:  shardwright bills fetch" in told.err


def test_one_that_adds_up_is_zero(command: InProcess, file: Path) -> None:
    deliver(file, "0.40")
    assert command("bills", "report", "--config", file, "--output", "json").code == 0


def test_a_bill_in_another_currency_has_a_table_of_its_own(command: InProcess, file: Path) -> None:
    deliver(file, "0.40")
    deliver(file, "0.40", provider="agora", currency="EUR")
    told = command("bills", "report", "--config", file)
    assert told.code == 0, told.err
    assert all(f"Cost by provider and workload ({currency})" in told.out for currency in ("EUR", "USD"))
    assert "0.40 EUR" in told.out
    lines = command("bills", "report", "--config", file, "--output", "json").data["report"]["lines"]
    assert sorted(line["billed"]["currency"] for line in lines) == ["EUR", "USD"]


def test_the_export_says_how_many_charges_it_wrote(command: InProcess, file: Path) -> None:
    deliver(file, "0.40")
    told = command("bills", "export", "--config", file, "--output-file", file.parent / "bill.csv")
    assert told.code == 0, told.err
    assert told.err.startswith("1 charges in")
    assert len((file.parent / "bill.csv").read_text().splitlines()) == 2


def test_a_provider_without_a_bill_is_four_and_the_rest_is_shown(command: InProcess, file: Path) -> None:
    deliver(file, "0.40")
    told = command("bills", "fetch", "--config", file, "--output", "json")
    assert told.code == 4
    assert "no bill from aws" in told.err
    assert [line["provider"] for line in told.data["report"]["lines"]] == ["harbor"]


def test_a_period_that_ends_before_it_starts(command: InProcess, file: Path) -> None:
    command("bills", "fetch", "--config", file, "--start", "2026-11-02", "--end", "2026-11-01").refused(
        2, "is empty", "--start and --end"
    )


@pytest.mark.parametrize("name", ["bill.doc", "bill"])
def test_a_file_of_another_kind(command: InProcess, file: Path, name: str) -> None:
    command("bills", "export", "--config", file, "--output-file", file.parent / name).refused(2, ".csv or .parquet")
    assert not (file.parent / name).exists()


def test_an_export_that_breaks_off_leaves_the_last_one_whole(
    command: InProcess, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver(file, "0.40")
    bill = file.parent / "out" / "bill.csv"
    told = command("bills", "export", "--config", file, "--output-file", bill)
    assert (told.code, str(bill.with_name("bill.csv.metadata.json")) in told.err) == (0, True)
    before = {one.name: one.read_bytes() for one in bill.parent.iterdir()}
    assert sorted(before) == ["bill.csv", "bill.csv.metadata.json"]

    def full(_charge: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("engine.billing.focus.focus_row", full)
    command("bills", "export", "--config", file, "--output-file", bill).refused(1, "No space left")
    assert {one.name: one.read_bytes() for one in bill.parent.iterdir()} == before
