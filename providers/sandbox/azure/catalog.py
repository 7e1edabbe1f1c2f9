"""What the sandbox's Azure sells: regions, VM sizes with their capabilities, and prices.

Prices are Microsoft's published retail ones for Linux (USD per hour, 2026); spot prices walk around the published spot
price of the same region. Capabilities are those the Resource SKUs API lists for the sizes.
"""

from dataclasses import dataclass
from decimal import Decimal
from uuid import NAMESPACE_URL, uuid5

from engine.model.market import PurchaseOption
from providers.sandbox.prices import PriceBoard, PriceKey, Walk

ZONES = ("1", "2", "3")
REGIONS = {"eastus": "US East", "westeurope": "EU West"}
"""Region -> the name that meters and the price list call it by."""

CORES_QUOTA = 64


@dataclass(frozen=True)
class VmSize:
    name: str
    """E.g. Standard_D2s_v5."""
    vcpus: int
    memory_gib: int
    iops: int
    """UncachedDiskIOPS."""
    family: str
    """As quotas name it, e.g. standardDSv5Family."""
    series: str
    """As meters name it, e.g. Dsv5."""
    prices: tuple[tuple[str, str, str], ...]
    """(region, on demand, spot or "") per hour."""
    eviction_rate: str = "0-5"
    """The band that Resource Graph's SpotResources table states, in % per hour."""

    @property
    def spot_capable(self) -> bool:
        return any(spot for _, _, spot in self.prices)

    @property
    def meter_name(self) -> str:
        return self.name.removeprefix("Standard_").replace("_", " ")

    def key(self, region: str, option: PurchaseOption) -> PriceKey:
        return (region, self.name, option.value)

    def meter_id(self, region: str, option: str) -> str:
        return str(uuid5(NAMESPACE_URL, f"meter/{region}/{self.name}/{option}"))


def _size(name: str, shape: tuple[int, int, int], names: tuple[str, str], eastus: str, westeurope: str) -> VmSize:
    """``eastus`` and ``westeurope`` read "on demand/spot"; no spot price: not sold as spot."""
    prices = []
    for region, both in (("eastus", eastus), ("westeurope", westeurope)):
        on_demand, _, spot = both.partition("/")
        prices.append((region, on_demand, spot))
    vcpus, memory, iops = shape
    rate = {"B": "0-5", "D": "0-5", "E": "5-10", "F": "10-15"}[names[1][0]]
    return VmSize(name, vcpus, memory, iops, names[0], names[1], tuple(prices), rate)


_DSV5, _DASV5, _ESV5 = ("standardDSv5Family", "Dsv5"), ("standardDASv5Family", "Dasv5"), ("standardESv5Family", "Esv5")
_BSV2, _FSV2 = ("standardBsv2Family", "Bsv2"), ("standardFSv2Family", "FSv2")

SIZES = {
    size.name: size
    for size in (
        _size("Standard_B2ls_v2", (2, 4, 3750), _BSV2, "0.0416", "0.048"),
        _size("Standard_B2s_v2", (2, 8, 3750), _BSV2, "0.0832", "0.096"),
        _size("Standard_B4s_v2", (4, 16, 6400), _BSV2, "0.166", "0.192"),
        _size("Standard_D2as_v5", (2, 8, 3750), _DASV5, "0.086/0.018705", "0.104/0.019219"),
        _size("Standard_D4as_v5", (4, 16, 6400), _DASV5, "0.172/0.03741", "0.208/0.038438"),
        _size("Standard_D2s_v5", (2, 8, 3750), _DSV5, "0.096/0.020362", "0.115/0.021252"),
        _size("Standard_D4s_v5", (4, 16, 6400), _DSV5, "0.192/0.040723", "0.23/0.042504"),
        _size("Standard_D8s_v5", (8, 32, 12800), _DSV5, "0.384/0.081446", "0.46/0.085008"),
        _size("Standard_E2s_v5", (2, 16, 3750), _ESV5, "0.126/0.028325", "0.152/0.02809"),
        _size("Standard_E4s_v5", (4, 32, 6400), _ESV5, "0.252/0.05665", "0.304/0.056179"),
        _size("Standard_F2s_v2", (2, 4, 3200), _FSV2, "0.0846/0.023586", "0.097/0.017926"),
        _size("Standard_F4s_v2", (4, 8, 6400), _FSV2, "0.169/0.047117", "0.194/0.035851"),
    )
}

RESTRICTED_ZONES = {("eastus", "Standard_E4s_v5"): ("3",)}
"""Sold in the region, but not to this subscription in these zones, as happens to real ones."""


def post_prices(board: PriceBoard, regions: tuple[str, ...], seed: int) -> None:
    for size in SIZES.values():
        for region, on_demand, spot in size.prices:
            if region not in regions:
                continue
            board.post(size.key(region, PurchaseOption.ON_DEMAND), Decimal(on_demand))
            if spot:
                walk = Walk(base=Decimal(spot), seed=f"{seed}/{region}/{size.name}", ceiling=Decimal(on_demand))
                board.start_walk(size.key(region, PurchaseOption.SPOT), walk)
