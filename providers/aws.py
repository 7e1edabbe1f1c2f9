"""AWS: EC2 on demand and spot, from the price list and the spot price history; inventory by tag; bills from the CUR.

EC2 sells no holds: an on-demand price stands until AWS changes its list (a quote here lasts fifteen minutes), and
capacity is only certain once RunInstances has answered.
"""

import threading
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import uuid4

from engine.clock import Clock
from engine.errors import (
    AuthenticationFailed,
    InsufficientCapacity,
    NotFound,
    ProviderAnswerInvalid,
    ProviderError,
    ProviderUnavailable,
)
from engine.model.billing import BillDelivery
from engine.model.ids import NodeId, OfferId, QuoteId
from engine.model.market import Offer, OfferQuery, PricePoint, PurchaseOption, Quote, Reliability
from engine.model.money import Money
from engine.model.value import Interval
from providers.aws_api import GLOBAL_REGION, AwsApi
from providers.aws_bills import fetch_bill
from providers.aws_catalogue import Catalogues, baseline_resources, performance_score
from providers.aws_prices import hourly_prices, product_filters
from providers.aws_wire import (
    Instance,
    InstanceType,
    PlacementScores,
    PriceList,
    Reservations,
    SpotPrice,
    SpotPrices,
    Zones,
)
from providers.base import InstanceRecord, ProviderSettings

_SPOT_HISTORY = timedelta(hours=24)
_ON_DEMAND_QUOTE = timedelta(minutes=15)
_SPOT_QUOTE = timedelta(minutes=5)
_NO_SPOT_CAPACITY = 1
"""The lowest placement score: AWS expects the request to fail."""
_LIVE_STATES = ["pending", "running", "stopping", "stopped"]
_NODE_TAG, _TOKEN_TAG = "shardwright-node", "shardwright-token"


