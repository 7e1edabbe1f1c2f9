"""Azure's bill: the invoices of the subscription, and the cost details (actual cost, CSV) that belong to each.

The Cost Details API writes a report on request: POST, poll its Location, then fetch the blobs that the manifest lists.
"""

from datetime import UTC, datetime, timedelta
from hashlib import sha256

from engine.clock import Clock
from engine.errors import NotFound, ProviderAnswerInvalid, ProviderError, ProviderUnavailable
from engine.model.billing import BillDelivery, BillFormat, Invoice
from engine.model.money import Money
from engine.model.value import Interval
from providers.azure_api import AzureApi
from providers.azure_wire import InvoiceDocument, Invoices, Manifest, Report
from providers.base import ProviderSettings
from providers.retry import retry_after_seconds

_BILLING_VERSION = "2024-04-01"
_COST_VERSION = {"api-version": "2025-03-01"}
_POLLS = 60
_MAX_WAIT_SECONDS = 30.0


def fetch_bill(api: AzureApi, settings: ProviderSettings, period: Interval, clock: Clock) -> BillDelivery:
    """Every invoice of the billing period that holds the start of ``period``. Raises NotFound where none is issued yet.

    A marketplace's or a purchase's comes beside the month's; each row of the cost details names its own.
    """
    first, *further = [_invoice(found) for found in _documents(api, settings, period)]
    blobs = [blob for one in (first, *further) for blob in _blobs(api, settings, one.invoice_id, clock)]
    content = _joined(settings.name, blobs)
    return BillDelivery(
        provider=settings.name,
        format=BillFormat.AZURE_COST_EXPORT,
        content_type="text/csv",
        content=content,
        sha256=sha256(content).hexdigest(),
        invoice=first,
        further_invoices=tuple(further),
        delivered_at=clock.now(),
    )


def _documents(api: AzureApi, settings: ProviderSettings, period: Interval) -> list[InvoiceDocument]:
    """In the order in which they were issued; those of the newest one's period, where there are several periods."""
    account = f"{api.arm}/providers/Microsoft.Billing/billingAccounts/default"
    url = f"{account}/billingSubscriptions/{settings.account}/invoices"
    params = {
        "api-version": _BILLING_VERSION,
        "periodStartDate": f"{period.start:%Y-%m-%d}",
        "periodEndDate": f"{period.end:%Y-%m-%d}",
    }
    found = [
        invoice
        for page in api.pages(Invoices, url, params)
        for invoice in page.value
        if invoice.properties.asks_for_money
        and invoice.properties.start <= period.start < _day(invoice.properties.end) + timedelta(days=1)
    ]
    if not found:
        raise NotFound(
            f"{settings.name}: no invoice for {period.start:%Y-%m-%d}", why="Azure issues it after the month has ended"
        )
    found.sort(key=lambda invoice: (invoice.properties.issued, invoice.name))
    return [one for one in found if _period(one) == _period(found[-1])]


def _invoice(found: InvoiceDocument) -> Invoice:
    total = found.properties.total
    return Invoice(
        issuer="Microsoft",
        invoice_id=found.name,
        billing_period=_period(found),
        total=Money(amount=total.value, currency=total.currency),
    )


def _period(found: InvoiceDocument) -> Interval:
    return Interval(start=found.properties.start, end=_day(found.properties.end) + timedelta(days=1))


def _blobs(api: AzureApi, settings: ProviderSettings, invoice: str, clock: Clock) -> list[bytes]:
    """The parts of the invoice's cost details."""
    manifest = _report(api, settings, invoice, clock)
    if manifest.data_format != "Csv" or manifest.compressed:
        raise ProviderAnswerInvalid(f"{settings.name}: cost details came as {manifest.data_format}, not as plain CSV")
    if not manifest.blobs:
        raise ProviderAnswerInvalid(f"{settings.name}: the manifest of the cost details of {invoice} lists no blobs")
    return [api.download(blob.link) for blob in manifest.blobs]


def _report(api: AzureApi, settings: ProviderSettings, invoice: str, clock: Clock) -> Manifest:
    url = f"{api.subscription}/providers/Microsoft.CostManagement/generateCostDetailsReport"
    answer = api.post(url, {"metric": "ActualCost", "invoiceId": invoice}, _COST_VERSION)
    for _ in range(_POLLS):
        if answer.status_code == 200:
            report = api.read(Report, answer)
            if report.manifest is None:
                raise ProviderError(f"{settings.name}: the cost details of {invoice} failed", why=report.status)
            return report.manifest
        link = answer.headers.get("location")
        if not link:
            raise ProviderAnswerInvalid(f"{settings.name}: a cost details report came without a place to poll")
        answer = api.poll(link)
        if answer.status_code != 200:
            clock.sleep(min(retry_after_seconds(answer.headers, clock.now()) or 5.0, _MAX_WAIT_SECONDS))
    raise ProviderUnavailable(f"{settings.name}: the cost details of {invoice} are not ready", next_step="try later")


def _joined(name: str, parts: list[bytes]) -> bytes:
    """Every part begins with the header; only the first one's is kept."""
    header, _, _ = parts[0].partition(b"\n")
    if any(part.partition(b"\n")[0] != header for part in parts):
        raise ProviderAnswerInvalid(f"{name}: the parts of the cost details have different columns")
    rows = (part.partition(b"\n")[2] for part in parts)
    return b"".join([header, b"\n", *(part if part.endswith(b"\n") or not part else part + b"\n" for part in rows)])


def _day(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
