"""The EC2 actions that moto lacks, and the rules around RunInstances that it does not enforce."""

import hashlib
import json
from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal, InvalidOperation

from pydantic import TypeAdapter, ValidationError

from engine.model.value import Utc
from providers.sandbox.aws.catalogue import spot_key
from providers.sandbox.aws.cloud import Cloud
from providers.sandbox.aws.wire import Answer, Call, Refused, ec2_answer

Passthrough = Callable[[Call], Answer]
"""moto's own answer to a call."""

_CHANGES_INSTANCES = frozenset({"CreateTags", "DeleteTags", "TerminateInstances"})
_NOT_METERED = frozenset(
    {
        "CreateFleet",
        "ModifyInstanceAttribute",
        "RequestSpotFleet",
        "RequestSpotInstances",
        "StartInstances",
        "StopInstances",
    }
)
"""Other ways to start, resize or pause an instance, which the meter does not follow: refused rather than free."""
_LINUX = "Linux/UNIX"
_PAGE = 1000
_TIME: TypeAdapter[datetime] = TypeAdapter(Utc)


class Ec2:
    """Answers EC2 calls for one cloud."""

    def __init__(self, cloud: Cloud, moto: Passthrough) -> None:
        self._cloud, self._moto = cloud, moto
        self._launched: dict[tuple[str, str], tuple[str, Answer]] = {}
        """(region, ClientToken) -> (digest of the request, its answer)."""

    def answer(self, call: Call) -> Answer:
        if call.region not in self._cloud.regions:
            raise Refused(401, "AuthFailure", f"The account is not opted in to the region {call.region!r}.")
        if call.action == "DescribeSpotPriceHistory":
            return self._spot_price_history(call)
        if call.action == "GetSpotPlacementScores":
            return self._spot_placement_scores(call)
        if call.action == "RunInstances":
            return self._run_instances(call)
        if call.action in _NOT_METERED:
            raise Refused(400, "UnsupportedOperation", f"This cloud does not do {call.action}.")
        answered = self._moto(call)
        if call.action in _CHANGES_INSTANCES:
            self._cloud.observe(call.region)
        return answered

    # -- launching ------------------------------------------------------------------------------------------------

    def _run_instances(self, call: Call) -> Answer:
        token = call.form.get("ClientToken", "")
        digest = hashlib.sha256(json.dumps(sorted(call.form.items())).encode()).hexdigest()
        if token and (call.region, token) in self._launched:
            before, answered = self._launched[call.region, token]
            if before != digest:
                raise Refused(400, "IdempotentParameterMismatch", "The client token was used with other parameters.")
            return answered
        dry = call.form.get("DryRun", "").lower() == "true"
        ceiling = None if dry else self._admit(call)
        answered = self._moto(call)
        if answered.status == 200 and not dry:
            self._cloud.observe(call.region, price_ceiling=ceiling)
            if token:
                self._launched[call.region, token] = (digest, answered)
        return answered

    def _admit(self, call: Call) -> Decimal | None:
        """The spot ceiling, if one is named. Refuses what AWS refuses."""
        instance_type = call.form.get("InstanceType", "")
        if not instance_type:
            raise Refused(400, "MissingParameter", "The request must contain the parameter InstanceType.")
        zones = self._cloud.market.zones(call.region, instance_type)
        if not zones:
            raise Refused(400, "InvalidParameterValue", f"Invalid value '{instance_type}' for InstanceType.")
        zone = self._zone(call) or f"{call.region}a"
        if zone not in zones:
            message = (
                f"Your requested instance type ({instance_type}) is not supported in your requested zone ({zone})."
            )
            raise Refused(400, "Unsupported", message)
        if self._cloud.faults.no_capacity:
            message = (
                f"We currently do not have sufficient {instance_type} capacity in the zone you requested ({zone})."
            )
            raise Refused(500, "InsufficientInstanceCapacity", message)
        if call.form.get("InstanceMarketOptions.MarketType") != "spot":
            return None
        named = call.form.get("InstanceMarketOptions.SpotOptions.MaxPrice")
        if not named:
            return None
        ceiling = _price(named)
        now = self._cloud.market.board.now(spot_key(call.region, zone, instance_type))
        if ceiling < now:
            raise Refused(400, "SpotMaxPriceTooLow", f"Your Spot request price of {ceiling} is lower than {now}.")
        return ceiling

    def _zone(self, call: Call) -> str | None:
        subnet = call.form.get("SubnetId") or call.form.get("NetworkInterface.1.SubnetId") or ""
        return call.form.get("Placement.AvailabilityZone") or self._cloud.zone_of_subnet(call.region, subnet)

    # -- the spot market ------------------------------------------------------------------------------------------

    def _spot_price_history(self, call: Call) -> Answer:
        offset, end = _resume(call, self._cloud.clock.now())
        start = _moment(call, "StartTime") or datetime.fromtimestamp(0, end.tzinfo)
        rows = self._history(call, start, end)
        size = min(int(call.form.get("MaxResults", _PAGE)), _PAGE)
        page, more = rows[offset : offset + size], len(rows) > offset + size
        items = [
            {
                "instanceType": instance_type,
                "productDescription": _LINUX,
                "spotPrice": f"{price:f}",
                "timestamp": at.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
                "availabilityZone": zone,
            }
            for at, zone, instance_type, price in page
        ]
        token = _token(offset + size, end) if more else ""
        return ec2_answer(call.action, {"spotPriceHistorySet": items, "nextToken": token})

    def _history(self, call: Call, start: datetime, end: datetime) -> list[tuple[datetime, str, str, Decimal]]:
        """(from when, zone, type, price), newest first; the price in force at ``start`` is included."""
        filters, market = call.filters(), self._cloud.market
        products = call.items("ProductDescription") + filters.get("product-description", [])
        if products and not any(product.startswith(_LINUX) for product in products):
            return []
        types = call.items("InstanceType") + filters.get("instance-type", [])
        zones = filters.get("availability-zone", [])
        zones += [call.form["AvailabilityZone"]] if call.form.get("AvailabilityZone") else []
        rows = [
            (at, zone, instance_type, price)
            for instance_type in types or market.types(call.region)
            for zone in market.zones(call.region, instance_type)
            if not zones or zone in zones
            for at, price in market.board.changes(spot_key(call.region, zone, instance_type), start, end)
        ]
        return sorted(rows, key=lambda row: (row[0], row[1], row[2]), reverse=True)

    def _spot_placement_scores(self, call: Call) -> Answer:
        types = call.items("InstanceType")
        if not types or not call.form.get("TargetCapacity", "").isdigit():
            raise Refused(400, "MissingParameter", "InstanceTypes and TargetCapacity are needed.")
        regions = call.items("RegionName") or list(self._cloud.regions)
        by_zone = call.form.get("SingleAvailabilityZone", "").lower() == "true"
        scores = []
        for region in (found for found in regions if found in self._cloud.regions):
            ids = self._cloud.zone_ids(region)
            zones = {zone for kind in types for zone in self._cloud.market.zones(region, kind)}
            if by_zone:
                scores += [
                    {"region": region, "availabilityZoneId": ids[zone], "score": self._score(zone, types)}
                    for zone in sorted(zones)
                ]
            else:
                scores.append({"region": region, "score": max((self._score(z, types) for z in zones), default=1)})
        return ec2_answer(call.action, {"spotPlacementScoreSet": sorted(scores, key=lambda s: -s["score"])})

    def _score(self, zone: str, types: list[str]) -> int:
        """1 (will fail) to 10; few types score low, as AWS documents."""
        if self._cloud.faults.no_capacity:
            return 1
        if len(set(types)) < 3:
            return 3
        return 5 + hashlib.sha256(f"{self._cloud.seed}/{zone}".encode()).digest()[0] % 5


def _price(text: str) -> Decimal:
    try:
        price = Decimal(text)
    except InvalidOperation:
        price = Decimal("NaN")
    if not price.is_finite() or price <= 0:
        raise Refused(400, "InvalidParameterValue", f"Invalid value '{text}' for SpotPrice.")
    return price


def _moment(call: Call, name: str) -> datetime | None:
    text = call.form.get(name)
    if not text:
        return None
    try:
        return _TIME.validate_python(text)
    except ValidationError as problem:
        raise Refused(400, "InvalidParameterValue", f"{name}: {text!r} is not a time.") from problem


def _token(offset: int, end: datetime) -> str:
    return b64encode(json.dumps([offset, end.isoformat()]).encode()).decode()


def _resume(call: Call, now: datetime) -> tuple[int, datetime]:
    """Where to go on, and the moment that the whole listing is about, so that pages do not shift."""
    token = call.form.get("NextToken")
    if not token:
        return 0, min(_moment(call, "EndTime") or now, now)
    try:
        offset, end = json.loads(b64decode(token, validate=True))
        return int(offset), _TIME.validate_python(end)
    except (ValueError, TypeError) as problem:
        raise Refused(400, "InvalidPaginationToken", "The token is not valid.") from problem