class AwsProvider:
    """One AWS account in the configured regions. Prices are asked anew on every call, types once an hour."""

    def __init__(self, settings: ProviderSettings, *, clock: Clock) -> None:
        self.name = settings.name
        self._settings, self._clock = settings, clock
        self._api = AwsApi(settings, clock)
        self._catalogues = Catalogues(self._api, clock)
        self._region_of: dict[str, str] = {}
        self._lock = threading.Lock()

    # -- Provider -------------------------------------------------------------------------------------------------

    def offers(self, need: OfferQuery) -> Iterable[Offer]:
        """On-demand and spot offers per zone. Types that AWS lists without a price, or at zero, are left out."""
        found: list[Offer] = []
        for region in self._settings.regions:
            if need.placement.allows(self.name, region):
                found += self._offers_of(region, need)
        return found

    def quote(self, offer: Offer, quantity: int, term: Interval) -> Quote:
        """On demand: the list price, which is its own ceiling. Spot: the price now, under an on-demand ceiling.

        Raises InsufficientCapacity where the zone no longer sells the type or has no spot capacity of its size.
        """
        region, kind = offer.region, offer.instance_type
        zones = self._catalogues.of(region).zones.get(kind, ())
        if offer.zone not in zones:
            raise InsufficientCapacity(f"{self.name}: {kind} is not sold in {offer.zone}")
        list_price = self._list_prices(region, [kind]).get(kind)
        if list_price is None:
            raise InsufficientCapacity(f"{self.name}: {kind} has no on-demand price in {region}")
        now = self._clock.now()
        price, lasts = list_price, _ON_DEMAND_QUOTE
        if offer.option is PurchaseOption.SPOT:
            self._check_spot_capacity(offer, quantity)
            history = self._spot_prices(region, [kind], since=now).get((kind, offer.zone))
            if not history:
                raise InsufficientCapacity(f"{self.name}: no spot market for {kind} in {offer.zone}")
            price, lasts = history[-1].spot_price, _SPOT_QUOTE
        elif offer.option is not PurchaseOption.ON_DEMAND:
            raise ProviderError(f"{self.name} sells no {offer.option.value} capacity")
        return Quote(
            id=QuoteId(f"{self.name}-{uuid4()}"),
            offer=offer,
            quantity=quantity,
            unit_price=Money(amount=price),
            price_ceiling=Money(amount=max(price, list_price)),
            term=term,
            expires_at=now + lasts,
            strategy=offer.option.value,
        )

    # -- SupportsInventory ----------------------------------------------------------------------------------------

    def instances(self) -> Sequence[InstanceRecord]:
        """Every instance with our tag that has not ended, in all configured regions."""
        filters = [
            {"Name": "tag-key", "Values": [_NODE_TAG]},
            {"Name": "instance-state-name", "Values": _LIVE_STATES},
        ]
        records: list[InstanceRecord] = []
        for region in self._settings.regions:
            for page in self._api.pages(Reservations, "ec2", region, "describe_instances", Filters=filters):
                for reservation in page.reservations:
                    records += [_record(region, instance) for instance in reservation.instances]
        with self._lock:
            self._region_of.update({record.instance_id: record.region for record in records})
        return records

    def terminate(self, instance_id: str) -> None:
        """Already gone = success. An instance that was not listed before is looked for in every region."""
        with self._lock:
            known = self._region_of.get(instance_id)
        for region in (known,) if known else self._settings.regions:
            try:
                self._api.call("ec2", region, "terminate_instances", InstanceIds=[instance_id])
            except NotFound:
                continue
            return

    # -- SupportsBills --------------------------------------------------------------------------------------------

    def bill(self, period: Interval) -> BillDelivery:
        """The Cost and Usage Report of the calendar month in which the period starts. Raises NotFound."""
        return fetch_bill(self._api, self.name, period, now=self._clock.now())

    # -- what a region sells --------------------------------------------------------------------------------------

    def _offers_of(self, region: str, need: OfferQuery) -> list[Offer]:
        catalogue = self._catalogues.of(region)
        fitting = [
            kind for kind, facts in catalogue.types.items() if baseline_resources(facts).holds(need.at_least) > 0
        ]
        wanted = set(need.options) & {PurchaseOption.ON_DEMAND, PurchaseOption.SPOT}
        if not fitting or not wanted:
            return []
        now, made = self._clock.now(), []
        if PurchaseOption.ON_DEMAND in wanted:
            for kind, price in self._list_prices(region, fitting).items():
                facts = catalogue.types.get(kind)
                for zone in catalogue.zones.get(kind, ()) if facts else ():
                    made.append(self._offer(region, zone, catalogue.types[kind], PurchaseOption.ON_DEMAND, price, now))
        if PurchaseOption.SPOT in wanted:
            spot = [kind for kind in fitting if "spot" in catalogue.types[kind].supported_usage_classes]
            for (kind, zone), history in self._spot_prices(region, spot, since=now - _SPOT_HISTORY).items():
                if zone in catalogue.zones.get(kind, ()):
                    facts, price = catalogue.types[kind], history[-1].spot_price
                    made.append(self._offer(region, zone, facts, PurchaseOption.SPOT, price, now, history))
        return made

    def _offer(
        self,
        region: str,
        zone: str,
        facts: InstanceType,
        option: PurchaseOption,
        price: Decimal,
        now: datetime,
        history: Sequence[SpotPrice] = (),
    ) -> Offer:
        kind = facts.instance_type
        return Offer(
            id=OfferId(f"{self.name}/{self._settings.account}/{zone}/{kind}/{option.value}"),
            provider=self.name,
            account=self._settings.account,
            region=region,
            zone=zone,
            instance_type=kind,
            resources=baseline_resources(facts),
            performance=performance_score(facts),
            option=option,
            price=Money(amount=price),
            price_at=now,
            price_history=tuple(PricePoint(at=past.timestamp, price=Money(amount=past.spot_price)) for past in history),
            reliability=Reliability(correlation_group=f"{self.name}/{region}/{zone}/{kind.partition('.')[0]}"),
        )

    def _list_prices(self, region: str, kinds: Sequence[str]) -> dict[str, Decimal]:
        arguments = {"ServiceCode": "AmazonEC2", "Filters": product_filters(region, kinds)}
        pages = self._api.pages(PriceList, "pricing", GLOBAL_REGION, "get_products", **arguments)
        return hourly_prices(document for page in pages for document in page.price_list)

    def _spot_prices(
        self, region: str, kinds: Sequence[str], *, since: datetime
    ) -> dict[tuple[str, str], list[SpotPrice]]:
        """(type, zone) -> prices, oldest first, from the one in force at ``since`` on. Prices of zero are dropped."""
        found: dict[tuple[str, str], list[SpotPrice]] = defaultdict(list)
        if not kinds:
            return found
        arguments = {"InstanceTypes": list(kinds), "ProductDescriptions": ["Linux/UNIX"], "StartTime": since}
        for page in self._api.pages(SpotPrices, "ec2", region, "describe_spot_price_history", **arguments):
            for price in page.spot_price_history:
                if price.spot_price > 0:
                    found[price.instance_type, price.availability_zone].append(price)
        for history in found.values():
            history.sort(key=lambda price: price.timestamp)
        return found

    def _check_spot_capacity(self, offer: Offer, quantity: int) -> None:
        """Asks the placement score of the offer's zone, for its type and two neighbours of the same size.

        AWS scores fewer than three types low whatever the capacity, hence the neighbours. The score is advice with a
        daily allowance: where it is refused, the quote stands.
        """
        size = offer.instance_type.partition(".")[2]
        catalogue = self._catalogues.of(offer.region)
        neighbours = [kind for kind in catalogue.zones if kind.endswith(f".{size}") and kind != offer.instance_type]
        arguments = {
            "InstanceTypes": [offer.instance_type, *sorted(neighbours)[:2]],
            "TargetCapacity": quantity,
            "SingleAvailabilityZone": True,
            "RegionNames": [offer.region],
        }
        zones = self._api.ask(Zones, "ec2", offer.region, "describe_availability_zones").availability_zones
        try:
            answer = self._api.ask(PlacementScores, "ec2", offer.region, "get_spot_placement_scores", **arguments)
        except (ProviderUnavailable, ProviderAnswerInvalid):
            raise
        except (AuthenticationFailed, ProviderError):
            return
        zone_id = next((zone.zone_id for zone in zones if zone.zone_name == offer.zone), None)
        scores = [score.score for score in answer.spot_placement_scores if score.availability_zone_id == zone_id]
        if scores and max(scores) <= _NO_SPOT_CAPACITY:
            raise InsufficientCapacity(
                f"{self.name}: no spot capacity for {quantity} x {offer.instance_type} in {offer.zone}",
                why=f"spot placement score {max(scores)} of 10",
            )


def _record(region: str, instance: Instance) -> InstanceRecord:
    tags = {tag.key: tag.value for tag in instance.tags}
    return InstanceRecord(
        instance_id=instance.instance_id,
        node=NodeId(tags.get(_NODE_TAG, "")),
        token=tags.get(_TOKEN_TAG, ""),
        region=region,
        zone=instance.placement.availability_zone,
        instance_type=instance.instance_type,
        running=instance.state.name == "running",
        launched_at=instance.launch_time,
    )
