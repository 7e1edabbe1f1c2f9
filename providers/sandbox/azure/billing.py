"""Bills of the sandbox's Azure: invoices, and the actual-cost CSV of the Cost Details API with its manifest.

Columns are those of the Enterprise Agreement's ActualCost schema (2021-10-01); rows are per day, meter and resource, so
a day holds several rows of one machine only where its spot price changed.
"""

import csv
import io
import json
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import uuid4

from engine.clock import Clock
from engine.model.billing import BillFormat
from engine.model.market import PurchaseOption
from engine.model.value import Interval
from providers.sandbox.azure.catalog import REGIONS, SIZES
from providers.sandbox.azure.wire import ArmError, Document, timestamp
from providers.sandbox.cloud import sandbox_bill
from providers.sandbox.contract import SandboxBill
from providers.sandbox.machines import Machines
from providers.sandbox.meter import Meter, Usage, invoice_total

_HEADER = (
    "InvoiceSectionName,AccountName,AccountOwnerId,SubscriptionId,SubscriptionName,ResourceGroup,ResourceLocation,Date,"
    "ProductName,MeterCategory,MeterSubCategory,MeterId,MeterName,MeterRegion,UnitOfMeasure,Quantity,EffectivePrice,"
    "CostInBillingCurrency,CostCenter,ConsumedService,ResourceId,Tags,OfferId,AdditionalInfo,ServiceInfo1,ServiceInfo2,"
    "ResourceName,ReservationId,ReservationName,UnitPrice,ProductOrderId,ProductOrderName,Term,PublisherType,"
    "PublisherName,ChargeType,Frequency,PricingModel,AvailabilityZone,BillingAccountId,BillingAccountName,"
    "BillingCurrencyCode,BillingPeriodStartDate,BillingPeriodEndDate,BillingProfileId,BillingProfileName,"
    "InvoiceSectionId,IsAzureCreditEligible,PartNumber,PayGPrice,PlanName,ServiceFamily,CostAllocationRuleName,"
    "benefitId,benefitName"
)
COLUMNS = tuple(_HEADER.split(","))

_BILLING_ACCOUNT = "8611537"


@dataclass(frozen=True)
class Biller:
    """Writes the cost export and the invoice of a period. ``resource_ids``: instance id -> resource id."""

    subscription: str
    machines: Machines
    meter: Meter
    clock: Clock
    resource_ids: dict[str, str]

    def bill(self, period: Interval, invoice_id: str | None = None) -> SandboxBill:
        rows = list(self._rows(period))
        exact = sum((Decimal(row["CostInBillingCurrency"]) for row in rows), Decimal(0))
        total = invoice_total(exact)
        if rows and total != exact:
            rows.append(self._rounding_row(total - exact, period))
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\r\n")
        writer.writeheader()
        writer.writerows(rows)
        return sandbox_bill(
            text.getvalue().encode(),
            format=BillFormat.AZURE_COST_EXPORT.value,
            content_type="text/csv",
            invoice_id=invoice_id or f"E{period.start:%Y%m}",
            issuer="Microsoft",
            total=total,
            period=period,
        )

    def _rows(self, period: Interval) -> Iterator[dict[str, str]]:
        for machine in self.machines.all():
            option = PurchaseOption.SPOT if machine.spot else PurchaseOption.ON_DEMAND
            key = SIZES[machine.instance_type].key(machine.region, option)
            for usage in self.meter.usage(machine, key, period, timedelta(days=1)):
                yield self._row(usage, option, period)

    def _row(self, usage: Usage, option: PurchaseOption, period: Interval) -> dict[str, str]:
        machine, size = usage.machine, SIZES[usage.machine.instance_type]
        spot = option is PurchaseOption.SPOT
        resource_id = self.resource_ids[machine.instance_id]
        list_price = self.meter.board.now(size.key(machine.region, PurchaseOption.ON_DEMAND))
        meter_name = size.meter_name + (" Spot" if spot else "")
        return {
            **self._frame(period),
            "ResourceGroup": resource_id.split("/")[4],
            "ResourceLocation": machine.region,
            "Date": _day(usage.start),
            "ProductName": f"Virtual Machines {size.series} Series - {meter_name} - {REGIONS[machine.region]}",
            "MeterCategory": "Virtual Machines",
            "MeterSubCategory": f"{size.series} Series",
            "MeterId": size.meter_id(machine.region, option.value),
            "MeterName": meter_name,
            "MeterRegion": REGIONS[machine.region],
            "UnitOfMeasure": "1 Hour",
            "Quantity": f"{usage.hours:f}",
            "EffectivePrice": f"{usage.unit_price:f}",
            "CostInBillingCurrency": f"{usage.cost():f}",
            "ConsumedService": "Microsoft.Compute",
            "ResourceId": resource_id,
            "Tags": ",".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in sorted(machine.tags.items())),
            "AdditionalInfo": json.dumps(
                {"ServiceType": size.name, "VCPUs": size.vcpus, "Priority": "Spot" if spot else "Regular"}
            ),
            "ResourceName": machine.name,
            "UnitPrice": f"{usage.unit_price:f}",
            "PublisherType": "Azure",
            "ChargeType": "Usage",
            "Frequency": "UsageBased",
            "PricingModel": "Spot" if spot else "OnDemand",
            "AvailabilityZone": machine.zone,
            "IsAzureCreditEligible": "True",
            "PartNumber": f"AAA-{size.meter_id(machine.region, option.value)[:5].upper()}",
            "PayGPrice": f"{usage.unit_price if spot else list_price:f}",
            "ServiceFamily": "Compute",
        }

    def _rounding_row(self, amount: Decimal, period: Interval) -> dict[str, str]:
        return {
            **self._frame(period),
            "Date": _day(min(period.end - timedelta(microseconds=1), self.clock.now())),
            "ProductName": "Rounding adjustment",
            "Quantity": "0",
            "EffectivePrice": "0",
            "CostInBillingCurrency": f"{amount:f}",
            "UnitPrice": "0",
            "PayGPrice": "0",
            "PublisherType": "Azure",
            "ChargeType": "RoundingAdjustment",
            "Frequency": "OneTime",
            "IsAzureCreditEligible": "False",
        }

    def _frame(self, period: Interval) -> dict[str, str]:
        return {
            "AccountName": "Shardwright sandbox",
            "AccountOwnerId": "owner@example.com",
            "SubscriptionId": self.subscription,
            "SubscriptionName": "shardwright-sandbox",
            "OfferId": "MS-AZR-0017P",
            "BillingAccountId": _BILLING_ACCOUNT,
            "BillingAccountName": "Shardwright sandbox",
            "BillingCurrencyCode": "USD",
            "BillingPeriodStartDate": _day(period.start),
            "BillingPeriodEndDate": _day(period.end - timedelta(microseconds=1)),
            "BillingProfileId": _BILLING_ACCOUNT,
            "BillingProfileName": "Shardwright sandbox",
        }


