"""The bill: a Cost and Usage Report (legacy columns) delivered to S3 with its manifest, and the invoice it adds up to.

AWS bills by calendar month, UTC. This account's invoice is drawn up anew whenever its usage has changed since the last
one, so every delivery has an invoice of its own; the rows carry its id.
"""

import csv
import gzip
import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from moto.s3.models import s3_backends

from engine.model.value import Interval
from providers.sandbox.aws import REPORT_BUCKET, REPORT_NAME, REPORT_PREFIX
from providers.sandbox.aws.catalogue import USAGE_PREFIXES, on_demand_key
from providers.sandbox.aws.cloud import Cloud, price_key
from providers.sandbox.aws.pricing import sku
from providers.sandbox.aws.wire import Answer, Call, Refused, json_answer
from providers.sandbox.cloud import sandbox_bill
from providers.sandbox.contract import SandboxBill
from providers.sandbox.meter import Usage, invoice_total

REPORT_REGION = "us-east-1"
ISSUER = "Amazon Web Services, Inc."
_HOUR = timedelta(hours=1)
_TAGS = ("shardwright-node", "shardwright-token", "shardwright-workload")
_COLUMNS = (
    "identity/LineItemId", "identity/TimeInterval",
    "bill/InvoiceId", "bill/InvoicingEntity", "bill/BillingEntity", "bill/BillType", "bill/PayerAccountId",
    "bill/BillingPeriodStartDate", "bill/BillingPeriodEndDate",
    "lineItem/UsageAccountId", "lineItem/LineItemType", "lineItem/UsageStartDate", "lineItem/UsageEndDate",
    "lineItem/ProductCode", "lineItem/UsageType", "lineItem/Operation", "lineItem/AvailabilityZone",
    "lineItem/ResourceId", "lineItem/UsageAmount", "lineItem/CurrencyCode", "lineItem/UnblendedRate",
    "lineItem/UnblendedCost", "lineItem/BlendedRate", "lineItem/BlendedCost", "lineItem/LineItemDescription",
    "lineItem/TaxType", "lineItem/LegalEntity",
    "product/ProductName", "product/instanceType", "product/operatingSystem", "product/productFamily",
    "product/region", "product/regionCode", "product/servicecode", "product/servicename", "product/sku",
    "product/tenancy", "product/usagetype",
    "pricing/currency", "pricing/publicOnDemandCost", "pricing/publicOnDemandRate", "pricing/term", "pricing/unit",
    *(f"resourceTags/user:{tag}" for tag in _TAGS),
)  # fmt: skip


@dataclass(frozen=True)
class Invoice:
    invoice_id: str
    month: Interval
    total: Decimal
    issued_at: datetime
    report: bytes
    """The CSV, gzipped."""


