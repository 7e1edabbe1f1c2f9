from datetime import UTC, datetime
from decimal import Decimal

import pytest

from engine.clock import ManualClock
from providers.sandbox.azure.catalog import REGIONS, post_prices
from providers.sandbox.azure.retail import PAGE, Filter, RetailPrices, resource_skus
from providers.sandbox.azure.wire import ArmError
from providers.sandbox.prices import PriceBoard

ITEM = {"serviceName": "Virtual Machines", "type": "Consumption", "meterName": "D2s v5 Spot", "armRegionName": "eastus"}
NOW = datetime(2026, 11, 23, tzinfo=UTC)


@pytest.fixture
def board() -> PriceBoard:
    made = PriceBoard(ManualClock(NOW))
    post_prices(made, tuple(REGIONS), 1)
    return made


@pytest.mark.parametrize(
    ("expression", "holds"),
    [
        ("", True),
        ("armRegionName eq 'eastus'", True),
        ("priceType eq 'Consumption' and serviceName eq 'Virtual Machines'", True),
        ("armRegionName eq 'westus' or contains(meterName, 'Spot')", True),
        ("armRegionName eq 'westus' and (priceType eq 'x' or priceType eq 'Consumption')", False),
        ("armRegionName ne 'eastus'", False),
        ("contains(meterName,'Low Priority')", False),
        ("serviceName eq 'it''s'", False),
    ],
)
def test_filters(expression: str, holds: bool) -> None:
    assert Filter(expression).holds(ITEM) is holds


@pytest.mark.parametrize("expression", ["armRegionName", "armRegionName eq", "(priceType eq 'x'", "a eq 'b' c", "€"])
def test_filters_that_are_none(expression: str) -> None:
    with pytest.raises(ArmError):
        Filter(expression).holds(ITEM)


def test_pages_lead_through_the_whole_list(board: PriceBoard) -> None:
    retail = RetailPrices(board, tuple(REGIONS))
    first = retail.page("", 0, "https://prices.example.com/api/retail/prices")
    assert first["Count"] == PAGE
    assert "%24skip=40" in first["NextPageLink"]
    rest = retail.page("", 80, "https://prices.example.com/api/retail/prices")
    assert (rest["Count"], rest["NextPageLink"]) == (10, None)


def test_prices_are_those_of_the_board(board: PriceBoard) -> None:
    wanted = "armSkuName eq 'Standard_D2s_v5' and armRegionName eq 'eastus' and priceType eq 'Consumption'"
    items = RetailPrices(board, tuple(REGIONS)).page(wanted, 0, "u")["Items"]
    by_meter = {(item["meterName"], "Windows" in item["productName"]): item["retailPrice"] for item in items}
    assert by_meter["D2s v5", False] == 0.096
    assert by_meter["D2s v5", True] > 0.096
    assert Decimal(str(by_meter["D2s v5 Spot", False])) == board.now(("eastus", "Standard_D2s_v5", "spot"))


def test_skus_tell_closed_zones() -> None:
    row = next(
        sku for sku in resource_skus(("eastus",)) if sku["name"] == "Standard_E4s_v5" and sku["locations"] == ["eastus"]
    )
    assert row["restrictions"][0]["restrictionInfo"]["zones"] == ["3"]
