import json
from datetime import UTC, datetime
from decimal import Decimal

from engine.model.market import PurchaseOption
from providers.gcp_prices import price_table
from providers.gcp_wire import Sku, Skus

REGION = "us-central1"
MORNING, NOON = datetime(2026, 11, 23, 6, tzinfo=UTC), datetime(2026, 11, 23, 12, tzinfo=UTC)


def sku(description: str, usage: str, unit: str, *prices: tuple[datetime, str], currency: str = "USD") -> Sku:
    infos = []
    for at, price in prices:
        units, nanos = divmod(int(Decimal(price) * 10**9), 10**9)
        rate = {"unitPrice": {"currencyCode": currency, "units": str(units), "nanos": nanos}}
        infos.append({"effectiveTime": at.isoformat(), "pricingExpression": {"usageUnit": unit, "tieredRates": [rate]}})
    document = {
        "skuId": "1",
        "description": description,
        "category": {"resourceFamily": "Compute", "usageType": usage},
        "serviceRegions": [REGION],
        "pricingInfo": infos,
    }
    return Skus.model_validate_json(json.dumps({"skus": [document]})).skus[0]


def core(price: str = "0.02", family: str = "E2", at: datetime = MORNING) -> Sku:
    return sku(f"{family} Instance Core running in Americas", "OnDemand", "h", (at, price))


def ram(price: str = "0.003", family: str = "E2", at: datetime = MORNING) -> Sku:
    return sku(f"{family} Instance Ram running in Americas", "OnDemand", "GiBy.h", (at, price))


def test_a_machine_costs_cores_and_memory() -> None:
    table = price_table([core(), ram()], [REGION])
    family = table[REGION, "e2", PurchaseOption.ON_DEMAND]
    assert family.of(2, Decimal("8")) == [(MORNING, Decimal("0.064"))]


def test_a_dollar_and_more_reads_units_and_nanos() -> None:
    table = price_table([core("1.25"), ram()], [REGION])
    assert table[REGION, "e2", PurchaseOption.ON_DEMAND].of(1, Decimal(0)) == [(MORNING, Decimal("1.25"))]


def test_spot_is_told_by_description_and_usage_type() -> None:
    spot = [
        sku("Spot Preemptible N2D AMD Instance Core running in Iowa", "Preemptible", "h", (MORNING, "0.006")),
        sku("Spot Preemptible N2D AMD Instance Ram running in Iowa", "Preemptible", "GiBy.h", (MORNING, "0.001")),
    ]
    assert list(price_table(spot, [REGION])) == [(REGION, "n2d", PurchaseOption.SPOT)]


def test_every_change_of_either_part_is_a_change_of_the_price() -> None:
    cores = sku("E2 Instance Core running in Americas", "OnDemand", "h", (NOON, "0.03"), (MORNING, "0.02"))
    table = price_table([cores, ram(at=MORNING)], [REGION])
    assert table[REGION, "e2", PurchaseOption.ON_DEMAND].of(1, Decimal(1)) == [
        (MORNING, Decimal("0.023")),
        (NOON, Decimal("0.033")),
    ]


def test_what_is_not_sold_by_the_hour_is_left_aside() -> None:
    others = [
        sku("E2 Custom Instance Core running in Americas", "OnDemand", "h", (MORNING, "0.02")),
        sku("Commitment v1: E2 Cpu in Americas for 1 Year", "Commit1Yr", "h", (MORNING, "0.01")),
        sku("E2 Sole Tenancy Instance Ram running in Americas", "OnDemand", "GiBy.h", (MORNING, "0.003")),
        sku("Spot Preemptible E2 Instance Core running in Americas", "OnDemand", "h", (MORNING, "0.003")),
    ]
    assert price_table(others, [REGION]) == {}


def test_a_family_needs_both_parts_priced_in_dollars_above_zero() -> None:
    assert price_table([core()], [REGION]) == {}
    assert price_table([core("0"), ram()], [REGION]) == {}
    euros = sku("E2 Instance Ram running in Americas", "OnDemand", "GiBy.h", (MORNING, "0.003"), currency="EUR")
    assert price_table([core(), euros], [REGION]) == {}
    by_the_second = sku("E2 Instance Ram running in Americas", "OnDemand", "GiBy.s", (MORNING, "0.003"))
    assert price_table([core(), by_the_second], [REGION]) == {}
    assert price_table([core(), ram()], ["europe-west1"]) == {}
