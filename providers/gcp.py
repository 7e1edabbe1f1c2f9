"""Google Cloud: Compute Engine on demand and spot, priced from the Cloud Billing catalogue; inventory by label; bills.

Compute Engine sells no holds: a list price stands until Google changes it (a quote here lasts fifteen minutes), and
capacity is only certain once an insert has ended well. A quote checks the region's quota. Spot has no bid: Google asks
its own price, so a ceiling below it can only be kept by not buying.
"""

import threading
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import NAMESPACE_URL, uuid4, uuid5
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import httpx

from engine.clock import Clock
from engine.errors import InsufficientCapacity, NotFound
from engine.model.billing import BillDelivery
from engine.model.capacity import Resources
from engine.model.ids import NodeId, OfferId, QuoteId
from engine.model.market import Offer, OfferQuery, PricePoint, PurchaseOption, Quote, Reliability
from engine.model.money import Money
from engine.model.value import Interval
from providers.base import InstanceRecord, ProviderSettings
from providers.gcp_api import GcpApi
from providers.gcp_bills import fetch_bill
from providers.gcp_families import FAMILIES, SPOT_LOST_PER_MONTH, SPOT_QUOTA, family_of, resources_of
from providers.gcp_prices import PriceTable, Timeline, price_table
from providers.gcp_wire import AggregatedInstances, Instance, MachineType, MachineTypes, Region, Sku, Skus

_COMPUTE_ENGINE = "6F81-5844-456A"
_HISTORY = timedelta(hours=24)
_POINTS = 64
"""Of a spot price history, at most this many of its newest points go into an offer."""
_TYPES_KEPT = timedelta(hours=1)
_PRICES_KEPT = timedelta(seconds=30)
_ON_DEMAND_QUOTE, _SPOT_QUOTE = timedelta(minutes=15), timedelta(minutes=5)
_NODE_LABEL, _NODE_KEY, _TOKEN_KEY = "shardwright-node", "shardwright-node", "shardwright-token"


