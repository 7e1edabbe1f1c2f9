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

    steps: tuple[tuple[datetime, Decimal, Decimal], ...]
    """(from when, price of a vCPU, price of a GiB), oldest first, never empty."""

    def of(self, vcpus: int, memory_gib: Decimal) -> Timeline:
        """The price of a whole machine: a point wherever either part changed."""
        return [(at, core * vcpus + ram * memory_gib) for at, core, ram in self.steps]


def _joined(cores: Timeline, rams: Timeline) -> FamilyPrice:
    """From the first moment at which both prices are known."""
    changes = sorted([(at, "core", price) for at, price in cores] + [(at, "ram", price) for at, price in rams])
    now: dict[str, Decimal] = {}
    steps: dict[datetime, tuple[datetime, Decimal, Decimal]] = {}
    for at, part, price in changes:
        now[part] = price
        if len(now) == 2:
            steps[at] = (at, now["core"], now["ram"])
    return FamilyPrice(tuple(steps.values()))


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
        key: _joined(found["Core"], found["Ram"]) for key, found in parts.items() if "Core" in found and "Ram" in found
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
