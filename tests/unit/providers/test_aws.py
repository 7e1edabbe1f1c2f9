from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from engine.clock import ManualClock
from engine.errors import AuthenticationFailed, InsufficientCapacity, NotFound, ProviderAnswerInvalid, ProviderError
from engine.model.capacity import Resources
from engine.model.market import Offer, OfferQuery, PurchaseOption, Quote
from engine.model.value import Interval
from providers.aws import AwsProvider
from tests.unit.providers.aws_script import SETTINGS, ScriptedApi, document, instance_type

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ANYTHING = OfferQuery(at_least=Resources(vcpus=1, memory_gib=1))


def spot(price: str, *, kind: str = "m5.large", zone: str = "us-east-1a", age: float = 1) -> dict[str, Any]:
    at = NOW - timedelta(hours=age)
    return {"AvailabilityZone": zone, "InstanceType": kind, "SpotPrice": price, "Timestamp": at}


def script(**changes: Any) -> dict[str, Any]:
    offered = [{"InstanceType": "m5.large", "Location": f"us-east-1{zone}"} for zone in "ab"]
    return {
        "describe_instance_type_offerings": {"InstanceTypeOfferings": offered},
        "describe_instance_types": {"InstanceTypes": [instance_type("m5.large")]},
        "get_products": {"PriceList": [document("m5.large", {"USD": "0.096"})]},
        "describe_spot_price_history": {"SpotPriceHistory": [spot("0.04"), spot("0.05", age=5)]},
        "describe_availability_zones": {"AvailabilityZones": [{"ZoneName": "us-east-1a", "ZoneId": "use1-az6"}]},
        "get_spot_placement_scores": {"SpotPlacementScores": [score(9)]},
        **changes,
    }


def score(value: int) -> dict[str, Any]:
    return {"Region": "us-east-1", "AvailabilityZoneId": "use1-az6", "Score": value}


