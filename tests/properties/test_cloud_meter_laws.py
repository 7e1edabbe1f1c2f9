"""Whatever runs and however prices move: metered pieces tile the time, and a bill sums exactly to its invoice."""

import csv
import io
import json
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.clock import ManualClock
from engine.model.value import Interval
from providers.sandbox.azure.catalog import SIZES
from providers.sandbox.azure.server import AzureCloud
from providers.sandbox.cloud import ServerOptions
from providers.sandbox.gcp.catalog import MACHINE_TYPES
from providers.sandbox.gcp.server import GcpCloud

START = datetime(2026, 11, 5, 23, 59, tzinfo=UTC)
NOVEMBER = Interval(start=datetime(2026, 11, 1, tzinfo=UTC), end=datetime(2026, 12, 1, tzinfo=UTC))

runs = st.lists(st.tuples(st.integers(0, 10_000), st.booleans(), st.integers(1, 200_000)), min_size=1, max_size=4)
"""(which type, spot, seconds it runs), one after the other."""
speeds = st.sampled_from([Decimal(1), Decimal("17.3"), Decimal(3600)])


@settings(max_examples=25, deadline=None)
@given(runs=runs, speed=speeds, seed=st.integers(0, 99))
def test_google_bills_sum_to_their_invoice(runs: list[tuple[int, bool, int]], speed: Decimal, seed: int) -> None:
    clock = ManualClock(START)
    cloud = GcpCloud(ServerOptions("gcp", 0, "p", ("us-central1",), seed, speed), clock, "s")
    types = list(MACHINE_TYPES)
    for number, (which, spot, seconds) in enumerate(runs):
        cloud.machines.start(
            str(number),
            name="n",
            zone="us-central1-a",
            region="us-central1",
            instance_type=types[which % len(types)],
            spot=spot,
        )
        clock.advance(timedelta(seconds=seconds))
        cloud.machines.stop(str(number))
    bill = cloud.bill(NOVEMBER)
    rows = [json.loads(line, parse_float=Decimal) for line in b64decode(bill.content_base64).splitlines()]
    credits = [Decimal(credit["amount"]) for row in rows for credit in row["credits"]]
    assert sum((Decimal(row["cost"]) for row in rows), Decimal(0)) + sum(credits, Decimal(0)) == bill.total
    assert bill.total == bill.total.quantize(Decimal("0.01"))
    assert all(credit < 0 for credit in credits)


@settings(max_examples=25, deadline=None)
@given(runs=runs, speed=speeds, seed=st.integers(0, 99))
def test_azure_bills_sum_to_their_invoice(runs: list[tuple[int, bool, int]], speed: Decimal, seed: int) -> None:
    clock = ManualClock(START)
    cloud = AzureCloud(ServerOptions("azure", 0, "s", ("eastus",), seed, speed), clock)
    sizes = [size for size in SIZES.values() if size.spot_capable]
    hours = Decimal(0)
    for number, (which, spot, seconds) in enumerate(runs):
        size = sizes[which % len(sizes)]
        machine = cloud.machines.start(
            str(number), name="n", zone="1", region="eastus", instance_type=size.name, spot=spot
        )
        cloud.biller.resource_ids[str(number)] = f"/subscriptions/s/resourceGroups/g/providers/vm/{number}"
        clock.advance(timedelta(seconds=seconds))
        cloud.machines.stop(str(number))
        hours += cloud.biller.meter.hours(machine.runs_from, clock.now())
    bill = cloud.bill(NOVEMBER)
    rows = list(csv.DictReader(io.StringIO(b64decode(bill.content_base64).decode())))
    assert sum((Decimal(row["CostInBillingCurrency"]) for row in rows), Decimal(0)) == bill.total
    metered = sum((Decimal(row["Quantity"]) for row in rows), Decimal(0))
    assert abs(metered - hours) < Decimal("0.000001") * len(rows), "pieces tile the time that a machine ran"
