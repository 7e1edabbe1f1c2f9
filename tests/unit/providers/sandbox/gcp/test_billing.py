import json
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from engine.clock import ManualClock
from engine.model.value import Interval
from providers.sandbox.cloud import ServerOptions
from providers.sandbox.contract import SandboxBill
from providers.sandbox.gcp.server import GcpCloud

START = datetime(2026, 11, 2, tzinfo=UTC)
NOVEMBER = Interval(start=datetime(2026, 11, 1, tzinfo=UTC), end=datetime(2026, 12, 1, tzinfo=UTC))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def cloud(clock: ManualClock) -> GcpCloud:
    options = ServerOptions("gcp", 0, "p", ("us-central1", "europe-west1"), 7, Decimal(1))
    return GcpCloud(options, clock, "secret")


def run(cloud: GcpCloud, clock: ManualClock, machine_type: str, hours: float, *, spot: bool = False) -> None:
    tags = {"shardwright-node": "Node.1", "shardwright-token": "shard:x", "shardwright-workload": "shop"}
    machine = cloud.machines.start(
        f"{machine_type}-{spot}",
        name="n",
        zone="us-central1-a",
        region="us-central1",
        instance_type=machine_type,
        spot=spot,
        tags=tags,
    )
    clock.advance(timedelta(hours=hours) + (machine.runs_from - clock.now()))
    cloud.machines.stop(machine.instance_id)


def rows(bill: SandboxBill) -> list[dict[str, Any]]:
    return [json.loads(line, parse_float=Decimal) for line in b64decode(bill.content_base64).splitlines()]


def total(found: list[dict[str, Any]]) -> Decimal:
    credits = [credit["amount"] for row in found for credit in row["credits"]]
    return sum((Decimal(amount) for amount in [*(row["cost"] for row in found), *credits]), Decimal(0))


def test_an_hour_of_a_machine_is_its_cores_and_its_memory(cloud: GcpCloud, clock: ManualClock) -> None:
    run(cloud, clock, "e2-standard-2", 1)
    bill = cloud.bill(NOVEMBER)
    found = rows(bill)
    exact = 2 * Decimal("0.02181159") + 8 * Decimal("0.00292353")
    usage = [row for row in found if row["cost_type"] == "regular"]
    assert total(usage) == exact
    assert bill.total == Decimal("0.07")
    assert total(found) == bill.total
    assert {row["invoice"]["month"] for row in found} == {"202611"}
    assert {row["sku"]["description"] for row in usage} == {
        "E2 Instance Core running in Americas",
        "E2 Instance Ram running in Americas",
    }


def test_labels_are_in_their_legal_form(cloud: GcpCloud, clock: ManualClock) -> None:
    run(cloud, clock, "e2-standard-2", 1)
    labels = {label["key"]: label["value"] for label in rows(cloud.bill(NOVEMBER))[0]["labels"]}
    assert labels == {"shardwright-node": "node-1", "shardwright-workload": "shop"}


def test_n2_earns_sustained_use_discounts(cloud: GcpCloud, clock: ManualClock) -> None:
    run(cloud, clock, "n2-standard-2", 365)
    found = rows(cloud.bill(NOVEMBER))
    listed = sum((Decimal(row["cost"]) for row in found if row["cost_type"] == "regular"), Decimal(0))
    discount = sum((Decimal(credit["amount"]) for row in found for credit in row["credits"]), Decimal(0))
    # half a month: the first quarter at the list price, the second at 86.78 % of it
    assert float(-discount / listed) == pytest.approx((1 - 0.8678) / 2, rel=1e-6)
    assert {credit["type"] for row in found for credit in row["credits"]} == {"SUSTAINED_USAGE_DISCOUNT"}


@pytest.mark.parametrize(("machine_type", "spot"), [("e2-standard-2", False), ("n2-standard-2", True)])
def test_e2_and_spot_earn_none(cloud: GcpCloud, clock: ManualClock, machine_type: str, spot: bool) -> None:
    run(cloud, clock, machine_type, 365, spot=spot)
    assert not [credit for row in rows(cloud.bill(NOVEMBER)) for credit in row["credits"]]


def test_spot_is_billed_at_the_prices_of_its_hours(cloud: GcpCloud, clock: ManualClock) -> None:
    run(cloud, clock, "c3-standard-4", 24, spot=True)
    bill = cloud.bill(NOVEMBER)
    prices = {row["price"]["effective_price"] for row in rows(bill) if row["price"]}
    assert len(prices) > 4
    assert total(rows(bill)) == bill.total


def test_a_period_without_machines_is_an_empty_bill(cloud: GcpCloud) -> None:
    bill = cloud.bill(NOVEMBER)
    assert (bill.total, rows(bill)) == (Decimal(0), [])
