from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from engine.clock import ManualClock
from engine.errors import AuthenticationFailed, InsufficientCapacity, ProviderAnswerInvalid
from engine.model.capacity import Resources
from engine.model.market import OfferQuery, PurchaseOption
from engine.model.money import usd
from engine.model.value import Interval
from providers.azure import AzureProvider
from providers.base import ProviderSettings

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
DAY = Interval(start=NOW, end=NOW.replace(day=24))
SMALL = OfferQuery(at_least=Resources(vcpus=1, memory_gib=1))
NAMES = ("tenant_id", "client_id", "client_secret")


def price(amount: float, kind: str = "") -> dict[str, Any]:
    return {
        "currencyCode": "USD",
        "retailPrice": amount,
        "armRegionName": "eastus",
        "effectiveStartDate": "2026-01-01T00:00:00Z",
        "skuName": f"D2s v5{kind}",
        "unitOfMeasure": "1 Hour",
        "type": "Consumption",
        "armSkuName": "Standard_D2s_v5",
    }


def machine(name: str, location: str = "eastus", **tags: str) -> dict[str, Any]:
    return {
        "id": f"/subscriptions/sub/resourceGroups/G/providers/Microsoft.Compute/virtualMachines/{name}",
        "location": location,
        "zones": ["2"],
        "tags": tags,
        "properties": {
            "vmId": f"guid-{name}",
            "hardwareProfile": {"vmSize": "Standard_D2s_v5"},
            "timeCreated": "2026-11-23T11:00:00.1234567+00:00",
        },
    }


class Cloud:
    """Answers as Azure does; the tests change what it says."""

    def __init__(self) -> None:
        self.seen: list[httpx.Request] = []
        self.prices = [price(0.096), price(0.02, " Spot")]
        self.machines = [machine("n1", **{"shardwright-node": "n1", "shardwright-token": "shard:x"}), machine("other")]
        self.eviction, self.used = "0-5", 0
        self.next_link: str | None = None

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        path, params = request.url.path, request.url.params
        if path.endswith("/token"):
            return httpx.Response(200, json={"access_token": "t", "expires_in": 3600})
        if path.endswith("/skus"):
            facts = {"vCPUs": "2", "MemoryGB": "8", "UncachedDiskIOPS": "3750", "LowPriorityCapable": "True"}
            sku = {
                "resourceType": "virtualMachines",
                "name": "Standard_D2s_v5",
                "family": "standardDSv5Family",
                "locationInfo": [{"location": "eastus", "zones": ["1", "2"]}],
                "capabilities": [{"name": key, "value": value} for key, value in facts.items()],
            }
            return httpx.Response(200, json={"value": [sku], "nextLink": self.next_link})
        if path.endswith("/prices"):
            return httpx.Response(200, json={"Items": self.prices})
        if path.endswith("/resources"):
            row = {"skuName": "standard_d2s_v5", "location": "eastus", "spotEvictionRate": self.eviction}
            return httpx.Response(200, json={"data": [{**row, "spotPrices": []}]})
        if path.endswith("/usages"):
            usage = {"currentValue": self.used, "limit": 10, "name": {"value": "lowPriorityCores"}}
            return httpx.Response(200, json={"value": [usage]})
        if path.endswith("/virtualMachines"):
            if "statusOnly" in params:
                statuses = [{"code": "ProvisioningState/succeeded"}, {"code": "PowerState/running"}]
                view = {"instanceView": {"statuses": statuses}}
                value = [{"id": self.machines[0]["id"].upper(), "properties": view}]
                return httpx.Response(200, json={"value": value})
            return httpx.Response(200, json={"value": self.machines})
        return httpx.Response(204)


@pytest.fixture
def cloud() -> Cloud:
    return Cloud()


