"""What Azure sells in a region: VM sizes from the Resource SKUs API, with what that API leaves out.

vCPUs, memory and IOPS (``UncachedDiskIOPS``) are the API's. Network bandwidth is that of Microsoft's size pages ("Max
network bandwidth"), by series; sizes of other series are not offered. Spot eviction bands are Resource Graph's.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from math import nextafter

from engine.model.capacity import Resources
from providers.azure_wire import Sku


@dataclass(frozen=True)
class Series:
    network_mbps: tuple[tuple[int, int], ...]
    """(from this many vCPUs, Mbit/s)."""
    performance: float
    """Sustained single-vCPU score; 1.0 is a Skylake-SP or Cascade Lake core at about 3 GHz."""
    burst_baseline: float = 1.0
    """The share of a vCPU that a burstable size keeps up all day."""


_ICE_LAKE = Series(((2, 12_500), (32, 16_000)), 1.15)
SERIES = {
    "Dv5": _ICE_LAKE,
    "Dsv5": _ICE_LAKE,
    "Ddsv5": _ICE_LAKE,
    "Ev5": _ICE_LAKE,
    "Esv5": _ICE_LAKE,
    "Edsv5": _ICE_LAKE,
    "Dasv5": Series(((2, 12_500), (32, 16_000)), 1.15),  # Milan
    "Easv5": Series(((2, 12_500), (32, 16_000)), 1.15),
    "Fsv2": Series(((2, 5_000), (4, 10_000), (8, 12_500)), 1.0),  # Skylake or Cascade Lake
    "Bsv2": Series(((2, 6_250),), 1.15, 0.4),
    "Blsv2": Series(((2, 6_250),), 1.15, 0.3),
}

_NAME = re.compile(r"^Standard_(?P<letter>[A-Z])\d+(?P<features>[a-z]*)_v(?P<version>\d)$")

_LOST_PER_HOUR = {"0-5": 0.01, "5-10": 0.07, "10-15": 0.12, "15-20": 0.17, "20+": 0.25}
"""Azure states the probability of an eviction within the next hour as a band in %. The lowest band, which most sizes
are in, starts at nothing: a fifth of it is assumed. The others count near their middle."""


@dataclass(frozen=True)
class Size:
    """One VM size in one region."""

    name: str
    family: str
    """As quotas name it."""
    vcpus: int
    resources: Resources
    performance: float
    spot_capable: bool
    zones: tuple[str, ...]
    """Logical zones that this subscription may use; the region's name where the region has none."""

    @property
    def series(self) -> str:
        return series_of(self.name)


def series_of(name: str) -> str:
    """Standard_D4s_v5 -> Dsv5; "" for names of another shape."""
    match = _NAME.match(name)
    return f"{match['letter']}{match['features']}v{match['version']}" if match else ""


def sizes(skus: Iterable[Sku], region: str) -> dict[str, Size]:
    """x86-64 sizes of known series that may be used in the region; those closed to the subscription are left out."""
    found = {}
    for sku in skus:
        series = SERIES.get(series_of(sku.name))
        here = next((info for info in sku.location_info if info.location.lower() == region), None)
        closed_zones = {
            zone
            for restriction in sku.restrictions
            if restriction.type == "Zone"
            for zone in restriction.restriction_info.zones
        }
        closed = any(restriction.type == "Location" for restriction in sku.restrictions)
        if sku.resource_type != "virtualMachines" or series is None or here is None or closed:
            continue
        zones = tuple(sorted(set(here.zones) - closed_zones)) if here.zones else (region,)
        size = _size(sku, series, zones)
        if size is not None and zones:
            found[sku.name] = size
    return found


def _size(sku: Sku, series: Series, zones: tuple[str, ...]) -> Size | None:
    facts = {capability.name: capability.value for capability in sku.capabilities}
    try:
        vcpus = int(facts["vCPUs"])
        memory, iops = float(facts["MemoryGB"]), float(facts.get("UncachedDiskIOPS", "0"))
    except (KeyError, ValueError):
        return None
    if facts.get("CpuArchitectureType", "x64") != "x64" or vcpus <= 0 or memory <= 0:
        return None
    network = next((mbps for least, mbps in reversed(series.network_mbps) if vcpus >= least), 0)
    return Size(
        name=sku.name,
        family=sku.family,
        vcpus=vcpus,
        resources=Resources(vcpus=float(vcpus), memory_gib=memory, storage_iops=iops, network_mbps=float(network)),
        performance=series.performance * series.burst_baseline,
        spot_capable=facts.get("LowPriorityCapable", "False").lower() == "true",
        zones=zones,
    )


def lost_per_month(band: str) -> float | None:
    """From an eviction band such as ``5-10``; None for a band that Azure has not defined.

    A month is long for a rate per hour: from 5 % on next to nothing is left of it, and the share stops just short of
    1, which still leaves 30 % alive after a day.
    """
    hourly = _LOST_PER_HOUR.get(band)
    return None if hourly is None else min(1 - (1 - hourly) ** 730, nextafter(1.0, 0.0))
