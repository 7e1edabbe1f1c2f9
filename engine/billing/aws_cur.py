"""AWS Cost and Usage Report (legacy column names, ``lineItem/UnblendedCost`` …) to FOCUS charges.

Source: the report's data dictionary in the AWS documentation, and the FOCUS 1.2 column definitions.
"""

from collections.abc import Iterator
from decimal import Decimal

from engine.billing.rows import Row, csv_rows, reading
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
_COVERED = {
    "DiscountedUsage": "reservation/EffectiveCost",
    "SavingsPlanCoveredUsage": "savingsPlan/SavingsPlanEffectiveCost",
}
"""Usage that a commitment pays for, and the column with its share of the commitment."""
_SPREAD = {"RIFee", "SavingsPlanRecurringFee", "SavingsPlanUpfrontFee", "SavingsPlanNegation"}
"""Commitment fees, and what takes off the on-demand price of covered usage: covered usage bears their cost already."""


def ingest(delivery: BillDelivery) -> Iterator[Charge]:
    """One charge per line item, costs unblended, and one for what a commitment fee pays for and nobody used.

    Raises ProviderAnswerInvalid naming row and column.
    """
    for row in csv_rows(delivery, "lineItem/LineItemType", "lineItem/UnblendedCost", "lineItem/CurrencyCode"):
        with reading(row.name):
            charge, unused = _charge(row), _unused(row)
        yield charge
        if unused:
            yield _unused_charge(charge, unused)


def _charge(row: Row) -> Charge:
    kind = row.required("lineItem/LineItemType")
    billed = row.decimal("lineItem/UnblendedCost")
    public = row.number_or(billed, "pricing/publicOnDemandCost")
    quantity = row.number_or(None, "lineItem/UsageAmount")
    unit = row.text("pricing/unit") or None
    rate = row.number_or(None, "lineItem/UnblendedRate")
    usage_type = row.text("lineItem/UsageType")
    category = _category(kind, usage_type)
    return Charge(
        charge_id=row.charge_id,
        billed_cost=billed,
        effective_cost=_effective(row, kind, billed),
        list_cost=public if category is ChargeCategory.USAGE else billed,
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
        invoice_id=row.text("bill/InvoiceId") or None,  # AWS leaves it empty until the row is invoiced
        region_id=row.text("product/regionCode", "product/region") or None,
        availability_zone=row.text("lineItem/AvailabilityZone") or None,
        resource_id=row.text("lineItem/ResourceId") or None,
        resource_type=row.text("product/productFamily") or None,
        service_name=row.text("product/ProductName", "lineItem/ProductCode") or "Amazon Web Services",
        sku_id=row.text("product/sku") or None,
        tags=tuple((key.removeprefix(_TAG_PREFIX), value) for key, value in row.items() if key.startswith(_TAG_PREFIX)),
    )


def _effective(row: Row, kind: str, billed: Decimal) -> Decimal:
    """FOCUS's EffectiveCost: a purchase costs nothing itself, what it covers bears its share of it."""
    if kind in _COVERED:
        return row.number_or(billed, _COVERED[kind])
    upfront_of_reservation = kind == "Fee" and row.text("reservation/ReservationARN")
    return Decimal(0) if kind in _SPREAD or upfront_of_reservation else billed


def _unused(row: Row) -> Decimal:
    """The part of a period's commitment that covered nothing; AWS tells it in the row of the fee."""
    kind, nothing = row.text("lineItem/LineItemType"), Decimal(0)
    if kind == "RIFee":
        upfront = row.number_or(nothing, "reservation/UnusedAmortizedUpfrontFeeForBillingPeriod")
        return upfront + row.number_or(nothing, "reservation/UnusedRecurringFee")
    if kind == "SavingsPlanRecurringFee":
        committed = row.number_or(nothing, "savingsPlan/TotalCommitmentToDate")
        return committed - row.number_or(nothing, "savingsPlan/UsedCommitment")
    return nothing


def _unused_charge(fee: Charge, unused: Decimal) -> Charge:
    """FOCUS books the unused part as usage that was not billed, beside the purchase that costs nothing itself."""
    nothing = Decimal(0)
    changes = {
        "charge_id": f"{fee.charge_id}/unused",
        "charge_category": ChargeCategory.USAGE,
        "charge_description": f"unused: {fee.charge_description}",
        "pricing_category": "Committed",
        "billed_cost": nothing,
        "list_cost": nothing,
        "contracted_cost": nothing,
        "effective_cost": unused,
    }
    prices = ("pricing_quantity", "pricing_unit", "list_unit_price", "contracted_unit_price")
    return fee.model_copy(update={**changes, **dict.fromkeys(prices)})


def _category(kind: str, usage_type: str) -> ChargeCategory:
    if kind == "Fee" and usage_type == "Rounding":
        return ChargeCategory.ADJUSTMENT
    return _CATEGORIES.get(kind, ChargeCategory.USAGE)


def _pricing_category(kind: str, usage_type: str) -> str:
    if kind in _COVERED:
        return "Committed"
    return "Dynamic" if "SpotUsage" in usage_type else "Standard"