def provider_on(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> tuple[AwsProvider, ScriptedApi]:
    clock = ManualClock(NOW)
    api = ScriptedApi(script(**changes), clock)
    monkeypatch.setattr("providers.aws.AwsApi", lambda *_: api)
    return AwsProvider(SETTINGS, clock=clock), api


def by_option(offers: list[Offer], option: PurchaseOption) -> list[Offer]:
    return [offer for offer in offers if offer.option is option]


def ask(provider: AwsProvider, option: PurchaseOption) -> Quote:
    offer = by_option(list(provider.offers(ANYTHING)), option)[0]
    return provider.quote(offer, 1, Interval(start=NOW, end=NOW + timedelta(hours=1)))


def test_an_offer_carries_what_aws_said(monkeypatch: pytest.MonkeyPatch) -> None:
    provider, _ = provider_on(monkeypatch)
    offers = list(provider.offers(ANYTHING))
    assert [o.zone for o in by_option(offers, PurchaseOption.ON_DEMAND)] == ["us-east-1a", "us-east-1b"]
    (offer,) = by_option(offers, PurchaseOption.SPOT)
    assert offer.resources == Resources(vcpus=2, memory_gib=8, storage_iops=3600, network_mbps=750)
    assert offer.price.amount == Decimal("0.04")
    assert [point.price.amount for point in offer.price_history] == [Decimal("0.05"), Decimal("0.04")]
    assert offer.reliability.correlation_group == "aws/us-east-1/us-east-1a/m5"


def test_a_type_without_a_price_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    provider, _ = provider_on(
        monkeypatch, get_products={"PriceList": []}, describe_spot_price_history={"SpotPriceHistory": []}
    )
    assert list(provider.offers(ANYTHING)) == []


def test_a_spot_price_of_zero_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    provider, _ = provider_on(monkeypatch, describe_spot_price_history={"SpotPriceHistory": [spot("0.000000")]})
    assert by_option(list(provider.offers(ANYTHING)), PurchaseOption.SPOT) == []


def test_prices_of_unknown_types_and_zones_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    history = [spot("0.04"), spot("0.01", kind="z9.large"), spot("0.01", zone="us-east-1z")]
    listed = [document("m5.large", {"USD": "0.096"}), document("z9.large", {"USD": "0.001"})]
    provider, _ = provider_on(
        monkeypatch,
        describe_spot_price_history={"SpotPriceHistory": history},
        get_products={"PriceList": listed},
    )
    assert {offer.instance_type for offer in provider.offers(ANYTHING)} == {"m5.large"}


def test_a_type_that_is_not_sold_on_spot_has_no_spot_offer(monkeypatch: pytest.MonkeyPatch) -> None:
    only = instance_type("m5.large", SupportedUsageClasses=["on-demand"])
    provider, _ = provider_on(monkeypatch, describe_instance_types={"InstanceTypes": [only]})
    assert {offer.option for offer in provider.offers(ANYTHING)} == {PurchaseOption.ON_DEMAND}


@pytest.mark.parametrize(
    ("operation", "answer"),
    [
        ("describe_instance_type_offerings", {}),
        ("describe_instance_types", {"InstanceTypes": [{"InstanceType": "m5.large"}]}),
        ("get_products", {"PriceList": ["<html>"]}),
        ("describe_spot_price_history", {"SpotPriceHistory": [spot("free")]}),
        ("describe_spot_price_history", {"SpotPriceHistory": [spot("NaN")]}),
    ],
)
def test_an_answer_that_is_not_one_is_refused(
    monkeypatch: pytest.MonkeyPatch, operation: str, answer: dict[str, Any]
) -> None:
    provider, _ = provider_on(monkeypatch, **{operation: answer})
    with pytest.raises(ProviderAnswerInvalid):
        list(provider.offers(ANYTHING))


def test_types_are_asked_for_once_an_hour_and_prices_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    provider, api = provider_on(monkeypatch)
    for _ in range(3):
        list(provider.offers(ANYTHING))
    operations = [operation for operation, _ in api.calls]
    assert operations.count("describe_instance_types") == 1
    assert operations.count("get_products") == 3


def test_a_spot_quote_is_capped_by_the_list_price(monkeypatch: pytest.MonkeyPatch) -> None:
    provider, _ = provider_on(monkeypatch)
    quote = ask(provider, PurchaseOption.SPOT)
    assert (quote.unit_price.amount, quote.price_ceiling.amount) == (Decimal("0.04"), Decimal("0.096"))


def test_a_spot_price_over_the_list_price_is_its_own_ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    provider, _ = provider_on(monkeypatch, describe_spot_price_history={"SpotPriceHistory": [spot("0.12")]})
    quote = ask(provider, PurchaseOption.SPOT)
    assert quote.unit_price == quote.price_ceiling


def test_the_lowest_placement_score_means_no_capacity(monkeypatch: pytest.MonkeyPatch) -> None:
    provider, _ = provider_on(monkeypatch, get_spot_placement_scores={"SpotPlacementScores": [score(1)]})
    with pytest.raises(InsufficientCapacity, match="score 1"):
        ask(provider, PurchaseOption.SPOT)


@pytest.mark.parametrize("refusal", [ProviderError("MaxConfigLimitExceeded"), AuthenticationFailed("not allowed")])
def test_a_refused_placement_score_does_not_stop_a_quote(monkeypatch: pytest.MonkeyPatch, refusal: Exception) -> None:
    provider, _ = provider_on(monkeypatch, get_spot_placement_scores=refusal)
    assert ask(provider, PurchaseOption.SPOT).unit_price.amount == Decimal("0.04")


def test_a_zone_that_stopped_selling_has_no_capacity(monkeypatch: pytest.MonkeyPatch) -> None:
    provider, _ = provider_on(monkeypatch)
    offer = next(iter(provider.offers(ANYTHING))).model_copy(update={"zone": "us-east-1z"})
    with pytest.raises(InsufficientCapacity, match="us-east-1z"):
        provider.quote(offer, 1, Interval(start=NOW, end=NOW + timedelta(hours=1)))


def test_terminate_looks_in_every_region_and_is_content_when_nobody_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    provider, api = provider_on(monkeypatch, terminate_instances=NotFound("gone"))
    provider.terminate("i-0123")
    assert [operation for operation, _ in api.calls] == ["terminate_instances"]
