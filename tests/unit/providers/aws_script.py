"""AwsApi with its network cut off: each operation answers from a script, so that odd answers can be given."""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr

from engine.clock import Clock
from providers.aws_api import AwsApi
from providers.base import ProviderSettings

SETTINGS = ProviderSettings(
    name="aws",
    kind="aws",
    account="123456789012",
    regions=("us-east-1",),
    endpoint="http://127.0.0.1:1",
    credentials={"access_key_id": SecretStr("AKIAEXAMPLE"), "secret_access_key": SecretStr("very-secret")},
)


class ScriptedApi(AwsApi):
    """``script``: operation -> raw answer, or an exception to raise."""

    def __init__(self, script: Mapping[str, Any], clock: Clock) -> None:
        super().__init__(SETTINGS, clock)
        self.script = dict(script)
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def call(self, service: str, region: str, operation: str, **arguments: Any) -> Mapping[str, Any]:
        self.calls.append((operation, arguments))
        answer = self.script[operation]
        if callable(answer):
            answer = answer(**arguments)
        if isinstance(answer, Exception):
            raise answer
        result: Mapping[str, Any] = answer
        return result


def instance_type(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "InstanceType": name,
        "SupportedUsageClasses": ["on-demand", "spot"],
        "ProcessorInfo": {"SupportedArchitectures": ["x86_64"], "SustainedClockSpeedInGhz": 3.1},
        "VCpuInfo": {"DefaultVCpus": 2},
        "MemoryInfo": {"SizeInMiB": 8192},
        "EbsInfo": {"EbsOptimizedInfo": {"BaselineIops": 3600}},
        "NetworkInfo": {"NetworkCards": [{"BaselineBandwidthInGbps": 0.75}]},
        **changes,
    }


def document(instance_type: str | None, *prices: dict[str, str], unit: str = "Hrs") -> str:
    terms = {
        f"T{n}": {"priceDimensions": {f"R{n}": {"unit": unit, "pricePerUnit": price}}} for n, price in enumerate(prices)
    }
    attributes: dict[str, Any] = {} if instance_type is None else {"instanceType": instance_type}
    return json.dumps({"product": {"attributes": attributes, "sku": "S"}, "terms": {"OnDemand": terms}})
