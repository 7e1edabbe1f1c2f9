"""A bill: metered spans as FOCUS 1.2 rows, the invoice they sum to, and both as CSV."""

import csv
import io
import json
from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal

from engine.model.market import PurchaseOption
from engine.model.money import Money
from engine.model.value import Interval
from providers.network.records import Span
from providers.network.wire import WireMoney, WireTerm
from providers.network.wire_records import FocusRow, WireBill, WireInvoice

_QUANTUM = Decimal("0.000000001")
_PRICING_CATEGORY = {
    PurchaseOption.ON_DEMAND: "Standard",
    PurchaseOption.SPOT: "Dynamic",
    PurchaseOption.AUCTION: "Dynamic",
    PurchaseOption.COMMITMENT: "Committed",
}


def make_bill(
    spans: Iterable[Span], period: Interval, *, issuer: str, tenant: str, currency: str, meter_speed: Decimal
) -> WireBill:
    """Rows sum exactly to the invoice, which is in whole minor units: the difference is a row of its own.

    ``meter_speed`` metered hours pass in one real hour.
    """
    invoice_id = f"{issuer}-{tenant}-{period.start:%Y%m%dT%H%M%SZ}-{period.end:%Y%m%dT%H%M%SZ}"
    writer = _RowWriter(issuer, tenant, currency, period, invoice_id)
    rows = []
    for span in spans:
        charged = span.within(period)
        if charged is not None:
            rows.append(writer.usage(span, charged, _hours(charged, meter_speed)))
    total = sum((row.billed_cost for row in rows), Decimal(0))
    asked = Money(amount=total, currency=currency).to_minor_units().amount
    if asked != total:
        rows.append(writer.rounding(asked - total))
    invoice = WireInvoice(
        invoice_id=invoice_id,
        issuer=issuer,
        period=WireTerm(start=period.start, end=period.end),
        total=WireMoney(amount=asked, currency=currency),
    )
    return WireBill(invoice=invoice, rows=tuple(rows))


def as_csv(bill: WireBill) -> bytes:
    """One header line of FOCUS column names; null is empty, Tags is a JSON object."""
    columns = [str(field.alias) for field in FocusRow.model_fields.values()]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\r\n")
    writer.writeheader()
    for row in bill.rows:
        cells = row.model_dump(mode="json", by_alias=True)
        writer.writerow({**cells, "Tags": json.dumps(cells["Tags"], sort_keys=True)})
    return text.getvalue().encode()


def _hours(charged: Interval, meter_speed: Decimal) -> Decimal:
    microseconds = (charged.end - charged.start) // timedelta(microseconds=1)
    return (Decimal(microseconds) * meter_speed / Decimal(3_600_000_000)).quantize(_QUANTUM)


class _RowWriter:
    """The columns that every row of one bill shares."""

    def __init__(self, issuer: str, tenant: str, currency: str, period: Interval, invoice_id: str) -> None:
        self._issuer, self._tenant, self._currency = issuer, tenant, currency
        self._period, self._invoice_id = period, invoice_id

    def usage(self, span: Span, charged: Interval, hours: Decimal) -> FocusRow:
        listing = span.listing
        cost = (hours * span.unit_price).quantize(_QUANTUM, rounding=ROUND_HALF_EVEN)
        state = "running" if span.used else "reserved, no node"
        return self._row(
            cost,
            charged.start,
            charged.end,
            availability_zone=listing.zone,
            capacity_reservation_id=span.resource_id,
            capacity_reservation_status="Used" if span.used else "Unused",
            charge_category="Usage",
            charge_description=f"{listing.instance_type} in {listing.zone}, {listing.option.value}, {state}",
            charge_frequency="Usage-Based",
            consumed_quantity=hours if span.used else None,
            consumed_unit="Hours" if span.used else None,
            contracted_unit_price=span.unit_price,
            list_cost=(hours * span.list_price).quantize(_QUANTUM, rounding=ROUND_HALF_EVEN),
            list_unit_price=span.list_price,
            pricing_category=_PRICING_CATEGORY[listing.option],
            pricing_quantity=hours,
            pricing_unit="Hours",
            region_id=listing.region,
            region_name=listing.region,
            resource_id=span.resource_id,
            resource_name=dict(span.tags).get("shardwright-node"),
            resource_type="Reservation",
            sku_id=listing.offer_id,
            sku_price_id=f"{listing.offer_id}:{listing.option.value}",
            tags=dict(span.tags),
        )

    def rounding(self, amount: Decimal) -> FocusRow:
        return self._row(
            amount,
            self._period.start,
            self._period.end,
            charge_category="Adjustment",
            charge_description="Rounding to what an invoice can show",
            charge_frequency="One-Time",
            list_cost=amount,
        )

    def _row(
        self,
        cost: Decimal,
        start: datetime,
        end: datetime,
        *,
        charge_category: str,
        charge_description: str,
        charge_frequency: str,
        list_cost: Decimal,
        **columns: object,
    ) -> FocusRow:
        return FocusRow.model_validate(
            {
                "billed_cost": cost,
                "effective_cost": cost,
                "contracted_cost": cost,
                "list_cost": list_cost,
                "billing_account_id": self._tenant,
                "billing_account_name": self._tenant,
                "billing_currency": self._currency,
                "billing_period_start": self._period.start,
                "billing_period_end": self._period.end,
                "charge_category": charge_category,
                "charge_description": charge_description,
                "charge_frequency": charge_frequency,
                "charge_period_start": start,
                "charge_period_end": end,
                "invoice_id": self._invoice_id,
                "invoice_issuer_name": self._issuer,
                "provider_name": self._issuer,
                "publisher_name": self._issuer,
                "service_category": "Compute",
                "service_name": f"{self._issuer} capacity",
                "service_subcategory": "Virtual Machines",
                **columns,
            }
        )
