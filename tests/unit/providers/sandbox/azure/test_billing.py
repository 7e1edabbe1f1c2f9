import csv
import io
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from engine.clock import ManualClock
from engine.model.value import Interval
from providers.sandbox.azure.billing import COLUMNS
from providers.sandbox.azure.server import AzureCloud
from providers.sandbox.azure.wire import ArmError
from providers.sandbox.cloud import ServerOptions
from providers.sandbox.contract import SandboxBill

START = datetime(2026, 11, 2, 12, tzinfo=UTC)
NOVEMBER = Interval(start=datetime(2026, 11, 1, tzinfo=UTC), end=datetime(2026, 12, 1, tzinfo=UTC))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def cloud(clock: ManualClock) -> AzureCloud:
    return AzureCloud(ServerOptions("azure", 0, "sub", ("eastus", "westeurope"), 7, Decimal(1)), clock)


def run(cloud: AzureCloud, clock: ManualClock, hours: float, *, spot: bool = False) -> None:
    tags = {"shardwright-node": "n1", "quoted": 'a "b"'}
    machine = cloud.machines.start(
        "vm-1", name="n1", zone="2", region="eastus", instance_type="Standard_D2s_v5", spot=spot, tags=tags
    )
    cloud.biller.resource_ids["vm-1"] = "/subscriptions/sub/resourceGroups/g/providers/Microsoft.Compute/vm/n1"
    clock.advance(timedelta(hours=hours) + (machine.runs_from - clock.now()))
    cloud.machines.stop("vm-1")


def rows(bill: SandboxBill) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(b64decode(bill.content_base64).decode())))


def total(found: list[dict[str, str]]) -> Decimal:
    return sum((Decimal(row["CostInBillingCurrency"]) for row in found), Decimal(0))


def test_rows_are_per_day_and_sum_to_the_invoice(cloud: AzureCloud, clock: ManualClock) -> None:
    run(cloud, clock, 30.5)
    bill = cloud.bill(NOVEMBER)
    found = rows(bill)
    assert [row["Date"] for row in found if row["ChargeType"] == "Usage"] == ["11/02/2026", "11/03/2026"]
    assert total([row for row in found if row["ChargeType"] == "Usage"]) == Decimal("30.5") * Decimal("0.096")
    assert (total(found), bill.total) == (Decimal("2.93"), Decimal("2.93"))
    assert tuple(found[0]) == COLUMNS
    assert found[0]["Tags"] == '"quoted": "a \\"b\\"","shardwright-node": "n1"'
    assert (found[0]["ResourceGroup"], found[0]["PricingModel"], found[0]["MeterName"]) == ("g", "OnDemand", "D2s v5")


def test_spot_is_billed_at_the_prices_of_its_hours(cloud: AzureCloud, clock: ManualClock) -> None:
    run(cloud, clock, 24, spot=True)
    found = rows(cloud.bill(NOVEMBER))
    assert len({row["UnitPrice"] for row in found}) > 4
    assert {row["PricingModel"] for row in found if row["ChargeType"] == "Usage"} == {"Spot"}


def test_an_invoice_and_its_report_speak_of_the_same_usage(cloud: AzureCloud, clock: ManualClock) -> None:
    run(cloud, clock, 1)
    (invoice,) = cloud.invoices.listed(START, START + timedelta(days=1))
    run(cloud, clock, 100)
    report = cloud.invoices.begin_report({"metric": "ActualCost", "invoiceId": invoice["name"]})
    found = list(csv.DictReader(io.StringIO(cloud.invoices.content(report).decode())))
    assert float(total(found)) == invoice["properties"]["totalAmount"]["value"] == 0.1
    with pytest.raises(ArmError):
        cloud.invoices.begin_report({"invoiceId": "E0"})


def test_a_report_by_days(cloud: AzureCloud, clock: ManualClock) -> None:
    run(cloud, clock, 30)
    report = cloud.invoices.begin_report({"timePeriod": {"start": "2026-11-02", "end": "2026-11-02"}})
    found = list(csv.DictReader(io.StringIO(cloud.invoices.content(report).decode())))
    assert {row["Date"] for row in found} == {"11/02/2026"}
    with pytest.raises(ArmError):
        cloud.invoices.begin_report({"timePeriod": {"start": "yesterday"}})
