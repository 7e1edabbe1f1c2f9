"""AWS Cost and Usage Report (legacy column names, ``lineItem/UnblendedCost`` …) to FOCUS charges.

Source: the report's data dictionary in the AWS documentation, and the FOCUS 1.2 column definitions.
"""

from collections.abc import Iterator
from decimal import Decimal

from engine.billing.rows import Row, csv_rows
from engine.model.billing import BillDelivery, Charge, ChargeCategory

_TAG_PREFIX = "resourceTags/user:"
_CATEGORIES = {
    "Tax": ChargeCategory.TAX,
    "Credit": ChargeCategory.CREDIT,
    "Refund": ChargeCategory.CREDIT,
    "Fee": ChargeCategory.PURCHASE,
    "RIFee": ChargeCategory.PURCHASE,
    "SavingsPlanRecurringFee": ChargeCategory.PURCHASE,
    "SavingsPlanUpfrontFee": ChargeCategory.PURCHASE,
}
_COVERED = {"DiscountedUsage", "SavingsPlanCoveredUsage"}


def ingest(delivery: BillDelivery) -> Iterator[Charge]:
    """One charge per line item, costs unblended. Raises ProviderAnswerInvalid naming row and column."""
    for row in csv_rows(delivery, "lineItem/LineItemType", "lineItem/UnblendedCost", "lineItem/CurrencyCode"):
        yield _charge(row)


def _charge(row: Row) -> Charge:
    kind = row.required("lineItem/LineItemType")
    billed = row.decimal("lineItem/UnblendedCost")
    effective = row.number_or(billed, "savingsPlan/SavingsPlanEffectiveCost", "reservation/EffectiveCost")
    public = row.number_or(billed, "pricing/publicOnDemandCost")
    quantity = row.number_or(None, "lineItem/UsageAmount")
    unit = row.text("pricing/unit") or None
    rate = row.number_or(None, "lineItem/UnblendedRate")
    usage_type = row.text("lineItem/UsageType")
    category = _category(kind, usage_type)
    return Charge(
        charge_id=row.charge_id,
        billed_cost=billed,
        effective_cost=(effective or Decimal(0)) if kind in _COVERED else billed,
        list_cost=public if public is not None and category is ChargeCategory.USAGE else billed,
        contracted_cost=billed,
        billing_currency=row.required("lineItem/CurrencyCode"),
        billing_account_id=row.required("bill/PayerAccountId"),
        sub_account_id=row.text("lineItem/UsageAccountId") or None,
        billing_period=row.interval(("bill/BillingPeriodStartDate",), ("bill/BillingPeriodEndDate",)),
        charge_period=row.interval(("lineItem/UsageStartDate",), ("lineItem/UsageEndDate",)),
        charge_category=category,
        charge_class="Correction" if kind == "Refund" else None,
        charge_description=row.text("lineItem/LineItemDescription") or usage_type or kind,
        pricing_category=_pricing_category(kind, usage_type),
        pricing_quantity=quantity,
        pricing_unit=unit,
        list_unit_price=row.number_or(None, "pricing/publicOnDemandRate"),
        contracted_unit_price=rate,
        consumed_quantity=quantity if category is ChargeCategory.USAGE else None,
        consumed_unit=unit if category is ChargeCategory.USAGE else None,
        provider_name="AWS",
        publisher_name="AWS",
        invoice_issuer_name=row.delivery.invoice.issuer,
        invoice_id=row.text("bill/InvoiceId") or row.delivery.invoice.invoice_id,
        region_id=row.text("product/regionCode", "product/region") or None,
        availability_zone=row.text("lineItem/AvailabilityZone") or None,
        resource_id=row.text("lineItem/ResourceId") or None,
        resource_type=row.text("product/productFamily") or None,
        service_name=row.text("product/ProductName", "lineItem/ProductCode") or "Amazon Web Services",
        sku_id=row.text("product/sku") or None,
        tags=tuple((key.removeprefix(_TAG_PREFIX), value) for key, value in row.items() if key.startswith(_TAG_PREFIX)),
    )


def _category(kind: str, usage_type: str) -> ChargeCategory:
    if kind == "Fee" and usage_type == "Rounding":
        return ChargeCategory.ADJUSTMENT
    return _CATEGORIES.get(kind, ChargeCategory.USAGE)


def _pricing_category(kind: str, usage_type: str) -> str:
    if kind in _COVERED:
        return "Committed"
    return "Dynamic" if "SpotUsage" in usage_type else "Standard"