class Bills:
    """Draws up, delivers and answers for the bills of one cloud."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._issued: dict[str, Invoice] = {}
        self._latest: dict[datetime, tuple[str, Invoice]] = {}
        """month -> (digest of the usage rows, the invoice over them)."""
        s3_backends[cloud.account]["aws"].create_bucket(REPORT_BUCKET, REPORT_REGION)
        cloud.deliver = self.sandbox_bill

    # -- S3 and the report service --------------------------------------------------------------------------------

    def before_read(self, key: str) -> None:
        """AWS refreshes the report some times a day; here it is fresh whenever a month's manifest is read."""
        folder, _, name = key.rpartition("/")
        months = folder.rpartition("/")[2].partition("-")[0]
        if name != f"{REPORT_NAME}-Manifest.json" or len(months) != 8 or not months.isdigit():
            return
        try:
            month = month_of(datetime.strptime(months, "%Y%m%d").replace(tzinfo=UTC))
        except ValueError:
            return
        if month.start <= self._cloud.clock.now():
            self._deliver(self.invoice(month))

    def report_definitions(self, call: Call) -> Answer:
        if call.action != "DescribeReportDefinitions":
            raise Refused(400, "UnknownOperationException", f"This cloud does not do {call.action}.")
        definition = {
            "ReportName": REPORT_NAME,
            "TimeUnit": "HOURLY",
            "Format": "textORcsv",
            "Compression": "GZIP",
            "AdditionalSchemaElements": ["RESOURCES"],
            "S3Bucket": REPORT_BUCKET,
            "S3Prefix": REPORT_PREFIX,
            "S3Region": REPORT_REGION,
            "ReportVersioning": "CREATE_NEW_REPORT",
            "RefreshClosedReports": True,
        }
        return json_answer({"ReportDefinitions": [definition]})

    def invoice_summaries(self, call: Call) -> Answer:
        if call.action != "ListInvoiceSummaries":
            raise Refused(400, "UnknownOperationException", f"This cloud does not do {call.action}.")
        selector = call.json().get("Selector", {})
        if selector.get("ResourceType") == "INVOICE_ID":
            found = [self._issued[selector["Value"]]] if selector.get("Value") in self._issued else []
        else:
            found = [invoice for _, invoice in self._latest.values() if selector.get("Value") == self._cloud.account]
        return json_answer({"InvoiceSummaries": [self._summary(invoice) for invoice in found]})

    def sandbox_bill(self, period: Interval) -> SandboxBill:
        """The bill of the month in which the period starts, as /_sandbox/bill hands it over."""
        invoice = self.invoice(month_of(period.start))
        return sandbox_bill(
            invoice.report,
            format="aws_cur",
            content_type="application/gzip",
            invoice_id=invoice.invoice_id,
            issuer=ISSUER,
            total=invoice.total,
            period=invoice.month,
        )

    # -- the invoice ----------------------------------------------------------------------------------------------

    def invoice(self, month: Interval) -> Invoice:
        """Of everything metered in the month until now; the same one again while nothing has changed."""
        usage = self._usage(month)
        digest = hashlib.sha256(repr([(u.machine.instance_id, u.start, u.end, u.unit_price) for u in usage]).encode())
        known = self._latest.get(month.start)
        if known and known[0] == digest.hexdigest():
            return known[1]
        invoice_id = f"{self._cloud.account[-4:]}{month.start:%y%m}{len(self._issued) + 1:06d}"
        total = invoice_total(sum((piece.cost() for piece in usage), Decimal(0)))
        rows = [self._row(piece, month, invoice_id) for piece in usage]
        rounding = total - sum((piece.cost() for piece in usage), Decimal(0))
        if rounding:
            rows.append(self._rounding_row(rounding, month, invoice_id))
        invoice = Invoice(invoice_id, month, total, self._cloud.clock.now(), _gzipped_csv(rows))
        self._issued[invoice_id] = invoice
        self._latest[month.start] = (digest.hexdigest(), invoice)
        return invoice

    def _usage(self, month: Interval) -> list[Usage]:
        self._cloud.settle()
        meter, machines = self._cloud.meter, self._cloud.machines.all()
        return [piece for machine in machines for piece in meter.usage(machine, price_key(machine), month, _HOUR)]

    def _row(self, piece: Usage, month: Interval, invoice_id: str) -> dict[str, str]:
        machine = piece.machine
        kind = "SpotUsage" if machine.spot else "BoxUsage"
        usage_type = f"{USAGE_PREFIXES[machine.region]}{kind}:{machine.instance_type}"
        listed = on_demand_key(machine.region, machine.instance_type)
        public_rate = self._cloud.market.board.changes(listed, piece.start, piece.end)[0][1]
        rate, cost = f"{piece.unit_price:f}", f"{piece.cost():f}"
        term = "Spot" if machine.spot else "OnDemand"
        hour = piece.start.replace(minute=0, second=0, microsecond=0)
        identity = f"{machine.instance_id}/{piece.start.isoformat()}/{rate}"
        return {
            **self._bill_columns(month, invoice_id, identity, hour, hour + _HOUR),
            "lineItem/LineItemType": "Usage",
            "lineItem/UsageType": usage_type,
            "lineItem/Operation": "RunInstances:SV001" if machine.spot else "RunInstances",
            "lineItem/AvailabilityZone": machine.zone,
            "lineItem/ResourceId": machine.instance_id,
            "lineItem/UsageAmount": f"{piece.hours:f}",
            "lineItem/UnblendedRate": rate,
            "lineItem/UnblendedCost": cost,
            "lineItem/BlendedRate": rate,
            "lineItem/BlendedCost": cost,
            "lineItem/LineItemDescription": f"${rate} per {term} Linux {machine.instance_type} Instance Hour",
            "product/instanceType": machine.instance_type,
            "product/operatingSystem": "Linux",
            "product/productFamily": "Compute Instance",
            "product/region": machine.region,
            "product/regionCode": machine.region,
            "product/sku": sku(machine.region, machine.instance_type),
            "product/tenancy": "Shared",
            "product/usagetype": usage_type,
            "pricing/publicOnDemandCost": f"{piece.hours * public_rate:f}",
            "pricing/publicOnDemandRate": f"{public_rate:f}",
            "pricing/term": term,
            "pricing/unit": "Hrs",
            **{f"resourceTags/user:{tag}": machine.tags.get(tag, "") for tag in _TAGS},
        }

    def _rounding_row(self, amount: Decimal, month: Interval, invoice_id: str) -> dict[str, str]:
        return {
            **self._bill_columns(month, invoice_id, f"rounding/{invoice_id}", month.start, month.end),
            "lineItem/LineItemType": "Fee",
            "lineItem/UsageType": "Rounding",
            "lineItem/UsageAmount": "1",
            "lineItem/UnblendedCost": f"{amount:f}",
            "lineItem/BlendedCost": f"{amount:f}",
            "lineItem/LineItemDescription": "Rounding of the invoice total to the cent",
        }

    def _bill_columns(
        self, month: Interval, invoice_id: str, identity: str, start: datetime, end: datetime
    ) -> dict[str, str]:
        return {
            "identity/LineItemId": hashlib.sha256(identity.encode()).hexdigest()[:52],
            "identity/TimeInterval": f"{_stamp(start)}/{_stamp(end)}",
            "bill/InvoiceId": invoice_id,
            "bill/InvoicingEntity": ISSUER,
            "bill/BillingEntity": "AWS",
            "bill/BillType": "Anniversary",
            "bill/PayerAccountId": self._cloud.account,
            "bill/BillingPeriodStartDate": _stamp(month.start),
            "bill/BillingPeriodEndDate": _stamp(month.end),
            "lineItem/UsageAccountId": self._cloud.account,
            "lineItem/UsageStartDate": _stamp(start),
            "lineItem/UsageEndDate": _stamp(end),
            "lineItem/ProductCode": "AmazonEC2",
            "lineItem/CurrencyCode": "USD",
            "lineItem/LegalEntity": ISSUER,
            "product/ProductName": "Amazon Elastic Compute Cloud",
            "product/servicecode": "AmazonEC2",
            "product/servicename": "Amazon Elastic Compute Cloud",
            "pricing/currency": "USD",
        }

    def _deliver(self, invoice: Invoice) -> None:
        span = f"{invoice.month.start:%Y%m%d}-{invoice.month.end:%Y%m%d}"
        folder = f"{REPORT_PREFIX}/{REPORT_NAME}/{span}"
        assembly = hashlib.sha256(invoice.invoice_id.encode()).hexdigest()[:32]
        report_key = f"{folder}/{assembly}/{REPORT_NAME}-00001.csv.gz"
        manifest = {
            "assemblyId": assembly,
            "account": self._cloud.account,
            "columns": [dict(zip(("category", "name"), name.split("/", 1), strict=True)) for name in _COLUMNS],
            "charset": "UTF-8",
            "compression": "GZIP",
            "contentType": "text/csv",
            "reportName": REPORT_NAME,
            "billingPeriod": {
                "start": f"{invoice.month.start:%Y%m%dT%H%M%S.000Z}",
                "end": f"{invoice.month.end:%Y%m%dT%H%M%S.000Z}",
            },
            "bucket": REPORT_BUCKET,
            "reportKeys": [report_key],
        }
        bucket = s3_backends[self._cloud.account]["aws"]
        bucket.put_object(REPORT_BUCKET, report_key, invoice.report)
        bucket.put_object(REPORT_BUCKET, f"{folder}/{REPORT_NAME}-Manifest.json", json.dumps(manifest).encode())

    def _summary(self, invoice: Invoice) -> dict[str, Any]:
        amount = {"TotalAmount": f"{invoice.total:f}", "CurrencyCode": "USD"}
        return {
            "AccountId": self._cloud.account,
            "InvoiceId": invoice.invoice_id,
            "IssuedDate": invoice.issued_at.timestamp(),
            "Entity": {"InvoicingEntity": ISSUER},
            "BillingPeriod": {"Month": invoice.month.start.month, "Year": invoice.month.start.year},
            "InvoiceType": "INVOICE",
            "BaseCurrencyAmount": amount,
            "PaymentCurrencyAmount": amount,
        }


def month_of(moment: datetime) -> Interval:
    start = moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return Interval(start=start, end=(start + timedelta(days=32)).replace(day=1))


def _stamp(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _gzipped_csv(rows: Sequence[dict[str, str]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=_COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return gzip.compress(text.getvalue().encode(), mtime=0)
