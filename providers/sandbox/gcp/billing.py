"""Prices and bills of the sandbox's Google Cloud: the public catalogue, and the detailed billing export.

A real project's bill is delivered by the Cloud Billing export to BigQuery; a scheduled ``EXPORT DATA`` query writes it
from there to a Cloud Storage bucket as newline-delimited JSON, one folder per invoice month. The sandbox serves that
bucket, ``PROJECT-billing-export``, with Cloud Storage's JSON API.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from engine.clock import Clock
from engine.model.billing import BillFormat
from engine.model.market import PurchaseOption
from engine.model.value import Interval
from providers.sandbox.cloud import sandbox_bill
from providers.sandbox.contract import SandboxBill
from providers.sandbox.gcp.catalog import (
    COMPUTE_ENGINE,
    COUNTRIES,
    MACHINE_TYPES,
    SUSTAINED_USE_FAMILIES,
    Sku,
    skus_of,
)
from providers.sandbox.gcp.wire import Document, timestamp
from providers.sandbox.machines import Machine, Machines
from providers.sandbox.meter import Meter, Usage, invoice_total
from providers.sandbox.prices import PriceBoard

_MONTH_HOURS = Decimal(730)
_DISCOUNTS = ((Decimal("0.25"), Decimal(1)), (Decimal("0.5"), Decimal("0.8678")), (Decimal("0.75"), Decimal("0.733")))
"""Sustained use: up to this share of a month, this share of the list price; beyond the last 0.6."""
_BEYOND = Decimal("0.6")


def sku_document(sku: Sku, board: PriceBoard, span: tuple[datetime, datetime] | None) -> Document:
    """One entry of the catalogue; ``span`` asks for every price in force within it, else only for today's."""
    prices = board.changes(sku.key, *span) if span else [(board.changed_at(sku.key), board.now(sku.key))]
    return {
        "name": f"services/{COMPUTE_ENGINE}/skus/{sku.sku_id}",
        "skuId": sku.sku_id,
        "description": sku.description,
        "category": {
            "serviceDisplayName": "Compute Engine",
            "resourceFamily": "Compute",
            "resourceGroup": "CPU" if sku.part == "Core" else "RAM",
            "usageType": sku.usage_type,
        },
        "serviceRegions": [sku.region],
        "pricingInfo": [_pricing(sku, at, price) for at, price in prices],
        "serviceProviderName": "Google",
    }


def commitment_document(sku: Sku, board: PriceBoard) -> Document:
    """The one-year commitment beside an on-demand SKU: the catalogue lists what is not sold by the hour, too."""
    document = sku_document(sku, board, None)
    part = "Cpu" if sku.part == "Core" else "Ram"
    document["skuId"] = "".join(reversed(sku.sku_id))
    document["name"] = f"services/{COMPUTE_ENGINE}/skus/{document['skuId']}"
    document["description"] = f"Commitment v1: {sku.family.upper()} {part} in {sku.region} for 1 Year"
    document["category"]["usageType"] = "Commit1Yr"
    document["pricingInfo"] = [_pricing(sku, board.changed_at(sku.key), board.now(sku.key) * Decimal("0.63"))]
    return document


def _pricing(sku: Sku, effective: datetime, price: Decimal) -> Document:
    units, nanos = divmod((price * 10**9).to_integral_value(), 10**9)
    core = sku.part == "Core"
    return {
        "effectiveTime": effective.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "summary": "",
        "pricingExpression": {
            "usageUnit": "h" if core else "GiBy.h",
            "usageUnitDescription": "hour" if core else "gibibyte hour",
            "baseUnit": "s" if core else "By.s",
            "baseUnitDescription": "second" if core else "byte second",
            "baseUnitConversionFactor": 3600 if core else 3600 * 2**30,
            "displayQuantity": 1,
            "tieredRates": [
                {
                    "startUsageAmount": 0,
                    "unitPrice": {"currencyCode": "USD", "units": str(int(units)), "nanos": int(nanos)},
                }
            ],
        },
        "currencyConversionRate": 1,
    }