@dataclass
class Invoices:
    """Invoices of months begun since the server opened, each with the cost report that belongs to it.

    A real invoice is issued once, after its month; here every look at the list issues the open month's again, under a
    new number, so that an invoice and its report always speak of the same usage.
    """

    biller: Biller
    clock: Clock
    opened: datetime
    _bills: dict[str, SandboxBill] = field(default_factory=dict)
    _reports: dict[str, SandboxBill] = field(default_factory=dict)

    def listed(self, start: datetime, end: datetime) -> list[Document]:
        month = self.opened.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        found = []
        while month <= self.clock.now():
            following = _next_month(month)
            if month < end and following > start:
                number = f"E{month:%y%m}{len(self._bills):06d}"
                bill = self.biller.bill(Interval(start=month, end=following), number)
                self._bills[number] = bill
                found.append(self._document(bill))
            month = following
        return found

    def begin_report(self, body: Document) -> str:
        """The id of a report over an invoice (``invoiceId``) or a span of days (``timePeriod``)."""
        number = body.get("invoiceId")
        if number is not None:
            if number not in self._bills:
                raise ArmError(404, "NotFound", f"Invoice {number} was not found.")
            bill = self._bills[number]
        else:
            bill = self.biller.bill(_days(body.get("timePeriod")))
        report = str(uuid4())
        self._reports[report] = bill
        return report

    def manifest(self, report: str, blob_url: str, request: Document) -> Document:
        bill = self._report(report)
        size = len(b64decode(bill.content_base64))
        return {
            "id": report,
            "name": report,
            "status": "Completed",
            "manifest": {
                "manifestVersion": "2022-05-01",
                "dataFormat": "Csv",
                "byteCount": size,
                "blobCount": 1,
                "compressData": False,
                "requestContext": request,
                "blobs": [{"blobLink": blob_url, "byteCount": size}],
            },
            "validTill": timestamp(self.clock.now() + timedelta(hours=12)),
        }

    def content(self, report: str) -> bytes:
        return b64decode(self._report(report).content_base64)

    def _report(self, report: str) -> SandboxBill:
        if report not in self._reports:
            raise ArmError(404, "NotFound", f"Cost details report {report} was not found.")
        return self._reports[report]

    def _document(self, bill: SandboxBill) -> Document:
        subscription = self.biller.subscription
        scope = f"/providers/Microsoft.Billing/billingAccounts/default/billingSubscriptions/{subscription}"
        amount = {"currency": bill.currency, "value": float(bill.total)}
        return {
            "id": f"{scope}/invoices/{bill.invoice_id}",
            "name": bill.invoice_id,
            "type": "Microsoft.Billing/billingAccounts/billingSubscriptions/invoices",
            "properties": {
                "invoiceType": "AzureServices",
                "documentType": "Invoice",
                "status": "Due",
                "invoiceDate": timestamp(self.clock.now()),
                "invoicePeriodStartDate": timestamp(bill.period_start),
                "invoicePeriodEndDate": timestamp(bill.period_end - timedelta(days=1)),
                "totalAmount": amount,
                "billedAmount": amount,
                "amountDue": amount,
                "subscriptionId": subscription,
            },
        }


def _days(span: object) -> Interval:
    try:
        assert isinstance(span, dict)
        start, end = (datetime.fromisoformat(span[edge]).replace(tzinfo=UTC) for edge in ("start", "end"))
    except (AssertionError, KeyError, ValueError, TypeError):
        raise ArmError(400, "BadRequest", "timePeriod needs start and end as YYYY-MM-DD.") from None
    return Interval(start=start, end=end + timedelta(days=1))


def _day(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%m/%d/%Y}"


def _next_month(start: datetime) -> datetime:
    return start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
