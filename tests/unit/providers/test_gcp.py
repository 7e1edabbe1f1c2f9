from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from engine.clock import ManualClock
from engine.errors import InsufficientCapacity
from engine.model.capacity import Resources
from engine.model.market import OfferQuery, PurchaseOption
from engine.model.value import Interval
from providers.base import ProviderSettings
from providers.gcp import GcpProvider

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
REGION, ZONE = "us-central1", "us-central1-a"
ROOT = "/compute/v1/projects/proj"
SMALL = OfferQuery(at_least=Resources(vcpus=1, memory_gib=1))
DAY = Interval(start=NOW, end=NOW.replace(day=24))


def sku(part: str, nanos: int, *, spot: bool = False) -> dict[str, Any]:
    prefix, usage = ("Spot Preemptible ", "Preemptible") if spot else ("", "OnDemand")
    rate = {"unitPrice": {"currencyCode": "USD", "units": "0", "nanos": nanos}}
    expression = {"usageUnit": "h" if part == "Core" else "GiBy.h", "tieredRates": [rate]}
    return {
        "skuId": f"{part}{spot}",
        "description": f"{prefix}E2 Instance {part} running in Americas",
        "category": {"resourceFamily": "Compute", "usageType": usage},
        "serviceRegions": [REGION],
        "pricingInfo": [{"effectiveTime": "2026-11-01T00:00:00Z", "pricingExpression": expression}],
    }


