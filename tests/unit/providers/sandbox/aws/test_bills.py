import csv
import gzip
import io
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from engine.clock import ManualClock
from engine.model.value import Interval
from providers.sandbox.aws.bills import month_of
from providers.sandbox.aws.cloud import Cloud
from providers.sandbox.aws.front import Front
from providers.sandbox.contract import MarketOption, PriceChange, SandboxBill
from tests.unit.providers.sandbox.aws.conftest import START, Ec2Call, ec2_call

MARCH = month_of(START)


def rows(bill: SandboxBill) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(gzip.decompress(b64decode(bill.content_base64)).decode())))


def total(bill: SandboxBill) -> Decimal:
    return sum((Decimal(row["lineItem/UnblendedCost"]) for row in rows(bill)), Decimal(0))


def usage(bill: SandboxBill) -> list[tuple[Decimal, Decimal]]:
    """(hours, rate) of the usage rows, in order."""
    return [
        (Decimal(row["lineItem/UsageAmount"]), Decimal(row["lineItem/UnblendedRate"]))
        for row in rows(bill)
        if row["lineItem/LineItemType"] == "Usage"
    ]


def test_hours_times_price_and_a_rounding_row(cloud: Cloud, front: Front, launch: Ec2Call, clock: ManualClock) -> None:
    launch()
    clock.advance(timedelta(hours=2, milliseconds=300))
    front.answer(ec2_call("TerminateInstances", InstanceId__1=cloud.instances()[0].instance_id))
    clock.advance(timedelta(hours=5))
    bill = cloud.bill(MARCH)
    assert sum(hours for hours, _ in usage(bill)) == Decimal(2)
    assert bill.total == total(bill) == Decimal("0.19")
    assert [r["lineItem/UnblendedCost"] for r in rows(bill) if r["lineItem/UsageType"] == "Rounding"] == [
        "-0.002000000"
    ]


def test_a_spot_price_that_changes_is_billed_from_then_on(cloud: Cloud, launch: Ec2Call, clock: ManualClock) -> None:
    def to(price: str) -> None:
        change = {"region": "us-east-1", "instance_type": "m5.large", "option": MarketOption.SPOT}
        cloud.change_price(PriceChange.model_validate({**change, "price": price}))

    to("0.04")
    launch(InstanceMarketOptions__MarketType="spot")
    clock.advance(timedelta(minutes=15, milliseconds=300))
    to("0.06")
    clock.advance(timedelta(minutes=30))
    bill = cloud.bill(MARCH)
    assert usage(bill) == [(Decimal("0.25"), Decimal("0.04")), (Decimal("0.5"), Decimal("0.06"))]
    assert bill.total == total(bill) == Decimal("0.04")


def test_a_month_bills_its_own_hours_only(cloud: Cloud, launch: Ec2Call, clock: ManualClock) -> None:
    clock.advance(datetime(2026, 3, 31, 23, tzinfo=UTC) - timedelta(milliseconds=300) - START)
    launch()
    clock.advance(timedelta(hours=3, milliseconds=300))
    april = month_of(datetime(2026, 4, 15, tzinfo=UTC))
    assert sum(hours for hours, _ in usage(cloud.bill(MARCH))) == 1
    assert sum(hours for hours, _ in usage(cloud.bill(april))) == 2
    assert cloud.bill(april).period_start == april.start


def test_an_invoice_stays_while_nothing_is_used(cloud: Cloud, launch: Ec2Call, clock: ManualClock) -> None:
    empty = cloud.bill(MARCH)
    assert (rows(empty), empty.total) == ([], Decimal(0))
    assert cloud.bill(Interval(start=START, end=START + timedelta(hours=1))).invoice_id == empty.invoice_id
    launch()
    clock.advance(timedelta(hours=1))
    used = cloud.bill(MARCH)
    assert used.invoice_id != empty.invoice_id
    assert {row["bill/InvoiceId"] for row in rows(used)} == {used.invoice_id}
