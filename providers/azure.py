"""Azure: virtual machines on demand and spot, from Resource SKUs and the retail price list; inventory by tag; bills.

Azure sells no holds: a list price stands until Microsoft changes it (a quote here lasts fifteen minutes), and capacity
is only certain once a machine is created. A quote checks the region's quota. Spot takes a maximum price: the quote's
ceiling is what a stack hands over as ``billingProfile.maxPrice``.
"""

import threading
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import uuid4

import httpx

from engine.clock import Clock
from engine.errors import InsufficientCapacity, NotFound
from engine.model.billing import BillDelivery
from engine.model.ids import NodeId, OfferId, QuoteId
from engine.model.market import Offer, OfferQuery, PricePoint, PurchaseOption, Quote, Reliability
from engine.model.money import Money
from engine.model.value import Interval
from providers.azure_api import AzureApi
from providers.azure_bills import fetch_bill
from providers.azure_prices import SpotHistory, eviction_per_month, hourly_prices, spot_history
from providers.azure_sizes import Size, sizes
from providers.azure_wire import Skus, Usages, Vm, Vms, VmStatuses
from providers.base import InstanceRecord, ProviderSettings

_COMPUTE_VERSION = {"api-version": "2025-04-01"}
_SKUS_VERSION = "2021-07-01"
_SIZES_KEPT = timedelta(hours=1)
_POINTS = 64
"""Of a spot price history, at most this many of its newest points go into an offer."""
_ON_DEMAND_QUOTE, _SPOT_QUOTE = timedelta(minutes=15), timedelta(minutes=5)
_SPOT_QUOTA = "lowPriorityCores"
_NODE_TAG, _TOKEN_TAG = "shardwright-node", "shardwright-token"


