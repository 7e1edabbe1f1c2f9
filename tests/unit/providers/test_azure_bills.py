import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import httpx
import pytest
from pydantic import SecretStr

from engine.clock import ManualClock
from engine.errors import NotFound, ProviderAnswerInvalid, ProviderUnavailable
from engine.model.billing import BillDelivery
from engine.model.money import usd
from engine.model.value import Interval
from providers.azure_api import AzureApi
from providers.azure_bills import fetch_bill
from providers.base import ProviderSettings

NOW = datetime(2026, 12, 6, tzinfo=UTC)
NOVEMBER = Interval(start=datetime(2026, 11, 1, tzinfo=UTC), end=datetime(2026, 12, 1, tzinfo=UTC))
ARM = "https://management.azure.com"


class Portal:
    """Invoices, and reports that take ``polls`` looks to be ready."""

    def __init__(self, *, polls: int = 0) -> None:
        self.polls, self.asked = polls, []  # type: tuple[int, list[dict[str, str]]]
        self.invoices = [self.invoice("E-OCT", "2026-10-01", "2026-10-31", 9), self.invoice("E-NOV")]
        self.parts = [b"Cost\r\n1\r\n", b"Cost\r\n2\r\n"]
        self.link, self.format = f"{ARM}/results/1?api-version=1", "Csv"

    @staticmethod
    def invoice(
        name: str, start: str = "2026-11-01", end: str = "2026-11-30", total: float = 12.34, **more: str
    ) -> object:
        return {
            "name": name,
            "properties": {
                "invoicePeriodStartDate": f"{start}T00:00:00Z",
                "invoicePeriodEndDate": f"{end}T00:00:00Z",
                "invoiceDate": "2026-12-04T00:00:00Z",
                "totalAmount": {"currency": "USD", "value": total},
                **more,
            },
        }

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path.endswith("/token"):
            return httpx.Response(200, json={"access_token": "t", "expires_in": 3600})
        if request.url.host == "blobs.example.com":
            assert "Authorization" not in request.headers
            return httpx.Response(200, content=self.parts[int(path.strip("/"))])
        if path.endswith("/invoices"):
            return httpx.Response(200, json={"value": self.invoices})
        if path.endswith("/generateCostDetailsReport"):
            self.asked.append(json.loads(request.content))
            return httpx.Response(202, headers={"Location": self.link, "Retry-After": "20"})
        if self.polls:
            self.polls -= 1
            return httpx.Response(202, headers={"Location": self.link, "Retry-After": "20"})
        blobs = [{"blobLink": f"https://blobs.example.com/{n}?sig=1"} for n in range(len(self.parts))]
        manifest = {"dataFormat": self.format, "blobs": blobs}
        return httpx.Response(200, json={"status": "Completed", "manifest": manifest})


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def fetch(clock: ManualClock) -> Callable[[Portal], BillDelivery]:
    names = ("tenant_id", "client_id", "client_secret")
    settings = ProviderSettings(
        name="a", kind="azure", account="sub", regions=("eastus",), credentials={n: SecretStr(n) for n in names}
    )

    def fetched(portal: Portal) -> BillDelivery:
        api = AzureApi(settings, clock, transport=httpx.MockTransport(portal))
        return fetch_bill(api, settings, NOVEMBER, clock)

    return fetched


def test_the_report_belongs_to_the_invoice(fetch: Callable[[Portal], BillDelivery], clock: ManualClock) -> None:
    portal = Portal(polls=3)
    delivery = fetch(portal)
    assert portal.asked == [{"metric": "ActualCost", "invoiceId": "E-NOV"}]
    assert delivery.content == b"Cost\r\n1\r\n2\r\n", "one header"
    assert delivery.invoice.total == usd(Decimal("12.34"))
    assert delivery.invoice.billing_period == NOVEMBER
    assert clock.now() - NOW == timedelta(seconds=60), "three looks, Retry-After apart"


def test_every_invoice_of_the_period_comes_with_its_rows(fetch: Callable[[Portal], BillDelivery]) -> None:
    portal = Portal()
    portal.invoices += [
        portal.invoice("E-MARKET", total=5, invoiceDate="2026-12-03T00:00:00Z", invoiceType="AzureMarketplace"),
        portal.invoice("E-WRONG", total=99, status="Void"),
        portal.invoice("C-WRONG", total=-99, documentType="CreditNote"),
        portal.invoice("E-YEAR", "2026-01-01", "2026-12-31", invoiceDate="2026-12-01T00:00:00Z"),
    ]
    delivery = fetch(portal)
    assert [one.invoice_id for one in delivery.invoices] == ["E-MARKET", "E-NOV"]
    assert [one["invoiceId"] for one in portal.asked] == ["E-MARKET", "E-NOV"]
    assert delivery.content == b"Cost\r\n1\r\n2\r\n1\r\n2\r\n"


def test_a_month_whose_only_invoice_was_voided_has_none(fetch: Callable[[Portal], BillDelivery]) -> None:
    portal = Portal()
    portal.invoices = [portal.invoice("E-WRONG", status="Void")]
    with pytest.raises(NotFound, match="2026-11-01"):
        fetch(portal)


def test_a_part_that_ends_within_its_last_line_keeps_that_row_apart(fetch: Callable[[Portal], BillDelivery]) -> None:
    portal = Portal()
    portal.parts[0] = b"Cost\r\n1"
    assert fetch(portal).content.split() == [b"Cost", b"1", b"2"]


def test_parts_with_different_columns_are_not_one_bill(fetch: Callable[[Portal], BillDelivery]) -> None:
    portal = Portal()
    portal.parts[1] = b"Price\r\n2\r\n"
    with pytest.raises(ProviderAnswerInvalid, match="different columns"):
        fetch(portal)


def test_no_invoice_yet(fetch: Callable[[Portal], BillDelivery]) -> None:
    portal = Portal()
    portal.invoices.pop()
    with pytest.raises(NotFound, match="2026-11-01"):
        fetch(portal)


def test_a_report_that_is_never_ready(fetch: Callable[[Portal], BillDelivery]) -> None:
    with pytest.raises(ProviderUnavailable):
        fetch(Portal(polls=1000))


def test_a_link_that_leads_away_is_not_followed_with_the_token(fetch: Callable[[Portal], BillDelivery]) -> None:
    portal = Portal()
    portal.link = "https://elsewhere.example.com/results"
    with pytest.raises(ProviderAnswerInvalid):
        fetch(portal)


def test_a_format_that_is_not_csv(fetch: Callable[[Portal], BillDelivery]) -> None:
    portal = Portal()
    portal.format = "Parquet"
    with pytest.raises(ProviderAnswerInvalid):
        fetch(portal)


def test_a_manifest_without_blobs(fetch: Callable[[Portal], BillDelivery]) -> None:
    portal = Portal()
    portal.parts = []
    with pytest.raises(ProviderAnswerInvalid):
        fetch(portal)
