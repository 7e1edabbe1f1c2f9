"""Google Cloud standard billing export (one JSON object a line) to FOCUS charges; every credit is a charge of its own.

Source: the standard usage cost data schema in the Google Cloud documentation, and the FOCUS 1.2 column definitions.
Costs are JSON numbers in the export; they are read as decimals, never as floats.
"""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import from_json

from engine.billing.rows import bill_name, reading, text_of
from engine.model.billing import BillDelivery, Charge, ChargeCategory
from engine.model.money import Currency
from engine.model.value import Interval, Utc

_CATEGORIES = {
    "regular": ChargeCategory.USAGE,
    "tax": ChargeCategory.TAX,
    "adjustment": ChargeCategory.ADJUSTMENT,
    "rounding_error": ChargeCategory.ADJUSTMENT,
}


class _Part(BaseModel):
    """The export's schema grows; unknown fields are no error."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class _Named(_Part):
    id: str | None = None
    description: str = ""


class _Label(_Part):
    key: str
    value: str = ""


class _Usage(_Part):
    amount: Decimal | None = None
    unit: str | None = None
    amount_in_pricing_units: Decimal | None = None
    pricing_unit: str | None = None


class _Credit(_Part):
    name: str = "credit"
    amount: Decimal


class _Location(_Part):
    region: str | None = None
    zone: str | None = None


class _Month(_Part):
    month: Annotated[str, Field(pattern=r"^\d{6}$")]


class _Resource(_Part):
    name: str | None = None
    global_name: str | None = None


class _Line(_Part):
    billing_account_id: str
    service: _Named = _Named()
    sku: _Named = _Named()
    usage_start_time: Utc
    usage_end_time: Utc
    project: _Named | None = None
    labels: tuple[_Label, ...] = ()
    system_labels: tuple[_Label, ...] = ()
    location: _Location | None = None
    resource: _Resource | None = None
    cost: Decimal
    currency: Currency
    usage: _Usage | None = None
    credits: tuple[_Credit, ...] = ()
    invoice: _Month
    cost_type: str = "regular"
    cost_at_list: Decimal | None = None


def ingest(delivery: BillDelivery) -> Iterator[Charge]:
    """Raises ProviderAnswerInvalid naming the line."""
    for number, text in enumerate(text_of(delivery).splitlines(), start=1):
        if not text.strip():
            continue
        with reading(f"{bill_name(delivery)}, line {number}"):
            charges = _charges(delivery, text, number)
        yield from charges


def _charges(delivery: BillDelivery, text: str, number: int) -> tuple[Charge, ...]:
    from_json(text)  # refuses escapes that make no text, which the exact reader below would let through
    line = _Line.model_validate(json.loads(text, parse_float=Decimal))
    base = _common(delivery, line)
    identity = f"{delivery.invoice.issuer}/{delivery.invoice.invoice_id}/{number}"
    credits = enumerate(line.credits, start=1)
    return (
        _usage_charge(base, line, identity),
        *(_credit_charge(base, credit, f"{identity}/credit{position}") for position, credit in credits),
    )


def _common(delivery: BillDelivery, line: _Line) -> Mapping[str, Any]:
    return {
        "billing_currency": line.currency,
        "billing_account_id": line.billing_account_id,
        "sub_account_id": line.project.id if line.project else None,
        "billing_period": _month(line.invoice.month),
        "charge_period": Interval(start=line.usage_start_time, end=line.usage_end_time),
        "provider_name": "Google Cloud",
        "publisher_name": "Google Cloud",
        "invoice_issuer_name": delivery.invoice.issuer,
        "invoice_id": delivery.invoice.invoice_id,
        "region_id": line.location.region if line.location else None,
        "availability_zone": line.location.zone if line.location else None,
        "resource_id": (line.resource.global_name or line.resource.name) if line.resource else None,
        "service_name": line.service.description or "Google Cloud",
        "sku_id": line.sku.id,
        "tags": tuple((label.key, label.value) for label in line.labels),
    }


def _usage_charge(base: Mapping[str, Any], line: _Line, identity: str) -> Charge:
    usage = line.usage or _Usage()
    category = _CATEGORIES.get(line.cost_type, ChargeCategory.USAGE)
    metered = category is ChargeCategory.USAGE
    return Charge(
        **base,
        charge_id=identity,
        billed_cost=line.cost,
        effective_cost=line.cost,
        list_cost=line.cost if line.cost_at_list is None else line.cost_at_list,
        contracted_cost=line.cost,
        charge_category=category,
        charge_description=line.sku.description or line.cost_type,
        pricing_category="Dynamic" if "spot" in line.sku.description.lower() else "Standard",
        pricing_quantity=usage.amount_in_pricing_units,
        pricing_unit=usage.pricing_unit,
        consumed_quantity=usage.amount if metered else None,
        consumed_unit=usage.unit if metered else None,
    )


def _credit_charge(base: Mapping[str, Any], credit: _Credit, identity: str) -> Charge:
    return Charge(
        **base,
        charge_id=identity,
        billed_cost=credit.amount,
        effective_cost=credit.amount,
        list_cost=Decimal(0),
        contracted_cost=credit.amount,
        charge_category=ChargeCategory.CREDIT,
        charge_description=credit.name,
    )


def _month(text: str) -> Interval:
    start = datetime.strptime(text, "%Y%m").replace(tzinfo=UTC)
    return Interval(start=start, end=start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1))