class GcpProvider:
    """One Google project in the configured regions. ``transport`` is for tests.

    Prices are asked anew for every list of offers, machine types once an hour; a quote goes by prices that are at most
    half a minute old. Shared-core types and families without documented figures are not offered.
    """

    def __init__(
        self, settings: ProviderSettings, *, clock: Clock, transport: httpx.BaseTransport | None = None
    ) -> None:
        self.name = settings.name
        self._settings, self._clock = settings, clock
        self._api = GcpApi(settings, clock, transport=transport)
        self._lock = threading.Lock()
        self._types: dict[str, tuple[datetime, dict[str, tuple[MachineType, ...]]]] = {}
        self._prices: tuple[datetime, PriceTable] | None = None
        self._zone_of: dict[str, str] = {}

    # -- Provider -------------------------------------------------------------------------------------------------

    def offers(self, need: OfferQuery) -> Iterable[Offer]:
        """On-demand and spot offers per zone; a type whose family has no price in the region is left out."""
        options = [option for option in (PurchaseOption.ON_DEMAND, PurchaseOption.SPOT) if option in need.options]
        regions = [region for region in self._settings.regions if need.placement.allows(self.name, region)]
        if not options or not regions:
            return []
        prices = self._fresh_prices()
        return [offer for region in regions for offer in self._offers_of(region, need, options, prices)]

    def quote(self, offer: Offer, quantity: int, term: Interval) -> Quote:
        """On demand: the list price, which is its own ceiling. Spot: the price now, under an on-demand ceiling.

        Raises InsufficientCapacity where the zone does not sell the type, the region's quota has no room for the
        quantity, or spot has become dearer than on demand.
        """
        facts = self._facts(offer)
        prices = self._recent_prices()
        list_price = _price(prices, offer.region, facts, PurchaseOption.ON_DEMAND)
        timeline = _price(prices, offer.region, facts, offer.option)
        if not timeline or not list_price:
            raise InsufficientCapacity(f"{self.name}: {offer.instance_type} has no {offer.option.value} price now")
        price, ceiling = timeline[-1][1], list_price[-1][1]
        spot = offer.option is PurchaseOption.SPOT
        if price > ceiling:
            raise InsufficientCapacity(
                f"{self.name}: spot {offer.instance_type} in {offer.region} is dearer than on demand",
                why=f"{price} against {ceiling} an hour",
            )
        self._check_quota(offer, quantity * facts.guest_cpus)
        lost = SPOT_LOST_PER_MONTH if spot else 0.0
        return Quote(
            id=QuoteId(f"{self.name}-{uuid4()}"),
            offer=offer,
            quantity=quantity,
            unit_price=Money(amount=price),
            price_ceiling=Money(amount=ceiling),
            term=term,
            expires_at=self._clock.now() + (_SPOT_QUOTE if spot else _ON_DEMAND_QUOTE),
            strategy=offer.option.value,
            survival=(1 - lost) ** (term.hours / 730),
        )

    # -- SupportsInventory ----------------------------------------------------------------------------------------

    def instances(self) -> Sequence[InstanceRecord]:
        """Every instance with our label in the configured regions, whatever its state. Ids are Google's numbers."""
        params = {"filter": f"labels.{_NODE_LABEL}:*", "returnPartialSuccess": "false"}
        pages = self._api.pages(AggregatedInstances, f"{self._api.compute}/aggregated/instances", params)
        listed = [found for page in pages for zone in page.items.values() for found in zone.instances]
        records = [_record(instance) for instance in listed]
        records = [record for record in records if record.region in self._settings.regions]
        with self._lock:
            self._zone_of = {record.instance_id: record.zone for record in records}
        return records

    def terminate(self, instance_id: str) -> None:
        """Already gone = success. Returns once Google has taken the order, not once the machine is off."""
        with self._lock:
            zone = self._zone_of.get(instance_id)
        if zone is None:
            self.instances()
            zone = self._zone_of.get(instance_id)
        if zone is None:
            return
        request = uuid5(NAMESPACE_URL, f"shardwright/delete/{self._settings.account}/{instance_id}")
        try:
            self._api.delete(f"{self._api.compute}/zones/{zone}/instances/{instance_id}", {"requestId": str(request)})
        except NotFound:
            return

    # -- SupportsBills --------------------------------------------------------------------------------------------

    def bill(self, period: Interval) -> BillDelivery:
        """The billing export of the invoice month in which the period starts. Raises NotFound."""
        return fetch_bill(self._api, self._settings, period, now=self._clock.now())

    # -- inside ---------------------------------------------------------------------------------------------------

    def _offers_of(
        self, region: str, need: OfferQuery, options: Sequence[PurchaseOption], prices: PriceTable
    ) -> Iterator[Offer]:
        zones: dict[str, tuple[MachineType, list[str]]] = {}
        for zone, types in self._types_of(region).items():
            for facts in types:
                zones.setdefault(facts.name, (facts, []))[1].append(zone)
        for facts, where in zones.values():
            resources = resources_of(facts)
            if resources is None or resources.holds(need.at_least) < 1:
                continue
            for option in options:
                timeline = _price(prices, region, facts, option)
                if timeline:
                    yield from self._offers_in(region, where, facts, resources, option, timeline)

    def _offers_in(
        self,
        region: str,
        zones: Sequence[str],
        facts: MachineType,
        resources: Resources,
        option: PurchaseOption,
        timeline: Timeline,
    ) -> Iterator[Offer]:
        family, spot = family_of(facts.name), option is PurchaseOption.SPOT
        past = timeline[-_POINTS:] if spot else []
        history = tuple(PricePoint(at=at, price=Money(amount=price)) for at, price in past)
        for zone in zones:
            yield Offer(
                id=OfferId(f"{self.name}/{self._settings.account}/{zone}/{facts.name}/{option.value}"),
                provider=self.name,
                account=self._settings.account,
                region=region,
                zone=zone,
                instance_type=facts.name,
                resources=resources,
                performance=FAMILIES[family].performance,
                option=option,
                price=Money(amount=timeline[-1][1]),
                price_at=self._clock.now(),
                price_history=history,
                reliability=Reliability(
                    interruption_per_month=SPOT_LOST_PER_MONTH if spot else None,
                    correlation_group=f"{self.name}/{region}/{zone}/{family}",
                ),
            )

    def _facts(self, offer: Offer) -> MachineType:
        types = self._types_of(offer.region).get(offer.zone, ())
        facts = next((found for found in types if found.name == offer.instance_type), None)
        if facts is None:
            raise InsufficientCapacity(f"{self.name}: {offer.instance_type} is not sold in {offer.zone}")
        return facts

    def _types_of(self, region: str) -> dict[str, tuple[MachineType, ...]]:
        """zone -> what it sells."""
        now = self._clock.now()
        with self._lock:
            kept = self._types.get(region)
        if kept and now - kept[0] < _TYPES_KEPT:
            return kept[1]
        zones = [_last_part(link) for link in self._region(region).zones]
        types = {zone: tuple(self._types_in(zone)) for zone in sorted(zones)}
        with self._lock:
            self._types[region] = (now, types)
        return types

    def _types_in(self, zone: str) -> Iterator[MachineType]:
        url = f"{self._api.compute}/zones/{zone}/machineTypes"
        return (found for page in self._api.pages(MachineTypes, url, {"maxResults": 500}) for found in page.items)

    def _region(self, region: str) -> Region:
        return self._api.get(Region, f"{self._api.compute}/regions/{region}")

    def _check_quota(self, offer: Offer, vcpus: int) -> None:
        quotas = {quota.metric: quota for quota in self._region(offer.region).quotas}
        metric = FAMILIES[family_of(offer.instance_type)].quota
        if offer.option is PurchaseOption.SPOT and SPOT_QUOTA in quotas and quotas[SPOT_QUOTA].limit > 0:
            metric = SPOT_QUOTA
        quota = quotas.get(metric)
        if quota and quota.usage + vcpus > quota.limit:
            raise InsufficientCapacity(
                f"{self.name}: the quota {metric} of {offer.region} has no room for {vcpus} vCPUs",
                why=f"{quota.usage:g} of {quota.limit:g} in use",
                next_step=f"ask Google for more {metric} in {offer.region}, or release what is not needed",
            )

    def _recent_prices(self) -> PriceTable:
        with self._lock:
            kept = self._prices
        if kept and self._clock.now() - kept[0] < _PRICES_KEPT:
            return kept[1]
        return self._fresh_prices()

    def _fresh_prices(self) -> PriceTable:
        """Today's prices with the last day's changes; where a day is not to be had, without them."""
        now = self._clock.now()
        table = price_table(self._skus(_price_span(now)), self._settings.regions)
        with self._lock:
            self._prices = (now, table)
        return table

    def _skus(self, span: dict[str, str]) -> Iterator[Sku]:
        url = f"{self._api.billing}/v1/services/{_COMPUTE_ENGINE}/skus"
        params: dict[str, str | int] = {"pageSize": 5000, "currencyCode": "USD", **span}
        return (found for page in self._api.pages(Skus, url, params) for found in page.skus)


