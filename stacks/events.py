"""What happens during an update, as values; made from the engine's own event stream."""

import re
from collections.abc import Callable, Collection
from enum import StrEnum
from threading import Lock
from typing import Any

from engine.model.placement import Cell
from engine.model.value import Value
from stacks.base import PolicyFinding, ResourceChanges

MANDATORY = "mandatory"
_INSIDES = ("python inline source runtime error: ", "an unhandled error occurred: ", "Exception calling application: ")
_SHOWN_OPS = {"create", "update", "delete", "replace", "create-replacement", "delete-replaced", "read", "import"}


class StepState(StrEnum):
    STARTED = "started"
    DONE = "done"
    FAILED = "failed"


class StepEvent(Value):
    """One step of one resource; a view can draw its tree from these alone."""

    cell: Cell
    op: str
    """create, update, delete, replace …"""
    type: str
    """Pulumi's type token, e.g. ``aws:ec2/instance:Instance``."""
    name: str
    state: StepState


OnStep = Callable[[StepEvent], None]


class EventCollector:
    """Listens to one update. The engine's events come from another thread."""

    def __init__(self, cell: Cell, on_step: OnStep | None) -> None:
        self._cell, self._on_step, self._lock = cell, on_step, Lock()
        self._findings: list[PolicyFinding] = []
        self._problems: list[tuple[str, str]] = []
        self._changes: dict[str, int] = {}

    def __call__(self, event: Any) -> None:
        """``event``: pulumi.automation.events.EngineEvent."""
        with self._lock:
            self._take(event)

    @property
    def findings(self) -> tuple[PolicyFinding, ...]:
        return tuple(self._findings)

    @property
    def violations(self) -> tuple[PolicyFinding, ...]:
        return tuple(finding for finding in self._findings if finding.level == MANDATORY)

    @property
    def problems(self) -> tuple[str, ...]:
        """Error messages of the engine and the providers, without colours, each once."""
        return tuple(dict.fromkeys(message for _, message in self._problems))

    def resources_with(self, words: Collection[str]) -> tuple[str, ...]:
        """Names of the resources of which an error message has one of these words; the stack's own is left out."""
        found = (name for name, message in self._problems if name and says(message, words))
        return tuple(sorted(set(found)))

    @property
    def changes(self) -> ResourceChanges:
        count = self._changes.get
        return ResourceChanges(
            create=count("create", 0),
            update=count("update", 0),
            replace=count("replace", 0),
            delete=count("delete", 0),
            same=count("same", 0),
        )

    def _take(self, event: Any) -> None:
        if event.policy_event:
            self._findings.append(_finding(event.policy_event))
        elif event.diagnostic_event and event.diagnostic_event.severity == "error":
            self._problems.append((_resource(event.diagnostic_event.urn), _reason(event.diagnostic_event.message)))
        elif event.summary_event:
            self._changes = {str(getattr(op, "value", op)): n for op, n in event.summary_event.resource_changes.items()}
        elif self._on_step:
            for step, state in (
                (event.resource_pre_event, StepState.STARTED),
                (event.res_outputs_event, StepState.DONE),
                (event.res_op_failed_event, StepState.FAILED),
            ):
                if step:
                    self._tell(step.metadata, state)

    def _tell(self, step: Any, state: StepState) -> None:
        op = str(getattr(step.op, "value", step.op))
        if self._on_step and op in _SHOWN_OPS:
            name = step.urn.rpartition("::")[2]
            self._on_step(StepEvent(cell=self._cell, op=op, type=step.type, name=name, state=state))


def says(message: str, words: Collection[str]) -> bool:
    """Whole words: AWS has ``Unsupported``, for a type that a zone does not have, and ``UnsupportedOperation``."""
    return any(re.search(rf"\b{re.escape(word)}\b", message) for word in words)


def _finding(event: Any) -> PolicyFinding:
    return PolicyFinding(
        policy=event.policy_name,
        pack=event.policy_pack_name,
        level=event.enforcement_level,
        urn=event.resource_urn or "",
        # The engine puts the policy's description on a line of its own in front.
        message=_plain(event.message).rpartition("\n")[2],
    )


def _resource(urn: str | None) -> str:
    """Its name; empty for the stack and what belongs to no resource."""
    return "" if not urn or "pulumi:pulumi:Stack" in urn else urn.rpartition("::")[2]


def _reason(message: str) -> str:
    """What went wrong, without where in the engine's and Python's insides."""
    text = _plain(message).partition("\nTraceback (most recent call last):")[0]
    for prefix in _INSIDES:
        text = text.removeprefix(prefix)
    return text.strip()


def _plain(message: str) -> str:
    """Without the engine's colour marks (``<{%reset%}>``)."""
    text = message
    while "<{%" in text and "%}>" in text:
        before, _, rest = text.partition("<{%")
        text = before + rest.partition("%}>")[2]
    return text.strip()