class AzureProvider:
    """One Azure subscription in the configured regions. ``transport`` is for tests.

    Prices are asked anew on every call, sizes once an hour. Offers carry Azure's logical zones ("1", "2", "3").
    """

    def __init__(
        self, settings: ProviderSettings, *, clock: Clock, transport: httpx.BaseTransport | None = None
    ) -> None:
        self.name = settings.name
        self._settings, self._clock = settings, clock
        self._api = AzureApi(settings, clock, transport=transport)
        self._lock = threading.Lock()
        self._sizes: dict[str, tuple[datetime, dict[str, Size]]] = {}
        self._resource_ids: dict[str, str] = {}

    # -- Provider -------------------------------------------------------------------------------------------------

    def offers(self, need: OfferQuery) -> Iterable[Offer]:
        """On-demand and spot offers per zone; a size without a price in the region is left out."""
        options = [option for option in (PurchaseOption.ON_DEMAND, PurchaseOption.SPOT) if option in need.options]
        regions = [region for region in self._settings.regions if need.placement.allows(self.name, region)]
        if not options or not regions:
            return []
        fitting = {
            region: [size for size in self._sizes_of(region).values() if size.resources.holds(need.at_least) >= 1]
            for region in regions
        }
        history: SpotHistory = {}
        evictions: dict[tuple[str, str], float] = {}
        if PurchaseOption.SPOT in options:
            history = spot_history(self._api, self._settings.account, regions)
            evictions = eviction_per_month(self._api, self._settings.account, regions)
        now, found = self._clock.now(), []
        for region in regions:
            prices = hourly_prices(self._api, region, now) if fitting[region] else {}
            for size in fitting[region]:
                for option in options:
                    price = prices.get((size.name, option))
                    if price is None or (option is PurchaseOption.SPOT and not size.spot_capable):
                        continue
                    key = (region, size.name.lower())
                    points = history.get(key, ()) if option is PurchaseOption.SPOT else ()
                    lost = evictions.get(key) if option is PurchaseOption.SPOT else None
                    found += [self._offer(region, zone, size, option, price, points, lost) for zone in size.zones]
        return found

    def quote(self, offer: Offer, quantity: int, term: Interval) -> Quote:
        """On demand: the list price, which is its own ceiling. Spot: the price now, under an on-demand ceiling.

        Raises InsufficientCapacity where the zone does not sell the size to this subscription, its quota has no room
        for the quantity, or spot has become dearer than on demand.
        """
        size = self._sizes_of(offer.region).get(offer.instance_type)
        if size is None or offer.zone not in size.zones:
            raise InsufficientCapacity(
                f"{self.name}: {offer.instance_type} is not sold in {offer.region}, zone {offer.zone}"
            )
        prices = hourly_prices(self._api, offer.region, self._clock.now(), size=size.name)
        price = prices.get((size.name, offer.option))
        ceiling = prices.get((size.name, PurchaseOption.ON_DEMAND))
        if price is None or ceiling is None:
            raise InsufficientCapacity(f"{self.name}: {size.name} has no {offer.option.value} price now")
        if price > ceiling:
            raise InsufficientCapacity(
                f"{self.name}: spot {size.name} in {offer.region} is dearer than on demand",
                why=f"{price} against {ceiling} an hour",
            )
        self._check_quota(offer, size, quantity)
        spot = offer.option is PurchaseOption.SPOT
        lost = offer.reliability.interruption_per_month or 0.0
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
        """Every machine with our tag in the configured regions, whatever its state. Ids are Azure's ``vmId``."""
        url = f"{self._api.subscription}/providers/Microsoft.Compute/virtualMachines"
        machines = [machine for page in self._api.pages(Vms, url, _COMPUTE_VERSION) for machine in page.value]
        statuses = self._api.pages(VmStatuses, url, {**_COMPUTE_VERSION, "statusOnly": "true"})
        running = {
            found.id.lower()
            for page in statuses
            for found in page.value
            if any(status.code == "PowerState/running" for status in found.properties.instance_view.statuses)
        }
        ours = [
            machine
            for machine in machines
            if _NODE_TAG in machine.tags and machine.location.lower() in self._settings.regions
        ]
        with self._lock:
            self._resource_ids = {
                key: machine.id for machine in ours for key in (machine.properties.vm_id, machine.id.rpartition("/")[2])
            }
        return [_record(machine, running=machine.id.lower() in running) for machine in ours]

    def terminate(self, instance_id: str) -> None:
        """By ``vmId``, name or resource id. Already gone = success. Returns once Azure has taken the order."""
        resource_id = instance_id if instance_id.startswith("/") else self._resource_id(instance_id)
        if resource_id is None:
            return
        try:
            self._api.delete(f"{self._api.arm}{resource_id}", _COMPUTE_VERSION)
        except NotFound:
            return

    # -- SupportsBills --------------------------------------------------------------------------------------------

    def bill(self, period: Interval) -> BillDelivery:
        """The invoices of the billing period in which ``period`` starts, with their cost details.

        Raises NotFound where none is issued yet.
        """
        return fetch_bill(self._api, self._settings, period, self._clock)

    # -- inside ---------------------------------------------------------------------------------------------------

    def _offer(
        self,
        region: str,
        zone: str,
        size: Size,
        option: PurchaseOption,
        price: Decimal,
        history: Sequence[tuple[datetime, Decimal]],
        lost: float | None,
    ) -> Offer:
        return Offer(
            id=OfferId(f"{self.name}/{self._settings.account}/{region}/{zone}/{size.name}/{option.value}"),
            provider=self.name,
            account=self._settings.account,
            region=region,
            zone=zone,
            instance_type=size.name,
            resources=size.resources,
            performance=size.performance,
            option=option,
            price=Money(amount=price),
            price_at=self._clock.now(),
            price_history=tuple(PricePoint(at=at, price=Money(amount=amount)) for at, amount in history[-_POINTS:]),
            reliability=Reliability(
                interruption_per_month=lost, correlation_group=f"{self.name}/{region}/{zone}/{size.series}"
            ),
        )

    def _sizes_of(self, region: str) -> dict[str, Size]:
        now = self._clock.now()
        with self._lock:
            kept = self._sizes.get(region)
        if kept and now - kept[0] < _SIZES_KEPT:
            return kept[1]
        params = {"api-version": _SKUS_VERSION, "$filter": f"location eq '{region}'"}
        pages = self._api.pages(Skus, f"{self._api.subscription}/providers/Microsoft.Compute/skus", params)
        found = sizes((sku for page in pages for sku in page.value), region)
        with self._lock:
            self._sizes[region] = (now, found)
        return found

    def _check_quota(self, offer: Offer, size: Size, quantity: int) -> None:
        url = f"{self._api.subscription}/providers/Microsoft.Compute/locations/{offer.region}/usages"
        usages = {
            usage.name.value.lower(): usage
            for page in self._api.pages(Usages, url, _COMPUTE_VERSION)
            for usage in page.value
        }
        spot, cores = offer.option is PurchaseOption.SPOT, size.vcpus * quantity
        for quota in (_SPOT_QUOTA,) if spot else ("cores", size.family):
            usage = usages.get(quota.lower())
            if usage and usage.current_value + cores > usage.limit:
                raise InsufficientCapacity(
                    f"{self.name}: the quota {quota} of {offer.region} has no room for {cores} vCPUs",
                    why=f"{usage.current_value} of {usage.limit} in use",
                    next_step=f"ask Azure for more {quota} in {offer.region}, or release what is not needed",
                )

    def _resource_id(self, instance_id: str) -> str | None:
        with self._lock:
            known = self._resource_ids.get(instance_id)
        if known is None:
            self.instances()
            with self._lock:
                known = self._resource_ids.get(instance_id)
        return known


def _record(machine: Vm, *, running: bool) -> InstanceRecord:
    return InstanceRecord(
        instance_id=machine.properties.vm_id,
        node=NodeId(machine.tags[_NODE_TAG]),
        token=machine.tags.get(_TOKEN_TAG, ""),
        region=machine.location.lower(),
        zone=machine.zones[0] if machine.zones else machine.location.lower(),
        instance_type=machine.properties.hardware.vm_size,
        running=running,
        launched_at=machine.properties.created,
    )
