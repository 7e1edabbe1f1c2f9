import json
from decimal import Decimal

import pytest

from engine.billing.base import ingest
from engine.errors import ProviderAnswerInvalid
from engine.model.billing import BillFormat, ChargeCategory

LINE = {
    "billing_account_id": "01AB-23CD",
    "service": {"id": "6F81-5844-456A", "description": "Compute Engine"},
    "sku": {"id": "sku-1", "description": "Spot Preemptible N2 Instance Core"},
    "usage_start_time": "2026-11-23T10:00:00Z",
    "usage_end_time": "2026-11-23T11:00:00Z",
    "project": {"id": "shop"},
    "labels": [{"key": "shardwright-node", "value": "node-1"}],
    "location": {"region": "us-central1", "zone": "us-central1-a"},
    "currency": "USD",
    "usage": {"amount": 3600, "unit": "seconds"},
    "invoice": {"month": "202611"},
    "cost_type": "regular",
    "a_field_of_next_year": {"anything": 1},
}


def lines(*changes: dict[str, object]) -> str:
    return "\n".join(json.dumps(LINE | {"cost": 0} | change) for change in changes)


def test_costs_are_read_exactly_and_credits_are_charges(deliver) -> None:
    text = lines({"credits": [{"name": "Committed use", "amount": -0.1}]}).replace(
        '"cost": 0', '"cost": 0.30000000000000004'
    )
    usage, credit = ingest(deliver(text, BillFormat.GCP_BILLING_EXPORT))
    assert usage.billed_cost == Decimal("0.30000000000000004")
    assert usage.pricing_category == "Dynamic"
    assert (credit.charge_category, credit.billed_cost) == (ChargeCategory.CREDIT, Decimal("-0.1"))
    assert usage.billing_period.end.month == 12
    assert usage.tags == (("shardwright-node", "node-1"),)


def test_the_rounding_row_is_an_adjustment(deliver) -> None:
    (row,) = ingest(deliver(lines({"cost_type": "rounding_error"}), BillFormat.GCP_BILLING_EXPORT))
    assert row.charge_category is ChargeCategory.ADJUSTMENT


@pytest.mark.parametrize(
    "broken",
    [
        "<html>",
        '{"cost": 1}',
        "[" * 100_000,
        lines({"currency": "dollars"}),
        lines({"invoice": {"month": "202613"}}),
        lines({"cost": 10**20}),
        lines({"credits": [{"amount": -(10**20)}]}),
        lines({"labels": [{"key": "\ud800"}]}),
    ],
    ids=["page", "fields missing", "deep", "currency", "month", "enormous", "enormous credit", "surrogate"],
)
def test_what_is_no_export_names_the_line(deliver, broken: str) -> None:
    with pytest.raises(ProviderAnswerInvalid, match="line 2"):
        ingest(deliver(lines({}) + "\n" + broken, BillFormat.GCP_BILLING_EXPORT))
