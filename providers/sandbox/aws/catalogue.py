"""What this sandbox sells and at which price: public list prices for Linux on shared tenancy, in USD per hour."""

import hashlib
from collections.abc import Iterable
from datetime import timedelta
from decimal import Decimal

from engine.clock import Clock
from providers.sandbox.prices import PriceBoard, PriceKey, Walk

ON_DEMAND, SPOT = "on_demand", "spot"

_US = {
    "t3": "0.0832", "m5": "0.096", "m6i": "0.096", "m7i": "0.1008", "m8i": "0.10584",
    "c6i": "0.085", "c7i": "0.08925", "c8i": "0.09371", "r6i": "0.126", "r7i": "0.1323",
}  # fmt: skip
_EU = {
    "t3": "0.0912", "m5": "0.107", "m6i": "0.107", "m7i": "0.11235", "m8i": "0.11797",
    "c6i": "0.0912", "c7i": "0.09576", "c8i": "0.10055", "r6i": "0.141", "r7i": "0.14805",
}  # fmt: skip
LIST_PRICE_OF_LARGE = {"us-east-1": _US, "us-east-2": _US, "us-west-2": _US, "eu-west-1": _EU}
"""region -> family -> price of its ``large`` (2 vCPU); the other sizes are multiples of it, as at AWS."""

LOCATIONS = {
    "us-east-1": "US East (N. Virginia)",
    "us-east-2": "US East (Ohio)",
    "us-west-2": "US West (Oregon)",
    "eu-west-1": "EU (Ireland)",
}
USAGE_PREFIXES = {"us-east-1": "", "us-east-2": "USE2-", "us-west-2": "USW2-", "eu-west-1": "EU-"}
"""What AWS puts before a usage type outside us-east-1."""

_SIZES = {"large": 1, "xlarge": 2, "2xlarge": 4}
_FAMILIES_WITH_2XLARGE = frozenset({"m6i", "c6i"})
_SPOT_SHARE = Decimal("0.42")
"""Spot over on-demand where a walk starts; zones differ by up to a tenth."""
_SPOT_STEP = timedelta(minutes=20)


def list_prices(region: str) -> dict[str, Decimal]:
    """instance type -> USD per hour on demand. Raises KeyError for a region that is not sold here."""
    prices = {"t3.medium": Decimal(LIST_PRICE_OF_LARGE[region]["t3"]) / 2}
    for family, large in LIST_PRICE_OF_LARGE[region].items():
        for size, factor in _SIZES.items():
            if size != "2xlarge" or family in _FAMILIES_WITH_2XLARGE:
                prices[f"{family}.{size}"] = Decimal(large) * factor
    return prices


def on_demand_key(region: str, instance_type: str) -> PriceKey:
    return (region, instance_type, ON_DEMAND)


def spot_key(region: str, zone: str, instance_type: str) -> PriceKey:
    return (region, f"{zone}/{instance_type}", SPOT)


class Market:
    """The price board of this cloud, and where each type is sold."""

    def __init__(self, clock: Clock, seed: int, offerings: Iterable[tuple[str, str, str]]) -> None:
        """``offerings``: (region, zone, instance type) as the cloud's own offerings list has them."""
        self.board = PriceBoard(clock, step=_SPOT_STEP)
        self._zones: dict[tuple[str, str], list[str]] = {}
        prices: dict[str, dict[str, Decimal]] = {}
        for region, zone, instance_type in offerings:
            price = prices.setdefault(region, list_prices(region)).get(instance_type)
            if price is None:
                continue
            self._zones.setdefault((region, instance_type), []).append(zone)
            self.board.post(on_demand_key(region, instance_type), price)
            name = f"{seed}/{zone}/{instance_type}"
            self.board.start_walk(
                spot_key(region, zone, instance_type),
                Walk(base=price * _SPOT_SHARE * _zone_factor(name), seed=name, change_probability=0.25, ceiling=price),
            )

    def types(self, region: str) -> list[str]:
        return sorted(kind for where, kind in self._zones if where == region)

    def zones(self, region: str, instance_type: str) -> list[str]:
        """Empty: not sold in this region."""
        return self._zones.get((region, instance_type), [])

    def asked(self, region: str, instance_type: str) -> list[tuple[str, Decimal]]:
        """(option, price now); the spot price is the lowest of the zones'."""
        zones = self.zones(region, instance_type)
        spot = min(self.board.now(spot_key(region, zone, instance_type)) for zone in zones)
        return [(ON_DEMAND, self.board.now(on_demand_key(region, instance_type))), (SPOT, spot)]

    def change(self, region: str, instance_type: str, option: str, price: Decimal) -> None:
        """From now on; a spot price changes in every zone. Raises KeyError."""
        if option == ON_DEMAND:
            self.board.change(on_demand_key(region, instance_type), price)
            return
        zones = self.zones(region, instance_type)
        if option != SPOT or not zones:
            raise KeyError(f"{option} of {instance_type} in {region}")
        for zone in zones:
            self.board.change(spot_key(region, zone, instance_type), price)


def _zone_factor(name: str) -> Decimal:
    """0.90 to 1.10, the same for the same name."""
    draw = int.from_bytes(hashlib.sha256(name.encode()).digest()[:2], "big")
    return (Decimal("0.9") + Decimal("0.2") * draw / 65535).quantize(Decimal("0.0001"))
