import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from engine.clock import ManualClock
from engine.errors import ProviderAnswerInvalid, ProviderUnavailable
from engine.model.market import PurchaseOption
from providers.azure_api import AzureApi
from providers.azure_prices import eviction_per_month, hourly_prices, spot_history
from providers.base import ProviderSettings

NOW = datetime(2026, 11, 23, tzinfo=UTC)
ITEM = {
    "currencyCode": "USD",
    "tierMinimumUnits": 0.0,
    "retailPrice": 0.096,
    "armRegionName": "eastus",
    "effectiveStartDate": "2026-01-01T00:00:00Z",
    "meterName": "D2s v5",
    "productName": "Virtual Machines Dsv5 Series",
    "skuName": "D2s v5",
    "unitOfMeasure": "1 Hour",
    "type": "Consumption",
    "armSkuName": "Standard_D2s_v5",
}
Handler = Callable[[httpx.Request], httpx.Response]


def api(handle: Handler) -> AzureApi:
    names = ("tenant_id", "client_id", "client_secret")
    settings = ProviderSettings(
        name="a",
        kind="azure",
        account="sub",
        regions=("eastus",),
        credentials={name: SecretStr(name) for name in names},
    )

    def with_token(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/token"):
            return httpx.Response(200, json={"access_token": "t", "expires_in": 3600})
        return handle(request)

    return AzureApi(settings, ManualClock(NOW), transport=httpx.MockTransport(with_token))


def listing(*items: dict[str, Any]) -> Handler:
    return lambda _: httpx.Response(200, json={"Items": list(items), "NextPageLink": None, "Count": len(items)})


def test_linux_by_the_hour() -> None:
    spot = {**ITEM, "skuName": "D2s v5 Spot", "meterName": "D2s v5 Spot", "retailPrice": 0.020362}
    assert hourly_prices(api(listing(ITEM, spot)), "eastus", NOW) == {
        ("Standard_D2s_v5", PurchaseOption.ON_DEMAND): Decimal("0.096"),
        ("Standard_D2s_v5", PurchaseOption.SPOT): Decimal("0.020362"),
    }


@pytest.mark.parametrize(
    "change",
    [
        {"productName": "Virtual Machines Dsv5 Series Windows"},
        {"productName": "Dsv5 Series Cloud Services"},
        {"skuName": "D2s v5 Low Priority"},
        {"type": "Reservation"},
        {"type": "DevTestConsumption"},
        {"unitOfMeasure": "100 Hours"},
        {"currencyCode": "EUR"},
        {"retailPrice": 0.0},
        {"armSkuName": ""},
        {"armRegionName": "westeurope"},
        {"effectiveStartDate": "2027-01-01T00:00:00Z"},
        {"tierMinimumUnits": 100.0},
    ],
)
def test_what_is_something_else(change: dict[str, Any]) -> None:
    assert hourly_prices(api(listing({**ITEM, **change})), "eastus", NOW) == {}


def test_the_price_in_force_is_the_newest() -> None:
    newer = {**ITEM, "retailPrice": 0.1, "effectiveStartDate": "2026-11-01T00:00:00Z"}
    prices = hourly_prices(api(listing(newer, ITEM)), "eastus", NOW)
    assert prices["Standard_D2s_v5", PurchaseOption.ON_DEMAND] == Decimal("0.1")


def test_pages_are_turned_at_home_only() -> None:
    def paged(next_link: str) -> Handler:
        def handle(request: httpx.Request) -> httpx.Response:
            if "$skip" in request.url.params:
                return httpx.Response(200, json={"Items": [{**ITEM, "armSkuName": "Standard_D4s_v5"}]})
            return httpx.Response(200, json={"Items": [ITEM], "NextPageLink": next_link})

        return handle

    home = "https://prices.azure.com:443/api/retail/prices?$skip=100"
    assert len(hourly_prices(api(paged(home)), "eastus", NOW)) == 2
    with pytest.raises(ProviderAnswerInvalid):
        hourly_prices(api(paged("https://elsewhere.example.com/prices?$skip=100")), "eastus", NOW)


def test_the_token_stays_away_from_the_public_list() -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        assert "Authorization" not in request.headers
        return httpx.Response(200, json={"Items": [ITEM]})

    assert hourly_prices(api(handle), "eastus", NOW)


def test_spot_history_is_oldest_first() -> None:
    points = [
        {"effectiveDate": "2026-11-02T00:00:00Z", "priceUSD": 0.02},
        {"effectiveDate": "2026-11-01T00:00:00Z", "priceUSD": 0.03},
        {"effectiveDate": "2026-10-01T00:00:00Z", "priceUSD": 0.0},
    ]
    row = {"skuName": "standard_d2s_v5", "location": "eastus", "osType": "linux", "spotPrices": points}

    def handle(request: httpx.Request) -> httpx.Response:
        assert b"'eastus'" in request.content
        return httpx.Response(200, json={"data": [row]})

    history = spot_history(api(handle), "sub", ["eastus"])
    assert [price for _, price in history["eastus", "standard_d2s_v5"]] == [Decimal("0.03"), Decimal("0.02")]


def test_without_leave_to_ask_resource_graph_nothing_is_known() -> None:
    def refused(_: httpx.Request) -> httpx.Response:
        return httpx.Response(403, json={"error": {"code": "AuthorizationFailed", "message": "no"}})

    assert spot_history(api(refused), "sub", ["eastus"]) == {}
    assert eviction_per_month(api(refused), "sub", ["eastus"]) == {}
    with pytest.raises(ProviderUnavailable):
        spot_history(api(lambda _: httpx.Response(503)), "sub", ["eastus"])


def test_eviction_rates() -> None:
    rows = [
        {"skuName": "standard_d2s_v5", "location": "eastus", "spotEvictionRate": "20+"},
        {"skuName": "standard_d4s_v5", "location": "eastus", "spotEvictionRate": "?"},
    ]
    lost = eviction_per_month(api(lambda _: httpx.Response(200, json={"data": rows})), "sub", ["eastus"])
    assert list(lost) == [("eastus", "standard_d2s_v5")]


def graph(pages: list[dict[str, Any]], bodies: list[dict[str, Any]]) -> Handler:
    """Answers with one after the other, the last for ever."""

    def handle(request: httpx.Request) -> httpx.Response:
        bodies.append(json.loads(request.content))
        return httpx.Response(200, json=pages[min(len(bodies), len(pages)) - 1])

    return handle


def rated(size: str, **more: str) -> dict[str, Any]:
    row = {"id": size, "skuName": size, "location": "eastus", "spotEvictionRate": "20+"}
    return {"totalRecords": 2, "count": 1, "resultTruncated": "false", "data": [row], **more}


def test_resource_graph_is_read_to_its_last_page() -> None:
    bodies: list[dict[str, Any]] = []
    lost = eviction_per_month(api(graph([rated("a", **{"$skipToken": "t"}), rated("b")], bodies)), "sub", ["eastus"])
    assert set(lost) == {("eastus", "a"), ("eastus", "b")}
    assert [body["options"] for body in bodies] == [
        {"resultFormat": "objectArray", "$top": 1000},
        {"resultFormat": "objectArray", "$top": 1000, "$skipToken": "t"},
    ]
    assert bodies[0]["query"] == bodies[1]["query"]

    point = {"effectiveDate": "2026-11-02T00:00:00Z", "priceUSD": 0.02}
    pages = [
        {"data": [{"skuName": "a", "location": "eastus", "spotPrices": [point]}], "$skipToken": "t"},
        {"data": [{"skuName": "b", "location": "eastus", "spotPrices": [point]}]},
    ]
    assert set(spot_history(api(graph(pages, [])), "sub", ["eastus"])) == {("eastus", "a"), ("eastus", "b")}


@pytest.mark.parametrize("asked", [spot_history, eviction_per_month])
def test_a_query_that_is_to_be_paged_is_sorted_by_the_id_it_projects(asked: Callable[..., object]) -> None:
    bodies: list[dict[str, Any]] = []
    asked(api(graph([{"data": []}], bodies)), "sub", ["eastus"])
    assert "| project id, " in bodies[0]["query"]
    assert bodies[0]["query"].endswith("| order by id asc")


def test_rows_that_are_kept_back_are_not_taken_for_none() -> None:
    with pytest.raises(ProviderAnswerInvalid, match="keeps rows back"):
        eviction_per_month(api(graph([rated("a", resultTruncated="true")], [])), "sub", ["eastus"])
    with pytest.raises(ProviderAnswerInvalid, match="does not stop paging"):
        eviction_per_month(api(graph([rated("a", **{"$skipToken": "t"})], [])), "sub", ["eastus"])
