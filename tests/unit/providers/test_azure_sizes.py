import json

import pytest

from engine.model.capacity import Resources
from providers.azure_sizes import lost_per_month, series_of, sizes
from providers.azure_wire import Sku


def sku(name: str = "Standard_D4s_v5", **changes: object) -> Sku:
    facts = {"vCPUs": "4", "MemoryGB": "16", "UncachedDiskIOPS": "6400", "LowPriorityCapable": "True"}
    facts |= changes.pop("facts", {})  # type: ignore[arg-type]
    document = {
        "resourceType": "virtualMachines",
        "name": name,
        "family": "standardDSv5Family",
        "locationInfo": [{"location": "eastus", "zones": ["3", "1", "2"]}],
        "capabilities": [{"name": key, "value": value} for key, value in facts.items()],
        "restrictions": [],
        **changes,
    }
    return Sku.model_validate_json(json.dumps(document))


def closed(kind: str, *zones: str) -> dict[str, object]:
    return {"restrictions": [{"type": kind, "restrictionInfo": {"zones": list(zones)}}]}


def test_a_size_has_the_whole_vector() -> None:
    found = sizes([sku()], "eastus")["Standard_D4s_v5"]
    assert found.resources == Resources(vcpus=4, memory_gib=16, storage_iops=6400, network_mbps=12_500)
    assert (found.zones, found.series, found.spot_capable) == (("1", "2", "3"), "Dsv5", True)


def test_burstable_sizes_count_with_what_they_keep_up() -> None:
    burstable = sizes([sku("Standard_B4s_v2")], "eastus")["Standard_B4s_v2"]
    steady = sizes([sku()], "eastus")["Standard_D4s_v5"]
    assert burstable.performance == pytest.approx(0.4 * steady.performance)


def test_closed_zones_and_regions() -> None:
    assert sizes([sku(**closed("Zone", "2"))], "eastus")["Standard_D4s_v5"].zones == ("1", "3")
    assert sizes([sku(**closed("Zone", "1", "2", "3"))], "eastus") == {}
    assert sizes([sku(**closed("Location"))], "eastus") == {}
    assert sizes([sku()], "westeurope") == {}


def test_a_region_without_zones_goes_by_its_name() -> None:
    zoneless = sku(locationInfo=[{"location": "eastus", "zones": []}])
    assert sizes([zoneless], "eastus")["Standard_D4s_v5"].zones == ("eastus",)


@pytest.mark.parametrize(
    "wrong",
    [
        sku(resourceType="disks"),
        sku("Standard_NC24ads_A100_v4"),
        sku("Standard_E4-2s_v5"),
        sku(facts={"CpuArchitectureType": "Arm64"}),
        sku(facts={"vCPUs": "many"}),
        sku(capabilities=[]),
    ],
)
def test_what_is_not_offered(wrong: Sku) -> None:
    assert sizes([wrong], "eastus") == {}


def test_series() -> None:
    names = ("Standard_D4s_v5", "Standard_F2s_v2", "Standard_B2ls_v2", "Basic_A0")
    assert [series_of(name) for name in names] == ["Dsv5", "Fsv2", "Blsv2", ""]


def test_eviction_bands_rise_and_unknown_ones_say_nothing() -> None:
    lost = [lost_per_month(band) for band in ("0-5", "5-10", "10-15", "15-20", "20+")]
    assert lost == sorted(lost, key=lambda share: share or 0)
    assert all(share is not None and 0 < share <= 1 for share in lost)
    assert lost_per_month("rare") is None
