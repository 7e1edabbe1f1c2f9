"""The price side of the sandbox's Azure: retail prices, resource SKUs and quotas."""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

from engine.model.market import PurchaseOption
from providers.sandbox.azure.catalog import CORES_QUOTA, REGIONS, RESTRICTED_ZONES, SIZES, ZONES, VmSize
from providers.sandbox.azure.wire import ArmError, Document, timestamp
from providers.sandbox.machines import Machines
from providers.sandbox.prices import PriceBoard

PAGE = 40
"""Items per page of the retail price list: fewer than the real thousand, so that clients have to turn pages."""
_TOKEN = re.compile(r"\s*(\(|\)|,|'(?:[^']|'')*'|[\w.]+)")


class RetailPrices:
    """Public, no token. Beside Linux by the hour it lists what real answers hold too: Windows, and reservations."""

    def __init__(self, board: PriceBoard, regions: tuple[str, ...]) -> None:
        self._board, self._regions = board, regions

    def page(self, expression: str, skip: int, url: str) -> Document:
        wanted = Filter(expression)
        found = [item for item in self._items() if wanted.holds(item)]
        items = found[skip : skip + PAGE]
        query = urlencode({"$filter": expression, "$skip": skip + PAGE})
        return {
            "BillingCurrency": "USD",
            "CustomerEntityId": "Default",
            "CustomerEntityType": "Retail",
            "Items": items,
            "NextPageLink": f"{url}?{query}" if skip + PAGE < len(found) else None,
            "Count": len(items),
        }

    def _items(self) -> list[Document]:
        items = []
        for size in SIZES.values():
            for region, on_demand, _ in size.prices:
                if region not in self._regions:
                    continue
                for option in (PurchaseOption.ON_DEMAND, PurchaseOption.SPOT):
                    key = size.key(region, option)
                    if self._board.knows(key):
                        since = timestamp(self._board.changed_at(key))
                        items.append(self._item(size, region, option.value, self._board.now(key), since))
                windows = Decimal(on_demand) + Decimal("0.046") * size.vcpus
                items.append(self._item(size, region, "windows", windows, "2026-01-01T00:00:00Z"))
                year = (Decimal(on_demand) * 8760 * Decimal("0.6")).quantize(Decimal("1"))
                items.append(self._item(size, region, "reservation", year, "2026-01-01T00:00:00Z"))
        return items

    @staticmethod
    def _item(size: VmSize, region: str, kind: str, price: Decimal, since: str) -> Document:
        suffix = " Spot" if kind == "spot" else ""
        product = f"Virtual Machines {size.series} Series" + (" Windows" if kind == "windows" else "")
        meter = size.meter_id(region, kind)
        item: Document = {
            "currencyCode": "USD",
            "tierMinimumUnits": 0.0,
            "retailPrice": float(price),
            "unitPrice": float(price),
            "armRegionName": region,
            "location": REGIONS[region],
            "effectiveStartDate": since,
            "meterId": meter,
            "meterName": size.meter_name + suffix,
            "productId": f"DZH318Z0{meter[:4].upper()}",
            "skuId": f"DZH318Z0{meter[:4].upper()}/{meter[4:8].upper()}",
            "productName": product,
            "skuName": size.meter_name + suffix,
            "serviceName": "Virtual Machines",
            "serviceId": "DZH313Z7MMC8",
            "serviceFamily": "Compute",
            "unitOfMeasure": "1 Hour",
            "type": "Reservation" if kind == "reservation" else "Consumption",
            "isPrimaryMeterRegion": True,
            "armSkuName": size.name,
        }
        return {**item, "reservationTerm": "1 Year"} if kind == "reservation" else item


