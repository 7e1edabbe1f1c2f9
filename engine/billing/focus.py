"""FOCUS in and out: networks deliver it, and the merged bill is written as it (CSV or Parquet, with its metadata file).

Column names and meanings: FinOps Open Cost and Usage Specification 1.2. Our own columns carry the prefix ``x_``.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from decimal import Context, Decimal, InvalidOperation
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from engine.billing.rows import Row, csv_rows, reading
from engine.errors import UsageError
from engine.model.billing import BillDelivery, Charge, ChargeCategory
from engine.model.value import Value
from engine.output_file import drafted_together

FOCUS_VERSION = "1.2"
_CHARGE_ID = "x_ShardwrightChargeId"
_DECIMALS = {
    "BilledCost": "billed_cost",
    "EffectiveCost": "effective_cost",
    "ListCost": "list_cost",
    "ContractedCost": "contracted_cost",
    "PricingQuantity": "pricing_quantity",
    "ListUnitPrice": "list_unit_price",
    "ContractedUnitPrice": "contracted_unit_price",
    "ConsumedQuantity": "consumed_quantity",
}
_TEXTS = {
    "AvailabilityZone": "availability_zone",
    "BillingAccountId": "billing_account_id",
    "BillingCurrency": "billing_currency",
    "ChargeCategory": "charge_category",
    "ChargeClass": "charge_class",
    "ChargeDescription": "charge_description",
    "ChargeFrequency": "charge_frequency",
    "ConsumedUnit": "consumed_unit",
    "InvoiceId": "invoice_id",
    "InvoiceIssuerName": "invoice_issuer_name",
    "PricingCategory": "pricing_category",
    "PricingUnit": "pricing_unit",
    "ProviderName": "provider_name",
    "PublisherName": "publisher_name",
    "RegionId": "region_id",
    "ResourceId": "resource_id",
    "ResourceType": "resource_type",
    "ServiceCategory": "service_category",
    "ServiceName": "service_name",
    "SkuId": "sku_id",
    "SubAccountId": "sub_account_id",
}
_TIMES = ("BillingPeriodStart", "BillingPeriodEnd", "ChargePeriodStart", "ChargePeriodEnd")
_PRECISION, _SCALE = 38, 18
_LAST_PLACE, _PARQUET = Decimal(1).scaleb(-_SCALE), Context(prec=_PRECISION)
_ROW_GROUP = 20_000
COLUMNS: Sequence[str] = (*sorted([*_DECIMALS, *_TEXTS, *_TIMES, "Tags"]), _CHARGE_ID)


def ingest(delivery: BillDelivery) -> Iterator[Charge]:
    """FOCUS rows as CSV. Raises ProviderAnswerInvalid naming row and column."""
    for row in csv_rows(delivery, "BilledCost", "BillingCurrency", "ChargePeriodStart", "ChargePeriodEnd"):
        with reading(row.name):
            charge = _charge(row)
        yield charge


def _charge(row: Row) -> Charge:
    texts = {field: row.text(column) or None for column, field in _TEXTS.items()}
    category = row.required("ChargeCategory")
    if category not in set(ChargeCategory):
        raise row.bad("ChargeCategory", f"{category!r} is none of {', '.join(ChargeCategory)}")
    billed = row.decimal("BilledCost")
    decimals = {field: row.number_or(None, column) for column, field in _DECIMALS.items()}
    costs = ("billed_cost", "effective_cost", "list_cost", "contracted_cost")
    required = ("BillingAccountId", "BillingCurrency", "ChargeDescription", "ProviderName", "ServiceName")
    texts |= {_TEXTS[column]: row.required(column) for column in required}
    texts["publisher_name"] = texts["publisher_name"] or texts["provider_name"]
    texts["charge_frequency"] = texts["charge_frequency"] or "Usage-Based"
    texts["service_category"] = texts["service_category"] or "Compute"
    values: dict[str, Any] = {
        **texts,
        **decimals,
        **{cost: billed if decimals[cost] is None else decimals[cost] for cost in costs},
        "charge_category": ChargeCategory(category),
        "invoice_issuer_name": row.text("InvoiceIssuerName") or row.delivery.invoice.issuer,
        "invoice_id": row.text("InvoiceId") or row.delivery.invoice.invoice_id,
        "charge_id": row.text(_CHARGE_ID) or row.charge_id,
        "billing_period": row.interval(("BillingPeriodStart",), ("BillingPeriodEnd",)),
        "charge_period": row.interval(("ChargePeriodStart",), ("ChargePeriodEnd",)),
        "tags": _tags(row),
    }
    return Charge(**values)


def _tags(row: Row) -> tuple[tuple[str, str], ...]:
    try:
        pairs = from_json(row.text("Tags") or "{}")
    except ValueError as error:
        raise row.bad("Tags", str(error)) from None
    if not isinstance(pairs, dict):
        raise row.bad("Tags", "not an object")
    return tuple((str(key), str(value)) for key, value in pairs.items())


class FocusFile(Value):
    rows: int
    metadata: Path
    """The file that describes it."""


def write_focus(charges: Iterable[Charge], path: Path) -> FocusFile:
    """Write ``path`` (.csv or .parquet), charge by charge, and ``<path>.metadata.json``; both whole, or neither.

    Numbers are exact text in CSV, and decimals with 18 places in Parquet, rounded where there are more. Raises
    UsageError on another ending, and on a number that is too large for Parquet.
    """
    writers = {".csv": _write_csv, ".parquet": _write_parquet}
    writer = writers.get(path.suffix)
    if writer is None:
        raise UsageError(f"{path.name}: a bill is written as .csv or .parquet", next_step="--output-file bill.parquet")
    metadata = path.with_name(path.name + ".metadata.json")
    with drafted_together(path.parent) as drafts:
        rows = writer(charges, drafts / path.name)
        described = json.dumps(_metadata(rows), indent=2)
        (drafts / metadata.name).write_text(described + "\n", encoding="utf-8")
    return FocusFile(rows=rows, metadata=metadata)


def focus_row(charge: Charge) -> dict[str, Decimal | str | datetime | None]:
    """One row by FOCUS column name."""
    row: dict[str, Decimal | str | datetime | None] = {
        **{column: getattr(charge, field) for column, field in _DECIMALS.items()},
        **{column: getattr(charge, field) for column, field in _TEXTS.items()},
        "BillingPeriodStart": charge.billing_period.start,
        "BillingPeriodEnd": charge.billing_period.end,
        "ChargePeriodStart": charge.charge_period.start,
        "ChargePeriodEnd": charge.charge_period.end,
        "ChargeCategory": charge.charge_category.value,
        "Tags": json.dumps(dict(charge.tags), sort_keys=True),
        _CHARGE_ID: charge.charge_id,
    }
    return {column: row[column] for column in COLUMNS}


def _write_csv(charges: Iterable[Charge], path: Path) -> int:
    rows = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for charge in charges:
            writer.writerow(_as_text(value) for value in focus_row(charge).values())
            rows += 1
    return rows


def _as_text(value: Decimal | str | datetime | None) -> str:
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%SZ")
    return value or ""


def _write_parquet(charges: Iterable[Charge], path: Path) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    numbers = pa.decimal128(_PRECISION, _SCALE)
    kinds = {**dict.fromkeys(_DECIMALS, numbers), **dict.fromkeys(_TIMES, pa.timestamp("us", tz="UTC"))}
    schema = pa.schema([(column, kinds.get(column, pa.string())) for column in COLUMNS])
    rows, remaining = 0, iter(charges)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        while group := [_in_parquet(charge) for charge in islice(remaining, _ROW_GROUP)]:
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
            rows += len(group)
    return rows


def _in_parquet(charge: Charge) -> dict[str, Decimal | str | datetime | None]:
    return {
        column: _rounded(value, column, charge) if isinstance(value, Decimal) else value
        for column, value in focus_row(charge).items()
    }


def _rounded(value: Decimal, column: str, charge: Charge) -> Decimal:
    """Clouds write prices with more places than Parquet's decimals have; what goes is below 1e-18 of the currency."""
    try:
        return value.quantize(_LAST_PLACE, context=_PARQUET)
    except InvalidOperation:
        raise UsageError(
            f"charge {charge.charge_id}: {column} {value} is too large for a Parquet file",
            why=f"its decimals have {_PRECISION - _SCALE} digits before the point",
            next_step="--output-file bill.csv",
        ) from None


def _metadata(rows: int) -> dict[str, Any]:
    """The standard's metadata file: which version, which columns of which type."""
    kinds = {**dict.fromkeys(_DECIMALS, "DECIMAL"), **dict.fromkeys(_TIMES, "DATETIME"), "Tags": "JSON"}
    return {
        "DataGenerator": {"DataGenerator": "Shardwright"},
        "Schema": {
            "SchemaId": "shardwright-1",
            "FocusVersion": FOCUS_VERSION,
            "ColumnDefinition": [
                {
                    "ColumnName": column,
                    "DataType": kinds.get(column, "STRING"),
                    **({"NumericPrecision": _PRECISION, "NumberScale": _SCALE} if column in _DECIMALS else {}),
                }
                for column in COLUMNS
            ],
        },
        "x_Rows": rows,
    }
