import csv
import io
import json
from datetime import timedelta
from decimal import Decimal

import pytest

from engine.model.value import Interval
from providers.network.records import Span
from providers.network.statement import as_csv, make_bill
from providers.network.wire_records import FocusRow, WireBill
from tests.unit.providers.network.networks import START, a_listing

MONTH = Interval(start=START, end=START + timedelta(days=30))


def a_span(start: float, end: float, price: str = "0.0333", *, used: bool = True) -> Span:
    """Hours from the start of the month."""
    return Span(
        "res-1",
        a_listing(),
        Decimal("0.05"),
        Decimal(price),
        START + timedelta(hours=start),
        START + timedelta(hours=end),
        used,
        (("shardwright-node", "n1"),),
    )


def a_bill(*spans: Span, currency: str = "USD", speed: str = "1") -> WireBill:
    return make_bill(spans, MONTH, issuer="tiny", tenant="acme", currency=currency, meter_speed=Decimal(speed))


def test_rows_sum_to_the_invoice_to_the_cent_with_a_rounding_row() -> None:
    bill = a_bill(a_span(0, 1), a_span(1, 8))
    assert bill.invoice.total.amount == Decimal("0.27")
    assert sum(row.billed_cost for row in bill.rows) == Decimal("0.27")
    assert [row.charge_category for row in bill.rows] == ["Usage", "Usage", "Adjustment"]
    assert bill.rows[-1].billed_cost == Decimal("0.27") - Decimal("0.2664")


def test_no_rounding_row_where_there_is_nothing_to_round() -> None:
    assert [row.charge_category for row in a_bill(a_span(0, 1, "0.05")).rows] == ["Usage"]
    assert a_bill().rows == ()


@pytest.mark.parametrize(
    ("start", "end", "hours"), [(-5, 2, "2"), (-5, -1, None), (719, 800, "1"), (720, 800, None), (3, 3, None)]
)
def test_only_the_period_is_charged(start: float, end: float, hours: str | None) -> None:
    rows = [row for row in a_bill(a_span(start, end)).rows if row.charge_category == "Usage"]
    assert [row.pricing_quantity for row in rows] == ([] if hours is None else [Decimal(hours)])


def test_the_meter_may_run_fast() -> None:
    assert a_bill(a_span(0, 1), speed="100").rows[0].pricing_quantity == 100


def test_a_currency_without_cents() -> None:
    assert a_bill(a_span(0, 50), currency="JPY").invoice.total.amount == Decimal("2")


def test_costs_follow_from_prices() -> None:
    row = a_bill(a_span(0, 10)).rows[0]
    assert (row.billed_cost, row.contracted_cost, row.effective_cost) == (Decimal("0.333"),) * 3
    assert row.list_cost == Decimal("0.5")


def test_csv_is_the_same_bill() -> None:
    bill = a_bill(a_span(0, 1), a_span(1, 8, used=False))
    lines = list(csv.DictReader(io.StringIO(as_csv(bill).decode())))
    assert list(lines[0]) == [field.alias for field in FocusRow.model_fields.values()]
    assert sum(Decimal(line["BilledCost"]) for line in lines) == bill.invoice.total.amount
    assert json.loads(lines[0]["Tags"]) == {"shardwright-node": "n1"}
    assert lines[0]["ChargeClass"] == ""
    assert lines[0]["ChargePeriodStart"] == "2026-03-01T12:00:00Z"
