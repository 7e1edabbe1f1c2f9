"""What the sandbox's Google Cloud sells: regions, machine types, and the SKUs they are priced by.

List prices are Google's published ones (USD per vCPU-hour and per GiB-hour, 2026); spot prices walk around the
published spot price of the same region and never rise above the list price, as Google promises.
"""

import hashlib
from dataclasses import dataclass
from decimal import Decimal

from engine.model.market import PurchaseOption
from providers.sandbox.prices import PriceBoard, PriceKey, Walk

COMPUTE_ENGINE = "6F81-5844-456A"
"""The catalogue's id of the service Compute Engine."""

ZONES = {
    "us-central1": ("us-central1-a", "us-central1-b", "us-central1-c"),
    "europe-west1": ("europe-west1-b", "europe-west1-c", "europe-west1-d"),
}
PLACE_NAMES = {"us-central1": "Americas", "europe-west1": "EMEA"}
COUNTRIES = {"us-central1": "US", "europe-west1": "BE"}

_PRICES: dict[tuple[str, str], tuple[str, str, str, str]] = {
    # (region, family): vCPU on demand, GiB on demand, vCPU spot, GiB spot
    ("us-central1", "e2"): ("0.02181159", "0.00292353", "0.010906", "0.001462"),
    ("us-central1", "n2"): ("0.031611", "0.004237", "0.01023", "0.00137"),
    ("us-central1", "c3"): ("0.03465", "0.003938", "0.00539", "0.000721"),
    ("europe-west1", "e2"): ("0.02399275", "0.00321588", "0.01008", "0.001348"),
    ("europe-west1", "n2"): ("0.034775", "0.00466", "0.00575", "0.00077"),
    ("europe-west1", "c3"): ("0.038153", "0.004336", "0.0124", "0.001434"),
}

SUSTAINED_USE_FAMILIES = ("n2",)
"""Families that earn sustained use discounts; E2 and C3 do not."""


@dataclass(frozen=True)
class MachineType:
    name: str
    vcpus: int
    memory_mib: int
    billed_vcpus: Decimal
    """What the Core SKU counts; less than ``vcpus`` for shared-core types."""

    @property
    def family(self) -> str:
        return self.name.partition("-")[0]

    @property
    def shared_core(self) -> bool:
        return self.billed_vcpus != self.vcpus

    @property
    def billed_gib(self) -> Decimal:
        return Decimal(self.memory_mib) / 1024


def _machine_types() -> dict[str, MachineType]:
    shapes = {
        "e2": ({"standard": 4, "highmem": 8, "highcpu": 1}, (2, 4, 8)),
        "n2": ({"standard": 4, "highmem": 8, "highcpu": 1}, (2, 4, 8)),
        "c3": ({"standard": 4, "highmem": 8, "highcpu": 2}, (4, 8)),
    }
    types = [
        MachineType("e2-small", 2, 2048, Decimal("0.5")),
        MachineType("e2-medium", 2, 4096, Decimal(1)),
        *(
            MachineType(f"{family}-{shape}-{vcpus}", vcpus, vcpus * gib * 1024, Decimal(vcpus))
            for family, (memory, sizes) in shapes.items()
            for shape, gib in memory.items()
            for vcpus in sizes
        ),
    ]
    return {machine_type.name: machine_type for machine_type in types}


MACHINE_TYPES = _machine_types()


@dataclass(frozen=True)
class Sku:
    """One priced thing: the cores or the memory of one family in one region, on demand or spot."""

    region: str
    family: str
    part: str
    """Core or Ram."""
    option: PurchaseOption

    @property
    def key(self) -> PriceKey:
        return (self.region, f"{self.family}/{self.part}", self.option.value)

    @property
    def sku_id(self) -> str:
        digest = hashlib.sha256("/".join(self.key).encode()).hexdigest().upper()
        return f"{digest[:4]}-{digest[4:8]}-{digest[8:12]}"

    @property
    def description(self) -> str:
        prefix = "Spot Preemptible " if self.option is PurchaseOption.SPOT else ""
        return f"{prefix}{self.family.upper()} Instance {self.part} running in {PLACE_NAMES[self.region]}"

    @property
    def usage_type(self) -> str:
        return "Preemptible" if self.option is PurchaseOption.SPOT else "OnDemand"

    def units(self, machine_type: MachineType) -> Decimal:
        return machine_type.billed_vcpus if self.part == "Core" else machine_type.billed_gib


def skus_of(region: str, machine_type: MachineType, *, spot: bool) -> tuple[Sku, Sku]:
    """(cores, memory): the two SKUs that an instance of this type is billed by."""
    option = PurchaseOption.SPOT if spot else PurchaseOption.ON_DEMAND
    return Sku(region, machine_type.family, "Core", option), Sku(region, machine_type.family, "Ram", option)


def all_skus(regions: tuple[str, ...]) -> list[Sku]:
    return [
        Sku(region, family, part, option)
        for region, family in _PRICES
        if region in regions
        for option in (PurchaseOption.ON_DEMAND, PurchaseOption.SPOT)
        for part in ("Core", "Ram")
    ]


def post_prices(board: PriceBoard, regions: tuple[str, ...], seed: int) -> None:
    """List prices stand still; the spot prices of a family's cores and memory walk together."""
    for (region, family), (core, ram, spot_core, spot_ram) in _PRICES.items():
        if region not in regions:
            continue
        for part, listed, spot in (("Core", core, spot_core), ("Ram", ram, spot_ram)):
            board.post(Sku(region, family, part, PurchaseOption.ON_DEMAND).key, Decimal(listed))
            walk = Walk(base=Decimal(spot), seed=f"{seed}/{region}/{family}", ceiling=Decimal(listed))
            board.start_walk(Sku(region, family, part, PurchaseOption.SPOT).key, walk)


def price_now(board: PriceBoard, region: str, machine_type: MachineType, *, spot: bool) -> Decimal | None:
    """Per hour of one instance; None: not sold in this region."""
    skus = skus_of(region, machine_type, spot=spot)
    if not all(board.knows(sku.key) for sku in skus):
        return None
    return sum((board.now(sku.key) * sku.units(machine_type) for sku in skus), Decimal(0))


def change_price(board: PriceBoard, region: str, machine_type: MachineType, *, spot: bool, price: Decimal) -> None:
    """Make this type cost ``price`` an hour.

    Google prices cores and memory by family, so every type of the family in the region moves in proportion.
    """
    core, ram = skus_of(region, machine_type, spot=spot)
    now = price_now(board, region, machine_type, spot=spot)
    if now is None:
        raise KeyError(f"{machine_type.name} in {region}")
    ram_price = (board.now(ram.key) * price / now).quantize(Decimal("1e-9"))
    core_price = (price - ram_price * machine_type.billed_gib) / machine_type.billed_vcpus
    board.change(ram.key, ram_price)
    board.change(core.key, core_price.quantize(Decimal("1e-9")))