def _price(prices: PriceTable, region: str, facts: MachineType, option: PurchaseOption) -> Timeline:
    """The type's price over time; empty where it has none."""
    family = prices.get((region, family_of(facts.name), option))
    return family.of(facts.guest_cpus, Decimal(facts.memory_mb) / 1024) if family else []


def _price_span(now: datetime) -> dict[str, str]:
    """The last day for the catalogue's history, which must lie in one calendar month of Los Angeles."""
    try:
        local = now.astimezone(ZoneInfo("America/Los_Angeles"))
    except ZoneInfoNotFoundError:
        return {}
    month = local.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    start = max(month, local - _HISTORY)
    if local - start < timedelta(minutes=10):
        return {}
    return {"startTime": _rfc3339(start), "endTime": _rfc3339(now)}


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(ZoneInfo("UTC")).isoformat().replace("+00:00", "Z")


def _record(instance: Instance) -> InstanceRecord:
    metadata = {item.key: item.value for item in instance.metadata.items}
    zone = _last_part(instance.zone)
    return InstanceRecord(
        instance_id=instance.id,
        node=NodeId(metadata.get(_NODE_KEY) or instance.labels.get(_NODE_LABEL, "")),
        token=metadata.get(_TOKEN_KEY) or instance.labels.get(_TOKEN_KEY, ""),
        region=zone.rpartition("-")[0],
        zone=zone,
        instance_type=_last_part(instance.machine_type),
        running=instance.status == "RUNNING",
        launched_at=instance.creation_timestamp,
    )


def _last_part(link: str) -> str:
    return link.rpartition("/")[2]
