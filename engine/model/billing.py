"""Charges and invoices; fields are the FOCUS 1.2 columns in snake_case, exported as the standard spells them."""

from decimal import Decimal
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from engine.model.money import Currency, Money
from engine.model.value import Interval, Utc, Value


class ChargeCategory(StrEnum):
    USAGE = "Usage"
    PURCHASE = "Purchase"
    TAX = "Tax"
    CREDIT = "Credit"
    ADJUSTMENT = "Adjustment"


class Charge(Value):
    """One FOCUS row. Append-only: a correction is a new charge with ``charge_class`` "Correction"."""

    charge_id: str
    """Ours: issuer + invoice + the issuer's row identity; appending the same id twice changes nothing."""
    billed_cost: Decimal
    effective_cost: Decimal
    list_cost: Decimal
    contracted_cost: Decimal
    billing_currency: Currency
    billing_account_id: str
    sub_account_id: str | None = None
    billing_period: Interval
    charge_period: Interval
    charge_category: ChargeCategory
    charge_class: str | None = None
    charge_description: str
    charge_frequency: str = "Usage-Based"
    pricing_category: str | None = None
    """Standard, Dynamic (spot), Committed, Other."""
    pricing_quantity: Decimal | None = None
    pricing_unit: str | None = None
    list_unit_price: Decimal | None = None
    contracted_unit_price: Decimal | None = None
    consumed_quantity: Decimal | None = None
    consumed_unit: str | None = None
    provider_name: str
    publisher_name: str
    invoice_issuer_name: str
    invoice_id: str | None = None
    region_id: str | None = None
    availability_zone: str | None = None
    resource_id: str | None = None
    resource_type: str | None = None
    service_category: str = "Compute"
    service_name: str
    sku_id: str | None = None
    tags: tuple[tuple[str, str], ...] = ()


class Invoice(Value):
    """What the issuer asks to be paid; the ledger must match ``total`` to the cent."""

    issuer: str
    invoice_id: str
    billing_period: Interval
    total: Money


class BillFormat(StrEnum):
    AWS_CUR = "aws_cur"
    GCP_BILLING_EXPORT = "gcp_billing_export"
    AZURE_COST_EXPORT = "azure_cost_export"
    FOCUS = "focus"


class BillDelivery(Value):
    """A snapshot of one (issuer, billing period) in the issuer's own format; a later one replaces it."""

    provider: str
    """The provider's configured name."""
    format: BillFormat
    content_type: str
    content: bytes
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    invoice: Invoice
    delivered_at: Utc
