import json
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256
from urllib.parse import unquote

import httpx
import pytest
from pydantic import SecretStr

from engine.clock import ManualClock
from engine.errors import NotFound, ProviderAnswerInvalid
from engine.model.billing import BillDelivery, BillFormat
from engine.model.money import usd
from engine.model.value import Interval
from providers.base import ProviderSettings
from providers.gcp_api import GcpApi
from providers.gcp_bills import fetch_bill

NOW = datetime(2026, 12, 3, tzinfo=UTC)
NOVEMBER = Interval(start=datetime(2026, 11, 1, tzinfo=UTC), end=datetime(2026, 12, 1, tzinfo=UTC))
INVOICE = {"invoice_id": "I-1", "invoice_month": "202611", "currency": "USD", "total": "12.34"}


def fetched(files: dict[str, bytes], **credentials: str) -> BillDelivery:
    given = {name: SecretStr(value) for name, value in {"access_token": "t", **credentials}.items()}
    settings = ProviderSettings(name="g", kind="gcp", account="proj", regions=("us-central1",), credentials=given)
    bucket = credentials.get("billing_bucket", "proj-billing-export")

    def handle(request: httpx.Request) -> httpx.Response:
        path = unquote(request.url.raw_path.partition(b"?")[0].decode())
        root = f"/storage/v1/b/{bucket}/o"
        assert path.startswith(root)
        if path == root:
            prefix = request.url.params["prefix"]
            names = [{"name": name} for name in files if name.startswith(prefix)]
            return httpx.Response(200, json={"items": names} if names else {})
        return httpx.Response(200, content=files[path.removeprefix(root + "/")])

    api = GcpApi(settings, ManualClock(NOW), transport=httpx.MockTransport(handle))
    return fetch_bill(api, settings, NOVEMBER, now=NOW)


def run(name: str, *parts: bytes, **changes: object) -> dict[str, bytes]:
    folder = f"invoice_month=202611/{name}"
    exports = {f"{folder}/export-{number:012d}.json": part for number, part in enumerate(parts)}
    return {**exports, f"{folder}/invoice.json": json.dumps({**INVOICE, **changes}).encode()}


def test_the_newest_complete_run_is_the_bill() -> None:
    half = {"invoice_month=202611/3/export-000000000000.json": b"half a run"}
    delivery = fetched({**run("1", b"old\n"), **run("2", b"a\n", b"b\n"), **half})
    assert delivery.content == b"a\nb\n"
    assert delivery.sha256 == sha256(b"a\nb\n").hexdigest()
    assert delivery.format is BillFormat.GCP_BILLING_EXPORT
    assert delivery.invoice.total == usd(Decimal("12.34"))
    assert delivery.invoice.billing_period == NOVEMBER


def test_the_bucket_can_be_named() -> None:
    assert fetched(run("1", b"x"), billing_bucket="elsewhere").content == b"x"


def test_a_month_without_an_invoice_is_not_there() -> None:
    with pytest.raises(NotFound, match="202611"):
        fetched({"invoice_month=202610/1/export-0.json": b""})


def test_an_invoice_of_another_month_is_no_answer() -> None:
    with pytest.raises(ProviderAnswerInvalid):
        fetched(run("1", b"x", invoice_month="202610"))


@pytest.mark.parametrize(("figure", "typed"), [("total", "twelve"), ("currency", "usd"), ("invoice_id", "1" * 129)])
def test_an_invoice_that_is_rubbish_is_no_answer(figure: str, typed: str) -> None:
    with pytest.raises(ProviderAnswerInvalid, match=figure):
        fetched(run("1", b"x", **{figure: typed}))