class Filter:
    """OData as the price list takes it: ``field eq 'value'``, ``contains(field, 'value')``, and, or, brackets."""

    def __init__(self, expression: str) -> None:
        self._expression = expression
        self._tokens: list[str] = []
        position, end = 0, len(expression.rstrip())
        while position < end:
            token = _TOKEN.match(expression, position)
            if token is None:
                raise self._invalid()
            self._tokens.append(token[1])
            position = token.end()

    def holds(self, item: Mapping[str, Any]) -> bool:
        if not self._tokens:
            return True
        result, rest = self._either(item, self._tokens)
        if rest:
            raise self._invalid()
        return result

    def _either(self, item: Mapping[str, Any], tokens: list[str]) -> tuple[bool, list[str]]:
        result, tokens = self._both(item, tokens)
        while tokens and tokens[0] == "or":
            other, tokens = self._both(item, tokens[1:])
            result = result or other
        return result, tokens

    def _both(self, item: Mapping[str, Any], tokens: list[str]) -> tuple[bool, list[str]]:
        result, tokens = self._term(item, tokens)
        while tokens and tokens[0] == "and":
            other, tokens = self._term(item, tokens[1:])
            result = result and other
        return result, tokens

    def _term(self, item: Mapping[str, Any], tokens: list[str]) -> tuple[bool, list[str]]:
        match tokens:
            case ["(", *inner]:
                result, rest = self._either(item, inner)
                if rest[:1] != [")"]:
                    raise self._invalid()
                return result, rest[1:]
            case ["contains", "(", field, ",", value, ")", *rest]:
                return _text(value) in str(self._value(item, field)), rest
            case [field, "eq" | "ne" as operator, value, *rest]:
                return (str(self._value(item, field)) == _text(value)) == (operator == "eq"), rest
        raise self._invalid()

    def _value(self, item: Mapping[str, Any], field: str) -> object:
        return item.get({"priceType": "type"}.get(field, field), "")

    def _invalid(self) -> ArmError:
        return ArmError(400, "BadRequest", f"Invalid OData parameters supplied: {self._expression}")


def _text(literal: str) -> str:
    return literal.strip("'").replace("''", "'")


def resource_skus(regions: tuple[str, ...]) -> list[Document]:
    """One row per size and region, as the Resource SKUs API answers; it lists disks, too."""
    rows: list[Document] = [
        {
            "resourceType": "disks",
            "name": "Premium_LRS",
            "tier": "Premium",
            "size": "P10",
            "locations": [region],
            "locationInfo": [{"location": region, "zones": list(ZONES)}],
            "capabilities": [{"name": "MaxIOps", "value": "500"}],
            "restrictions": [],
        }
        for region in regions
    ]
    for size in SIZES.values():
        for region in regions:
            closed = RESTRICTED_ZONES.get((region, size.name), ())
            restrictions = []
            if closed:
                info = {"locations": [region], "zones": list(closed)}
                restrictions.append(
                    {
                        "type": "Zone",
                        "values": [region],
                        "restrictionInfo": info,
                        "reasonCode": "NotAvailableForSubscription",
                    }
                )
            rows.append(
                {
                    "resourceType": "virtualMachines",
                    "name": size.name,
                    "tier": "Standard",
                    "size": size.name.removeprefix("Standard_"),
                    "family": size.family,
                    "locations": [region],
                    "locationInfo": [{"location": region, "zones": list(ZONES), "zoneDetails": []}],
                    "capabilities": [{"name": name, "value": value} for name, value in _capabilities(size).items()],
                    "restrictions": restrictions,
                }
            )
    return rows


def _capabilities(size: VmSize) -> dict[str, str]:
    return {
        "MaxResourceVolumeMB": "0",
        "vCPUs": str(size.vcpus),
        "vCPUsAvailable": str(size.vcpus),
        "MemoryGB": str(size.memory_gib),
        "HyperVGenerations": "V1,V2",
        "CpuArchitectureType": "x64",
        "LowPriorityCapable": str(size.spot_capable),
        "PremiumIO": "True",
        "UncachedDiskIOPS": str(size.iops),
        "UncachedDiskBytesPerSecond": str(size.iops * 22_000),
        "AcceleratedNetworkingEnabled": "True",
        "MaxNetworkInterfaces": "2",
    }


def usages(region: str, machines: Machines, *, exhausted: bool) -> list[Document]:
    """Quotas of a region: all cores, spot cores, and cores by family. ``exhausted``: every one is used up."""
    live = [machine for machine in machines.live() if machine.region == region]
    used: dict[str, int] = {"cores": 0, "lowPriorityCores": 0, **{size.family: 0 for size in SIZES.values()}}
    for machine in live:
        size = SIZES[machine.instance_type]
        for name in ("lowPriorityCores",) if machine.spot else ("cores", size.family):
            used[name] += size.vcpus
    return [
        {
            "unit": "Count",
            "currentValue": CORES_QUOTA if exhausted else count,
            "limit": CORES_QUOTA,
            "name": {"value": name, "localizedValue": name},
        }
        for name, count in used.items()
    ]
