"""What a Google machine type costs: the catalogue's Core and Ram SKUs of its family, times its size.

Google prices vCPUs and memory of a family separately, per region, and lists no price per machine type. The SKUs are
told apart by their descriptions ("E2 Instance Core running in Americas", "Spot Preemptible N2 Instance Ram running
in ..."); custom types, sole tenancy, commitments and extended memory have other descriptions and are left aside.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from engine.model.market import PurchaseOption
from providers.gcp_wire import Sku

_DESCRIPTION = re.compile(
    r"^(?P<spot>Spot Preemptible )?(?P<family>[A-Z]\d[A-Z]?)(?: AMD| Arm| Predefined)? Instance (?P<part>Core|Ram)\b"
)
_USAGE = {"OnDemand": PurchaseOption.ON_DEMAND, "Preemptible": PurchaseOption.SPOT}
_UNITS = {"Core": "h", "Ram": "GiBy.h"}

Timeline = list[tuple[datetime, Decimal]]
"""(from when, price per hour), oldest first."""


@dataclass(frozen=True)
class FamilyPrice:
    """USD per vCPU-hour and per GiB-hour over time."""

    core: Timeline
    ram: Timeline

    def of(self, vcpus: int, memory_gib: Decimal) -> Timeline:
        """The price of a whole machine: every moment at which either part changed, once both are known."""
        moments = sorted({at for at, _ in self.core} | {at for at, _ in self.ram})
        first = max(self.core[0][0], self.ram[0][0])
        return [
            (at, _in_force(self.core, at) * vcpus + _in_force(self.ram, at) * memory_gib)
            for at in moments
            if at >= first
        ]


PriceTable = dict[tuple[str, str, PurchaseOption], FamilyPrice]
"""By (region, family, option)."""


def price_table(skus: Iterable[Sku], regions: Sequence[str]) -> PriceTable:
    """Families of these regions whose cores and memory both have a price in US dollars above zero."""
    parts: dict[tuple[str, str, PurchaseOption], dict[str, Timeline]] = {}
    for sku in skus:
        described = _DESCRIPTION.match(sku.description)
        option = _USAGE.get(sku.category.usage_type)
        if not described or option is None or bool(described["spot"]) != (option is PurchaseOption.SPOT):
            continue
        timeline = _timeline(sku, _UNITS[described["part"]])
        for region in set(sku.service_regions) & set(regions) if timeline else ():
            parts.setdefault((region, described["family"].lower(), option), {})[described["part"]] = timeline
    return {
        key: FamilyPrice(core=found["Core"], ram=found["Ram"])
        for key, found in parts.items()
        if "Core" in found and "Ram" in found
    }


def _timeline(sku: Sku, unit: str) -> Timeline:
    priced = [
        (info.effective_time, rate.unit_price.amount)
        for info in sku.pricing_info
        if info.pricing_expression.usage_unit == unit
        for rate in info.pricing_expression.tiered_rates[-1:]
        if rate.unit_price.currency_code == "USD" and rate.unit_price.amount > 0
    ]
    return sorted(priced)


def _in_force(timeline: Timeline, at: datetime) -> Decimal:
    return next((price for since, price in reversed(timeline) if since <= at), timeline[0][1])
