"""Azure Cost Management export (EA and MCA column names) to FOCUS charges.

Source: the cost and usage details schema in the Azure documentation, and the FOCUS 1.2 column definitions.
"""

import re
from collections.abc import Iterator
from decimal import Decimal

from pydantic_core import from_json

from engine.billing.rows import Row, csv_rows, reading
from engine.model.billing import BillDelivery, Charge, ChargeCategory

_CATEGORIES = {
    "usage": ChargeCategory.USAGE,
    "purchase": ChargeCategory.PURCHASE,
    "tax": ChargeCategory.TAX,
    "refund": ChargeCategory.CREDIT,
    "credit": ChargeCategory.CREDIT,
    "roundingadjustment": ChargeCategory.ADJUSTMENT,
    "adjustment": ChargeCategory.ADJUSTMENT,
}
_PRICING = {"ondemand": "Standard", "spot": "Dynamic", "reservation": "Committed", "savingsplan": "Committed"}
_PAIR = re.compile(r'"((?:[^"\\]|\\.)*)"\s*:\s*"((?:[^"\\]|\\.)*)"')


def ingest(delivery: BillDelivery) -> Iterator[Charge]:
    """One charge per row, in the billing currency. Raises ProviderAnswerInvalid naming row and column."""
    for row in csv_rows(delivery):
        with reading(row.name):
            charge = _charge(row)
        yield charge


def _charge(row: Row) -> Charge:
    billed = row.decimal("costInBillingCurrency", "CostInBillingCurrency", "Cost")
    quantity = row.number_or(None, "quantity", "Quantity")
    list_price = row.number_or(None, "PayGPrice", "payGPrice")
    unit = row.text("unitOfMeasure", "UnitOfMeasure") or None
    kind = row.required("chargeType", "ChargeType")
    category = _CATEGORIES.get(kind.lower(), ChargeCategory.USAGE)
    account = ("BillingAccountId", "billingAccountId", "SubscriptionId", "subscriptionId")
    return Charge(
        charge_id=row.charge_id,
        billed_cost=billed,
        effective_cost=billed,
        list_cost=_list_cost(billed, list_price, quantity, category),
        contracted_cost=billed,
        billing_currency=row.required("billingCurrency", "BillingCurrencyCode", "BillingCurrency"),
        billing_account_id=row.required(*account),
        sub_account_id=row.text("SubscriptionId", "subscriptionId") or None,
        billing_period=row.interval(
            ("billingPeriodStartDate", "BillingPeriodStartDate"), ("billingPeriodEndDate", "BillingPeriodEndDate")
        ),
        charge_period=row.day("date", "Date"),
        charge_category=category,
        charge_class="Correction" if kind.lower() == "refund" else None,
        charge_description=row.text("productName", "ProductName", "ProductName") or kind,
        charge_frequency="Usage-Based" if category is ChargeCategory.USAGE else "One-Time",
        pricing_category=_PRICING.get(row.text("pricingModel", "PricingModel").lower(), "Standard"),
        pricing_quantity=quantity,
        pricing_unit=unit,
        list_unit_price=list_price,
        contracted_unit_price=row.number_or(None, "unitPrice", "UnitPrice"),
        consumed_quantity=quantity if category is ChargeCategory.USAGE else None,
        consumed_unit=unit if category is ChargeCategory.USAGE else None,
        provider_name="Microsoft",
        publisher_name=row.text("publisherName", "PublisherName") or "Microsoft",
        invoice_issuer_name=row.delivery.invoice.issuer,
        invoice_id=row.text("invoiceId", "InvoiceId") or row.delivery.invoice.invoice_id,
        region_id=row.text("resourceLocation", "ResourceLocation") or None,
        availability_zone=row.text("availabilityZone", "AvailabilityZone") or None,
        resource_id=row.text("ResourceId", "resourceId", "InstanceName", "instanceName") or None,
        resource_type=row.text("consumedService", "ConsumedService") or None,
        service_name=row.text("meterCategory", "MeterCategory") or "Microsoft Azure",
        sku_id=row.text("meterId", "MeterId") or None,
        tags=_tags(row.text("tags", "Tags")),
    )


def _list_cost(
    billed: Decimal, list_price: Decimal | None, quantity: Decimal | None, category: ChargeCategory
) -> Decimal:
    if list_price is None or quantity is None or category is not ChargeCategory.USAGE:
        return billed
    return list_price * quantity


def _tags(text: str) -> tuple[tuple[str, str], ...]:
    """The export writes an object, sometimes without its braces."""
    try:
        found = from_json(text if text.startswith("{") else "{" + text + "}")
    except ValueError:
        return tuple(_PAIR.findall(text))
    return tuple((str(key), str(value)) for key, value in found.items())
