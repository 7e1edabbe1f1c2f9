"""Azure's bill: the invoice of the subscription, and the cost details (actual cost, CSV) that belong to it.

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
    """The newest invoice whose period holds the start of ``period``. Raises NotFound where none is issued yet."""
    invoice = _invoice(api, settings, period)
    manifest = _report(api, settings, invoice.name, clock)
    if manifest.data_format != "Csv" or manifest.compressed:
        raise ProviderAnswerInvalid(f"{settings.name}: cost details came as {manifest.data_format}, not as plain CSV")
    content = _joined([api.download(blob.link) for blob in manifest.blobs])
    facts = invoice.properties
    return BillDelivery(
        provider=settings.name,
        format=BillFormat.AZURE_COST_EXPORT,
        content_type="text/csv",
        content=content,
        sha256=sha256(content).hexdigest(),
        invoice=Invoice(
            issuer="Microsoft",
            invoice_id=invoice.name,
            billing_period=Interval(start=facts.start, end=_day(facts.end) + timedelta(days=1)),
            total=Money(amount=facts.total.value, currency=facts.total.currency),
        ),
        delivered_at=clock.now(),
    )


def _invoice(api: AzureApi, settings: ProviderSettings, period: Interval) -> InvoiceDocument:
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
        if invoice.properties.start <= period.start < _day(invoice.properties.end) + timedelta(days=1)
    ]
    if not found:
        raise NotFound(
            f"{settings.name}: no invoice for {period.start:%Y-%m-%d}", why="Azure issues it after the month has ended"
        )
    return max(found, key=lambda invoice: (invoice.properties.issued, invoice.name))


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


def _joined(parts: list[bytes]) -> bytes:
    """Every part begins with the header; only the first one's is kept."""
    if not parts:
        raise ProviderAnswerInvalid("the manifest of the cost details lists no blobs")
    return parts[0] + b"".join(part.partition(b"\n")[2] for part in parts[1:])


def _day(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