def provider(cloud: Cloud, **credentials: str) -> AzureProvider:
    given = credentials or {name: name for name in NAMES}
    settings = ProviderSettings(
        name="a",
        kind="azure",
        account="sub",
        regions=("eastus",),
        credentials={name: SecretStr(value) for name, value in given.items()},
    )
    return AzureProvider(settings, clock=ManualClock(NOW), transport=httpx.MockTransport(cloud))


def test_offers_per_zone_and_option(cloud: Cloud) -> None:
    found = list(provider(cloud).offers(SMALL))
    assert {(offer.zone, offer.option) for offer in found} == {
        (zone, option) for zone in ("1", "2") for option in (PurchaseOption.ON_DEMAND, PurchaseOption.SPOT)
    }
    spot = next(offer for offer in found if offer.option is PurchaseOption.SPOT)
    assert spot.resources == Resources(vcpus=2, memory_gib=8, storage_iops=3750, network_mbps=12_500)
    assert spot.price == usd("0.02")
    assert spot.reliability.correlation_group == "a/eastus/1/Dsv5"


def test_survival_follows_from_the_eviction_rate(cloud: Cloud) -> None:
    def survival() -> float:
        market = provider(cloud)
        spot = next(offer for offer in market.offers(SMALL) if offer.option is PurchaseOption.SPOT)
        return market.quote(spot, 1, DAY).survival

    calm = survival()
    cloud.eviction = "5-10"
    assert 0 < survival() < calm == pytest.approx(0.99**24, rel=1e-6)


def test_a_quote_reads_the_quota(cloud: Cloud) -> None:
    market = provider(cloud)
    spot = next(offer for offer in market.offers(SMALL) if offer.option is PurchaseOption.SPOT)
    assert market.quote(spot, 5, DAY).price_ceiling == usd("0.096")
    cloud.used = 1
    with pytest.raises(InsufficientCapacity, match="lowPriorityCores"):
        market.quote(spot, 5, DAY)


def test_a_size_that_has_gone_is_no_capacity(cloud: Cloud) -> None:
    market = provider(cloud)
    offer = next(iter(market.offers(SMALL)))
    with pytest.raises(InsufficientCapacity):
        market.quote(offer.model_copy(update={"zone": "3"}), 1, DAY)
    cloud.prices = []
    with pytest.raises(InsufficientCapacity):
        market.quote(offer, 1, DAY)


def test_inventory_is_what_carries_our_tag(cloud: Cloud) -> None:
    cloud.machines.append(machine("far", location="westus", **{"shardwright-node": "far"}))
    (record,) = provider(cloud).instances()
    assert (record.instance_id, record.node, record.token, record.zone) == ("guid-n1", "n1", "shard:x", "2")
    assert record.running, "ids are the same whatever their case"


@pytest.mark.parametrize("known_as", ["guid-n1", "n1", "/subscriptions/sub/resourceGroups/G/providers/x/y/n1"])
def test_terminating_by_whatever_it_is_known_as(cloud: Cloud, known_as: str) -> None:
    provider(cloud).terminate(known_as)
    (deleted,) = [request.url.path for request in cloud.seen if request.method == "DELETE"]
    assert deleted.endswith("/n1")


def test_terminating_what_never_was(cloud: Cloud) -> None:
    provider(cloud).terminate("guid-nobody")
    provider(cloud).terminate("guid-other")
    assert not [request for request in cloud.seen if request.method == "DELETE"], "without our tag it is not ours"


@pytest.mark.parametrize("missing", NAMES)
def test_every_credential_is_needed(cloud: Cloud, missing: str) -> None:
    given = {name: name for name in NAMES if name != missing}
    with pytest.raises(AuthenticationFailed, match=missing):
        list(provider(cloud, **given).offers(SMALL))


def test_a_page_that_leads_away_from_arm_is_not_followed(cloud: Cloud) -> None:
    cloud.next_link = "https://elsewhere.example.com/skus?page=2"
    with pytest.raises(ProviderAnswerInvalid, match="elsewhere"):
        list(provider(cloud).offers(SMALL))
    assert all(request.url.host != "elsewhere.example.com" for request in cloud.seen)
