"""Fetches the Cost and Usage Report of a billing month the way AWS delivers it, and the invoices that it adds up to.

AWS writes the report to an S3 bucket: a manifest per month, which names gzipped CSV files. Which bucket is asked from
the report service, so nothing about it is configured. Invoice totals come from the Invoicing service, not from the
report: that is what makes the reconciliation say something.
"""

import csv
import gzip
import hashlib
import io
import zlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from itertools import chain

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from engine.errors import NotFound, ProviderAnswerInvalid
from engine.model.billing import BillDelivery, BillFormat, Invoice
from engine.model.money import Currency, Money
from engine.model.value import Interval
from providers.aws_api import GLOBAL_REGION, AwsApi
from providers.aws_wire import Wire

ISSUER = "Amazon Web Services, Inc."


class _Definition(Wire):
    report_name: str
    format: str
    compression: str
    s3_bucket: str
    s3_prefix: str
    s3_region: str


class _Definitions(Wire):
    report_definitions: tuple[_Definition, ...]


class _Amount(Wire):
    total_amount: Decimal
    currency_code: Currency


class _InvoiceSummary(Wire):
    invoice_id: str
    invoice_type: str = "INVOICE"
    base_currency_amount: _Amount


class _InvoiceSummaries(Wire):
    invoice_summaries: tuple[_InvoiceSummary, ...]


class _Manifest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel)

    assembly_id: str
    bucket: str
    report_keys: tuple[str, ...]


def month_of(moment: datetime) -> Interval:
    """The calendar month (UTC) of a moment: AWS's billing period."""
    start = moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return Interval(start=start, end=(start + timedelta(days=32)).replace(day=1))


def fetch_bill(api: AwsApi, provider: str, period: Interval, *, now: datetime) -> BillDelivery:
    """The newest report of the month in which ``period`` starts; ``content`` is one gzipped CSV.

    Raises NotFound when the account writes no such report, the month has none yet, or its invoice is not out yet;
    ProviderAnswerInvalid when what is delivered cannot be read.
    """
    month = month_of(period.start)
    report = _csv_report(api, provider)
    manifest = _manifest(api, provider, report, month)
    fetch = partial(api.download, report.s3_region, manifest.bucket)
    content, invoice_ids = _joined(provider, [fetch(key) for key in manifest.report_keys])
    if not invoice_ids:
        raise NotFound(
            f"{provider}: no invoice for {month.start:%Y-%m} yet",
            why="the rows of the cost report carry no invoice id",
            next_step="AWS closes a month in the first days of the next",
        )
    first, *further = (_invoice(api, provider, month, invoice_id) for invoice_id in invoice_ids)
    return BillDelivery(
        provider=provider,
        format=BillFormat.AWS_CUR,
        content_type="application/gzip",
        content=content,
        sha256=hashlib.sha256(content).hexdigest(),
        invoice=first,
        further_invoices=tuple(further),
        delivered_at=now,
    )


def _csv_report(api: AwsApi, provider: str) -> _Definition:
    pages = api.pages(_Definitions, "cur", GLOBAL_REGION, "describe_report_definitions")
    every = list(chain.from_iterable(page.report_definitions for page in pages))
    for definition in every:
        if (definition.format, definition.compression) == ("textORcsv", "GZIP"):
            return definition
    raise NotFound(
        f"{provider}: no Cost and Usage Report in gzipped CSV",
        why=f"reports defined: {', '.join(found.report_name for found in every) or 'none'}",
        next_step="define one (text/csv, GZIP, with resource ids) in the billing console",
    )


def _manifest(api: AwsApi, provider: str, report: _Definition, month: Interval) -> _Manifest:
    span = f"{month.start:%Y%m%d}-{month.end:%Y%m%d}"
    path = (report.s3_prefix.strip("/"), report.report_name, span, f"{report.report_name}-Manifest.json")
    key = "/".join(part for part in path if part)
    try:
        return _Manifest.model_validate_json(api.download(report.s3_region, report.s3_bucket, key))
    except ValidationError as problem:
        raise ProviderAnswerInvalid(f"{provider}: {key} is not a report manifest") from problem


def _joined(provider: str, files: Sequence[bytes]) -> tuple[bytes, tuple[str, ...]]:
    """One gzipped CSV with one header, and the distinct invoice ids of its rows. One file is passed on as it came."""
    header: list[str] | None = None
    rows: list[list[str]] = []
    try:
        for file in files:
            reader = csv.reader(io.StringIO(gzip.decompress(file).decode("utf-8-sig"), newline=""))
            first = next(reader)
            if header is not None and first != header:
                raise ValueError("its files have different columns")
            header = first
            rows.extend(reader)
        column = (header or []).index("bill/InvoiceId")
        invoice_ids = tuple(dict.fromkeys(row[column] for row in rows if row[column]))
    except (ValueError, OSError, EOFError, zlib.error, csv.Error, IndexError, StopIteration) as problem:
        raise ProviderAnswerInvalid(f"{provider}: the cost report cannot be read", why=str(problem)) from problem
    if len(files) == 1:
        return files[0], invoice_ids
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([header or [], *rows])
    return gzip.compress(text.getvalue().encode(), mtime=0), invoice_ids


def _invoice(api: AwsApi, provider: str, month: Interval, invoice_id: str) -> Invoice:
    """One of the invoices of the month: AWS issues others beside the main one (marketplace, credit memos)."""
    selector = {"ResourceType": "INVOICE_ID", "Value": invoice_id}
    pages = api.pages(_InvoiceSummaries, "invoicing", GLOBAL_REGION, "list_invoice_summaries", Selector=selector)
    found = [summary for page in pages for summary in page.invoice_summaries if summary.invoice_id == invoice_id]
    if not found:
        raise NotFound(f"{provider}: the Invoicing service does not know invoice {invoice_id}")
    amount = found[0].base_currency_amount
    sign = -1 if found[0].invoice_type == "CREDIT_MEMO" and amount.total_amount > 0 else 1
    total = Money(amount=sign * amount.total_amount, currency=amount.currency_code)
    return Invoice(issuer=ISSUER, invoice_id=invoice_id, billing_period=month, total=total)
