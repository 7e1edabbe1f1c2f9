"""The Price List service: GetProducts for on-demand Linux instances, with filters and pages."""

import hashlib
import json
from base64 import b64decode, b64encode
from typing import Any

from moto.ec2.models.instance_types import INSTANCE_TYPES

from providers.sandbox.aws.catalogue import LOCATIONS, USAGE_PREFIXES, on_demand_key
from providers.sandbox.aws.cloud import Cloud
from providers.sandbox.aws.wire import Answer, Call, Refused, json_answer

_ON_DEMAND_TERM = "JRTCXETXF"
_HOURLY_RATE = "6YS6EN2CT7"
_FAMILIES = {"t": "General purpose", "m": "General purpose", "c": "Compute optimized", "r": "Memory optimized"}


class Pricing:
    """Answers AWSPriceListService calls for one cloud."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def answer(self, call: Call) -> Answer:
        if call.action != "GetProducts":
            raise Refused(400, "UnknownOperationException", f"This cloud does not do {call.action}.")
        asked = call.json()
        if asked.get("ServiceCode") != "AmazonEC2":
            raise Refused(400, "NotFoundException", f"No service {asked.get('ServiceCode')!r} here.")
        size = min(int(asked.get("MaxResults", 100)), 100)
        offset = _offset(asked.get("NextToken"))
        filters = asked.get("Filters", [])
        found = [product for product in self._products() if all(_passes(product["attributes"], f) for f in filters)]
        page = [json.dumps(self._priced(product)) for product in found[offset : offset + size]]
        answer: dict[str, Any] = {"FormatVersion": "aws_v1", "PriceList": page}
        if len(found) > offset + size:
            answer["NextToken"] = b64encode(str(offset + size).encode()).decode()
        return json_answer(answer)

    def _products(self) -> list[dict[str, Any]]:
        return [
            {"productFamily": "Compute Instance", "attributes": _attributes(region, kind), "sku": sku(region, kind)}
            for region in self._cloud.regions
            for kind in self._cloud.market.types(region)
        ]

    def _priced(self, product: dict[str, Any]) -> dict[str, Any]:
        attributes, number = product["attributes"], product["sku"]
        region, kind = attributes["regionCode"], attributes["instanceType"]
        key, board = on_demand_key(region, kind), self._cloud.market.board
        price, since = board.now(key), board.changed_at(key).strftime("%Y-%m-%dT%H:%M:%SZ")
        term, rate = f"{number}.{_ON_DEMAND_TERM}", f"{number}.{_ON_DEMAND_TERM}.{_HOURLY_RATE}"
        dimension = {
            "unit": "Hrs",
            "endRange": "Inf",
            "beginRange": "0",
            "description": f"${price} per On Demand Linux {kind} Instance Hour",
            "appliesTo": [],
            "rateCode": rate,
            "pricePerUnit": {"USD": f"{price:.10f}"},
        }
        on_demand = {
            "priceDimensions": {rate: dimension},
            "sku": number,
            "effectiveDate": since,
            "offerTermCode": _ON_DEMAND_TERM,
            "termAttributes": {},
        }
        return {
            "product": product,
            "serviceCode": "AmazonEC2",
            "terms": {"OnDemand": {term: on_demand}},
            "version": since,
            "publicationDate": since,
        }


def sku(region: str, instance_type: str) -> str:
    """Sixteen capitals and digits, the same for the same product."""
    digest = hashlib.sha256(f"{region}/{instance_type}/Linux".encode()).hexdigest()
    return digest[:16].upper()


def _attributes(region: str, instance_type: str) -> dict[str, str]:
    facts = INSTANCE_TYPES[instance_type]
    return {
        "servicecode": "AmazonEC2",
        "servicename": "Amazon Elastic Compute Cloud",
        "location": LOCATIONS[region],
        "locationType": "AWS Region",
        "regionCode": region,
        "instanceType": instance_type,
        "instanceFamily": _FAMILIES[instance_type[0]],
        "currentGeneration": "Yes",
        "vcpu": str(facts["VCpuInfo"]["DefaultVCpus"]),
        "memory": f"{facts['MemoryInfo']['SizeInMiB'] / 1024:g} GiB",
        "operatingSystem": "Linux",
        "licenseModel": "No License required",
        "preInstalledSw": "NA",
        "tenancy": "Shared",
        "capacitystatus": "Used",
        "marketoption": "OnDemand",
        "usagetype": f"{USAGE_PREFIXES[region]}BoxUsage:{instance_type}",
        "operation": "RunInstances",
    }


def _passes(attributes: dict[str, str], rule: dict[str, str]) -> bool:
    held, wanted = attributes.get(rule["Field"]), rule["Value"]
    match rule.get("Type"):
        case "TERM_MATCH" | "EQUALS":
            return held == wanted
        case "ANY_OF":
            return held in wanted.split(",")
        case "NONE_OF":
            return held not in wanted.split(",")
        case "CONTAINS":
            return held is not None and wanted in held
        case other:
            raise Refused(400, "InvalidParameterException", f"Unknown filter type {other!r}.")


def _offset(token: str | None) -> int:
    if not token:
        return 0
    try:
        return int(b64decode(token, validate=True))
    except ValueError as problem:
        raise Refused(400, "InvalidNextTokenException", "The token is not valid.") from problem
