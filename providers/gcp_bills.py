"""Google's bill: the Cloud Billing export, as newline-delimited JSON in a Cloud Storage bucket.

Google delivers the detailed usage cost export to BigQuery. A scheduled query there writes each invoice month to a
bucket (``EXPORT DATA OPTIONS(uri='gs://BUCKET/invoice_month=YYYYMM/RUN/export-*.json', format='JSON')``), and
``invoice.json`` with the invoice's figures is laid beside it. The bucket is ``PROJECT-billing-export`` unless
``credentials.billing_bucket`` names another.
"""

from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from urllib.parse import quote

from engine.errors import NotFound, ProviderAnswerInvalid
from engine.model.billing import BillDelivery, BillFormat, Invoice
from engine.model.money import Money
from engine.model.value import Interval
from providers.base import ProviderSettings
from providers.gcp_api import GcpApi
from providers.gcp_wire import InvoiceDocument, StorageObjects

_MEDIA = {"alt": "media"}


def fetch_bill(api: GcpApi, settings: ProviderSettings, period: Interval, *, now: datetime) -> BillDelivery:
    """The newest complete run of the invoice month in which the period starts. Raises NotFound where there is none."""
    given = settings.credentials.get("billing_bucket")
    bucket = given.get_secret_value() if given else f"{settings.account}-billing-export"
    month = f"{period.start:%Y%m}"
    objects = f"{api.storage}/storage/v1/b/{quote(bucket, safe='')}/o"
    runs: dict[str, list[str]] = defaultdict(list)
    for name in _names(api, objects, f"invoice_month={month}/"):
        runs[name.rpartition("/")[0]].append(name)
    complete = sorted(run for run, names in runs.items() if f"{run}/invoice.json" in names and len(names) > 1)
    if not complete:
        raise NotFound(
            f"{settings.name}: no billing export with an invoice for {month}",
            why=f"gs://{bucket}/invoice_month={month}/ holds no run with export files and invoice.json",
        )
    run = complete[-1]
    invoice = api.get(InvoiceDocument, f"{objects}/{quote(f'{run}/invoice.json', safe='')}", _MEDIA)
    if invoice.invoice_month != month:
        raise ProviderAnswerInvalid(f"{settings.name}: {run}/invoice.json is of {invoice.invoice_month}, not {month}")
    exports = sorted(name for name in runs[run] if not name.endswith("/invoice.json"))
    content = b"".join(api.download(f"{objects}/{quote(name, safe='')}", _MEDIA) for name in exports)
    return BillDelivery(
        provider=settings.name,
        format=BillFormat.GCP_BILLING_EXPORT,
        content_type="application/x-ndjson",
        content=content,
        sha256=sha256(content).hexdigest(),
        invoice=Invoice(
            issuer="Google Cloud",
            invoice_id=invoice.invoice_id,
            billing_period=_month(month),
            total=Money(amount=invoice.total, currency=invoice.currency),
        ),
        delivered_at=now,
    )


def _names(api: GcpApi, objects: str, prefix: str) -> Iterator[str]:
    params = {"prefix": prefix, "fields": "items(name),nextPageToken"}
    return (found.name for page in api.pages(StorageObjects, objects, params) for found in page.items)


def _month(month: str) -> Interval:
    start = datetime(int(month[:4]), int(month[4:]), 1, tzinfo=UTC)
    return Interval(start=start, end=start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1))
