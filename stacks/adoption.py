"""How a resource that an interrupted update may have made is found again, and put into the state."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from engine.model.placement import Cell
from providers.base import InstanceRecord, ProviderSettings

Inputs = Mapping[str, Any]
"""Resource inputs as Pulumi's state has them (camelCase); secrets are opaque objects."""


@dataclass(frozen=True)
class InstanceOf:
    """The instance type of a program: ``type`` is its Pulumi type token."""

    type: str
    token_property: str
    """The input that holds the tags, labels or metadata with the token."""

    def token(self, inputs: Inputs) -> str | None:
        tags = inputs.get(self.token_property)
        found = tags.get("shardwright-token") if isinstance(tags, Mapping) else tags
        return found if isinstance(found, str) else None


class Adoption(Protocol):
    """What recovery asks of a program's module."""

    instance: InstanceOf

    def instance_id(self, cell: Cell, record: InstanceRecord) -> str:
        """Pulumi's id of an instance that the provider lists."""
        ...

    def shared_id(self, cell: Cell, settings: ProviderSettings, type_: str, inputs: Inputs) -> str | None:
        """Pulumi's id of another resource with these inputs, if it exists or may exist (a refresh decides then)."""
        ...
