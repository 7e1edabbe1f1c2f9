"""What is read out of the engine's own events."""

from typing import Any

import pytest
from pulumi.automation.events import DiagnosticEvent, EngineEvent

from providers import aws_api, rest
from stacks.events import EventCollector, says
from tests.unit.engine.planner.cases import CELLS

URN = "urn:pulumi:aws::shardwright::aws:ec2/instance:Instance::sw-1-1"
STACK = "urn:pulumi:aws::shardwright::pulumi:pulumi:Stack::shardwright-aws"


def error(message: str, urn: str | None) -> Any:
    said = DiagnosticEvent(message=message, color="", severity="error", urn=urn)
    return EngineEvent(sequence=1, timestamp=1, diagnostic_event=said)


def test_an_error_is_known_by_its_resource_and_each_message_is_told_once() -> None:
    collector = EventCollector(CELLS[0], None)
    for message, urn in (
        ("InsufficientInstanceCapacity: none left", URN),
        ("InsufficientInstanceCapacity: none left", URN.replace("sw-1-1", "sw-1-2")),
        ("UnauthorizedOperation", URN.replace("sw-1-1", "sw-1-3")),
        ("update failed: InsufficientInstanceCapacity", STACK),
        ("InsufficientInstanceCapacity, somewhere", None),
    ):
        collector(error(message, urn))
    assert collector.resources_with(("InsufficientInstanceCapacity", "Unsupported")) == ("sw-1-1", "sw-1-2")
    assert collector.problems[0] == "InsufficientInstanceCapacity: none left"
    assert len(collector.problems) == 4


@pytest.mark.parametrize(
    ("codes", "message", "none_to_be_had"),
    [
        (aws_api.NO_CAPACITY, "api error VcpuLimitExceeded: You have requested more vCPU capacity", True),
        (aws_api.NO_CAPACITY, "MaxSpotInstanceCountExceeded: Max spot instance count exceeded", True),
        (aws_api.NO_CAPACITY, "api error Unsupported: not supported in your requested Availability Zone", True),
        (aws_api.NO_CAPACITY, "api error UnsupportedOperation: This cloud does not do that", False),
        (rest.NO_CAPACITY, 'Code="QuotaExceeded" Message="exceeding approved Total Regional Cores quota"', True),
        (rest.NO_CAPACITY, "googleapi: Error 403: Quota 'CPUS' exceeded. Limit: 24.0, quotaExceeded", True),
        (rest.NO_CAPACITY, "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS: does not have enough resources", True),
        (rest.NO_CAPACITY, "The resource group could not be found", False),
    ],
)
def test_want_of_capacity_is_known_by_whole_words(codes: frozenset[str], message: str, none_to_be_had: bool) -> None:
    assert says(message, codes) is none_to_be_had