@dataclass(frozen=True)
class Biller:
    """Writes the detailed export (one row per instance, SKU, price and clock hour) and the invoice of a period."""

    project: str
    machines: Machines
    meter: Meter
    clock: Clock
    billing_account: str = "01A2B3-C4D5E6-F7A8B9"

    def bill(self, period: Interval) -> SandboxBill:
        month = f"{period.start:%Y%m}"
        rows = list(self._rows(period, month))
        exact = sum((row_total(row) for row in rows), Decimal(0))
        total = invoice_total(exact)
        if rows and total != exact:
            rows.append(self._rounding_row(total - exact, period, month))
        content = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows).encode()
        return sandbox_bill(
            content,
            format=BillFormat.GCP_BILLING_EXPORT.value,
            content_type="application/x-ndjson",
            invoice_id=f"{self.billing_account.replace('-', '')}-{month}",
            issuer="Google Cloud",
            total=total,
            period=period,
        )

    def _rows(self, period: Interval, month: str) -> Iterator[Document]:
        for machine in self.machines.all():
            machine_type = MACHINE_TYPES[machine.instance_type]
            for sku in skus_of(machine.region, machine_type, spot=machine.spot):
                used = Decimal(0)
                for usage in self.meter.usage(machine, sku.key, period, timedelta(hours=1)):
                    yield self._row(usage, sku, _sustained_use_share(sku, used, usage.hours), month)
                    used += usage.hours

    def _row(self, usage: Usage, sku: Sku, paid_share: Decimal, month: str) -> Document:
        machine, machine_type = usage.machine, MACHINE_TYPES[usage.machine.instance_type]
        units = sku.units(machine_type)
        cost = usage.cost(units)
        discount = (cost * (1 - paid_share)).quantize(Decimal("1e-9"))
        amount = usage.hours * units
        core = sku.part == "Core"
        return {
            **self._frame(usage.start, usage.end, month),
            "service": {"id": COMPUTE_ENGINE, "description": "Compute Engine"},
            "sku": {"id": sku.sku_id, "description": sku.description},
            "labels": [{"key": key, "value": value} for key, value in sorted(_labels(machine).items())],
            "system_labels": [
                {"key": "compute.googleapis.com/cores", "value": str(machine_type.vcpus)},
                {"key": "compute.googleapis.com/machine_spec", "value": machine_type.name},
                {"key": "compute.googleapis.com/memory", "value": str(machine_type.memory_mib)},
            ],
            "location": {
                "location": machine.region,
                "country": COUNTRIES[machine.region],
                "region": machine.region,
                "zone": machine.zone,
            },
            "resource": {
                "name": f"projects/{self.project}/zones/{machine.zone}/instances/{machine.name}",
                "global_name": (
                    f"//compute.googleapis.com/projects/{self.project}/zones/{machine.zone}"
                    f"/instances/{machine.instance_id}"
                ),
            },
            "cost": _number(cost),
            "cost_at_list": _number(cost),
            "usage": {
                "amount": _number(amount * 3600 * (1 if core else 2**30)),
                "unit": "seconds" if core else "byte-seconds",
                "amount_in_pricing_units": _number(amount),
                "pricing_unit": "hour" if core else "gibibyte hour",
            },
            "price": {
                "effective_price": _number(usage.unit_price),
                "list_price": _number(usage.unit_price),
                "tier_start_amount": 0,
                "unit": "hour" if core else "gibibyte hour",
                "pricing_unit_quantity": 1,
            },
            "credits": [_sustained_use_credit(discount)] if discount else [],
            "cost_type": "regular",
        }

    def _rounding_row(self, amount: Decimal, period: Interval, month: str) -> Document:
        end = min(period.end, self.clock.now())
        return {
            **self._frame(period.start, end, month),
            "service": {"id": "5490-F7B7-8DF6", "description": "Invoice"},
            "sku": {"id": "2B6A-9F1B-1D1C", "description": "Rounding error"},
            "labels": [],
            "system_labels": [],
            "location": {"location": None, "country": None, "region": None, "zone": None},
            "resource": {"name": None, "global_name": None},
            "cost": _number(amount),
            "cost_at_list": _number(amount),
            "usage": {"amount": 0, "unit": "requests", "amount_in_pricing_units": 0, "pricing_unit": "count"},
            "price": None,
            "credits": [],
            "cost_type": "rounding_error",
        }

    def _frame(self, start: datetime, end: datetime, month: str) -> Document:
        return {
            "billing_account_id": self.billing_account,
            "usage_start_time": timestamp(start),
            "usage_end_time": timestamp(end),
            "export_time": timestamp(self.clock.now()),
            "project": {
                "id": self.project,
                "number": "100000000001",
                "name": self.project,
                "labels": [],
                "ancestry_numbers": "/100000000001/",
            },
            "currency": "USD",
            "currency_conversion_rate": 1,
            "invoice": {"month": month, "publisher_type": "GOOGLE"},
            "transaction_type": "GOOGLE",
            "seller_name": "Google",
            "adjustment_info": None,
            "tags": [],
        }


def row_total(row: Document) -> Decimal:
    """What a row adds to the invoice: its cost and its credits, exactly."""
    amounts = [row["cost"], *(credit["amount"] for credit in row["credits"])]
    return sum((Decimal(repr(amount)) for amount in amounts), Decimal(0))


def _labels(machine: Machine) -> dict[str, str]:
    """A bill shows labels, so in their legal form."""
    return {
        key: re.sub(r"[^a-z0-9_-]", "-", value.lower())[:63]
        for key, value in machine.tags.items()
        if key != "shardwright-token"
    }


def _sustained_use_share(sku: Sku, used: Decimal, more: Decimal) -> Decimal:
    """Which share of the list price ``more`` hours cost after ``used`` hours of the month."""
    if sku.family not in SUSTAINED_USE_FAMILIES or sku.option is PurchaseOption.SPOT or not more:
        return Decimal(1)
    paid, position, end = Decimal(0), used, used + more
    for share_of_month, price_share in _DISCOUNTS:
        step = min(end, _MONTH_HOURS * share_of_month) - position
        if step > 0:
            paid, position = paid + step * price_share, position + step
    return (paid + max(Decimal(0), end - position) * _BEYOND) / more


def _sustained_use_credit(discount: Decimal) -> Document:
    return {
        "id": "Sustained Usage Discount",
        "name": "Sustained Usage Discount",
        "full_name": "Sustained Usage Discount",
        "type": "SUSTAINED_USAGE_DISCOUNT",
        "amount": _number(-discount),
    }


def _number(amount: Decimal) -> float | int:
    """As BigQuery exports a number. Amounts have at most nine decimals, so the shortest float reads back exactly."""
    return int(amount) if amount == amount.to_integral_value() else float(amount)