class Cloud:
    """Answers as Google does; the tests change what it says."""

    def __init__(self) -> None:
        self.seen: list[httpx.Request] = []
        self.skus = [sku("Core", 20_000_000), sku("Ram", 3_000_000)]
        self.spot_skus = [sku("Core", 6_000_000, spot=True), sku("Ram", 1_000_000, spot=True)]
        self.quotas = [{"metric": "CPUS", "limit": 24.0, "usage": 20.0}]
        self.instances: list[dict[str, Any]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        path = request.url.path
        if path.endswith("/skus"):
            page = {"skus": self.skus, "nextPageToken": "2"}
            return httpx.Response(200, json={"skus": self.spot_skus} if "pageToken" in request.url.params else page)
        if path == f"{ROOT}/regions/{REGION}":
            zones = [f"https://compute.example.com{ROOT}/zones/{ZONE}"]
            return httpx.Response(200, json={"name": REGION, "zones": zones, "quotas": self.quotas})
        if path == f"{ROOT}/zones/{ZONE}/machineTypes":
            types = [
                {"name": "e2-standard-2", "guestCpus": 2, "memoryMb": 8192},
                {"name": "e2-micro", "guestCpus": 2, "memoryMb": 1024, "isSharedCpu": True},
                {"name": "x9-huge-2", "guestCpus": 2, "memoryMb": 8192},
            ]
            return httpx.Response(200, json={"items": types})
        if path == f"{ROOT}/aggregated/instances":
            zones_with = {f"zones/{ZONE}": {"instances": self.instances}, "zones/other": {"warning": {}}}
            return httpx.Response(200, json={"items": zones_with})
        if request.method == "DELETE":
            return httpx.Response(200, json={"status": "RUNNING"})
        return httpx.Response(404, json={"error": {"code": 404, "message": "not here"}})


@pytest.fixture
def cloud() -> Cloud:
    return Cloud()


def provider(cloud: Cloud, now: datetime = NOW) -> GcpProvider:
    settings = ProviderSettings(
        name="g", kind="gcp", account="proj", regions=(REGION,), credentials={"access_token": SecretStr("t")}
    )
    return GcpProvider(settings, clock=ManualClock(now), transport=httpx.MockTransport(cloud))


def test_offers_of_known_families_at_both_options(cloud: Cloud) -> None:
    found = {offer.option: offer for offer in provider(cloud).offers(SMALL)}
    assert {offer.instance_type for offer in found.values()} == {"e2-standard-2"}
    assert found[PurchaseOption.ON_DEMAND].price.amount == Decimal("0.064")
    assert found[PurchaseOption.SPOT].price.amount == Decimal("0.020")
    vector = found[PurchaseOption.SPOT].resources
    assert vector == Resources(vcpus=2, memory_gib=8, storage_iops=15_000, network_mbps=4_000)
    assert found[PurchaseOption.SPOT].reliability.correlation_group == "g/us-central1/us-central1-a/e2"


def test_the_history_is_asked_for_within_one_month_of_los_angeles(cloud: Cloud) -> None:
    def span(now: datetime) -> tuple[str | None, str | None]:
        cloud.seen.clear()
        list(provider(cloud, now).offers(SMALL))
        params = next(request.url.params for request in cloud.seen if request.url.path.endswith("/skus"))
        return params.get("startTime"), params.get("endTime")

    assert span(NOW) == ("2026-11-22T12:00:00Z", "2026-11-23T12:00:00Z")
    assert span(datetime(2026, 12, 1, 12, tzinfo=UTC)) == ("2026-12-01T08:00:00Z", "2026-12-01T12:00:00Z")
    assert span(datetime(2026, 12, 1, 7, tzinfo=UTC)) == ("2026-11-30T07:00:00Z", "2026-12-01T07:00:00Z")
    assert span(datetime(2026, 12, 1, 8, 5, tzinfo=UTC)) == (None, None)


def test_a_quote_stands_for_a_while_under_the_list_price(cloud: Cloud) -> None:
    market = provider(cloud)
    for offer in market.offers(SMALL):
        quote = market.quote(offer, 2, DAY)
        assert quote.price_ceiling.amount == Decimal("0.064")
        assert quote.unit_price == offer.price
        assert quote.expires_at > NOW
        assert quote.survival == pytest.approx(0.9 if offer.option is PurchaseOption.SPOT else 1.0)


def test_a_quote_reads_the_quota(cloud: Cloud) -> None:
    market = provider(cloud)
    spot, listed = sorted(market.offers(SMALL), key=lambda offer: offer.price.amount)
    with pytest.raises(InsufficientCapacity, match="CPUS"):
        market.quote(listed, 3, DAY)
    cloud.quotas.append({"metric": "PREEMPTIBLE_CPUS", "limit": 100.0, "usage": 0.0})
    assert market.quote(spot, 3, DAY)
    cloud.quotas[-1]["limit"] = 0.0
    with pytest.raises(InsufficientCapacity, match="CPUS"):
        market.quote(spot, 3, DAY)


def test_spot_dearer_than_on_demand_is_no_capacity(cloud: Cloud) -> None:
    cloud.spot_skus = [sku("Core", 90_000_000, spot=True), sku("Ram", 1_000_000, spot=True)]
    market = provider(cloud)
    spot = next(offer for offer in market.offers(SMALL) if offer.option is PurchaseOption.SPOT)
    with pytest.raises(InsufficientCapacity, match="dearer"):
        market.quote(spot, 1, DAY)


def instance(**changes: Any) -> dict[str, Any]:
    return {
        "id": "42",
        "name": "n1",
        "zone": f"https://compute.example.com{ROOT}/zones/{ZONE}",
        "machineType": f"https://compute.example.com{ROOT}/zones/{ZONE}/machineTypes/e2-standard-2",
        "status": "RUNNING",
        "creationTimestamp": "2026-11-23T03:00:00.000-08:00",
        "labels": {"shardwright-node": "node-1", "shardwright-token": "shard-x"},
        **changes,
    }


def test_metadata_knows_names_better_than_labels(cloud: Cloud) -> None:
    exact = {
        "items": [{"key": "shardwright-node", "value": "Node.1"}, {"key": "shardwright-token", "value": "shard:x"}]
    }
    cloud.instances = [instance(metadata=exact), instance(id="43", status="STAGING")]
    first, second = provider(cloud).instances()
    assert (first.node, first.token, first.running) == ("Node.1", "shard:x", True)
    assert (second.node, second.token, second.running) == ("node-1", "shard-x", False)
    assert (first.zone, first.region, first.instance_type) == (ZONE, REGION, "e2-standard-2")
    assert first.launched_at == datetime(2026, 11, 23, 11, tzinfo=UTC)


def test_terminating_goes_by_number_so_that_a_namesake_is_safe(cloud: Cloud) -> None:
    cloud.instances = [instance()]
    market = provider(cloud)
    market.terminate("42")
    market.terminate("42")
    market.terminate("never-was")
    deletes = [request.url for request in cloud.seen if request.method == "DELETE"]
    assert {url.path for url in deletes} == {f"{ROOT}/zones/{ZONE}/instances/42"}
    assert len({url.params["requestId"] for url in deletes}) == 1
