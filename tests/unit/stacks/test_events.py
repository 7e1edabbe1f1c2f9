"""What is read out of the engine's own events."""

from typing import Any

from pulumi.automation.events import DiagnosticEvent, EngineEvent

from stacks.events import EventCollector
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
