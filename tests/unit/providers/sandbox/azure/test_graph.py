from datetime import UTC, datetime

import pytest

from engine.clock import ManualClock
from providers.sandbox.azure.catalog import REGIONS, SIZES, post_prices
from providers.sandbox.azure.graph import ROWS, resources, spot_resources
from providers.sandbox.azure.wire import ArmError, Document
from providers.sandbox.prices import PriceBoard

NOW = datetime(2026, 11, 23, tzinfo=UTC)
EVICTIONS = "SpotResources | where type =~ 'microsoft.compute/skuspotevictionrate/location'"
SPOT = sum(size.spot_capable for size in SIZES.values())


@pytest.fixture
def board() -> PriceBoard:
    made = PriceBoard(ManualClock(NOW))
    post_prices(made, tuple(REGIONS), 1)
    return made


def asked(board: PriceBoard, query: str, **options: object) -> Document:
    return resources({"query": query, "options": options}, board, tuple(REGIONS), ManualClock(NOW))


def turned(board: PriceBoard, query: str, top: int = 1000) -> list[str]:
    """The ids of all pages."""
    page = asked(board, query, **{"$top": top})
    ids = [row["id"] for row in page["data"]]
    while "$skipToken" in page:
        page = asked(board, query, **{"$top": top, "$skipToken": page["$skipToken"]})
        ids += [row["id"] for row in page["data"]]
    return ids


def test_spot_resources_answer_by_type_and_location(board: PriceBoard) -> None:
    clock = ManualClock(NOW)
    found = spot_resources(f"{EVICTIONS} | where location in~ ('eastus')", board, tuple(REGIONS), clock)
    assert {row["location"] for row in found} == {"eastus"}
    assert len(found) == SPOT
    assert spot_resources("Resources", board, tuple(REGIONS), clock) == []


@pytest.mark.parametrize("top", [3, ROWS, 1000])
def test_pages_lead_through_all_rows_in_order(board: PriceBoard, top: int) -> None:
    query = f"{EVICTIONS} | project id, skuName | order by id asc"
    first = asked(board, query, **{"$top": top})
    assert (first["totalRecords"], first["count"]) == (SPOT * len(REGIONS), min(top, ROWS))
    ids = turned(board, query, top)
    assert ids == sorted(set(ids))
    assert len(ids) == SPOT * len(REGIONS)


def test_without_an_order_pages_repeat_rows(board: PriceBoard) -> None:
    ids = turned(board, f"{EVICTIONS} | project id, skuName")
    assert len(set(ids)) < len(ids) == SPOT * len(REGIONS)


def test_without_the_id_there_is_no_second_page(board: PriceBoard) -> None:
    page = asked(board, f"{EVICTIONS} | project skuName")
    assert (page["count"], page["resultTruncated"], "$skipToken" in page) == (ROWS, "true", False)


@pytest.mark.parametrize("options", [{"$top": 0}, {"$top": 1001}, {"$top": "9"}, {"$skipToken": "x"}])
def test_options_that_are_none(board: PriceBoard, options: dict[str, object]) -> None:
    with pytest.raises(ArmError):
        asked(board, EVICTIONS, **options)
