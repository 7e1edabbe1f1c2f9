"""Charges and invoices; fields are the FOCUS 1.2 columns in snake_case, exported as the standard spells them."""

from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from engine.model.money import Currency, Money
from engine.model.value import Interval, Utc, Value


class ChargeCategory(StrEnum):
    USAGE = "Usage"
    PURCHASE = "Purchase"
    TAX = "Tax"
    CREDIT = "Credit"
    ADJUSTMENT = "Adjustment"


Exact = Annotated[Decimal, Field(gt=-(10**15), lt=10**15)]
"""Within what reports can sum and split exactly; no bill has a larger number in good faith."""


class Charge(Value):
    """One FOCUS row. Append-only: a correction is a new charge with ``charge_class`` "Correction"."""

    charge_id: Annotated[str, Field(pattern=r"^[^\x00]{1,256}$")]
    """Ours: issuer + invoice + the issuer's row identity; appending the same id twice changes nothing."""
    billed_cost: Exact
    effective_cost: Exact
    list_cost: Exact
    contracted_cost: Exact
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
    """None: on no invoice that has been issued."""
    region_id: str | None = None
    availability_zone: str | None = None
    resource_id: str | None = None
    resource_type: str | None = None
    service_category: str = "Compute"
    service_name: str
    sku_id: str | None = None
    tags: tuple[tuple[str, str], ...] = ()


class ChargeSum(Value):
    """Charges of one delivery that reports and invoices need not tell apart, summed exactly."""

    delivered_by: str
    """The provider's configured name."""
    issuer: str
    invoice_id: str | None = None
    provider_name: str
    currency: Currency
    node: str
    """As the resource's tag says; empty where it bears none."""
    adjustment: bool
    """Whether they are the issuer's rounding, not somebody's usage."""
    billed: Decimal
    effective: Decimal
    list_cost: Decimal
    rows: int


class Invoice(Value):
    """What the issuer asks to be paid; the ledger must match ``total`` to the cent."""

    issuer: Annotated[str, Field(max_length=128)]
    invoice_id: Annotated[str, Field(max_length=128)]
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
    """Where the content has rows of several: the first."""
    further_invoices: tuple[Invoice, ...] = ()
    """The others of the same period (AWS: marketplace invoices, credit memos); each row names its own."""
    delivered_at: Utc

    @property
    def invoices(self) -> tuple[Invoice, ...]:
        return (self.invoice, *self.further_invoices)

    @model_validator(mode="after")
    def _one_snapshot(self) -> Self:
        if len({(invoice.issuer, invoice.billing_period) for invoice in self.invoices}) > 1:
            raise ValueError("the invoices of a delivery are of one issuer and one billing period")
        if len({invoice.invoice_id for invoice in self.invoices}) < len(self.invoices):
            raise ValueError("an invoice is there twice")
        return self
