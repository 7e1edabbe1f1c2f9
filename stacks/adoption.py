"""How a resource that an interrupted update may have made is found again, and put into the state."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from engine.model.ids import NodeId
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
    id_output: str | None = None
    """The output that is the provider's own id of it, as the program exports it; None: Pulumi's id is that."""

    def token(self, inputs: Inputs) -> str | None:
        tags = inputs.get(self.token_property)
        found = tags.get("shardwright-token") if isinstance(tags, Mapping) else tags
        return found if isinstance(found, str) else None

    def made(self, resources: Sequence[Mapping[str, Any]]) -> tuple[tuple[NodeId, str], ...]:
        """(node, the provider's instance id) of those that the state has and keeps; the same as the program exports."""
        here = [one for one in resources if one.get("type") == self.type and not one.get("delete")]
        found = [(one["urn"].rpartition("::")[2], self._id_of(one)) for one in here]
        return tuple(sorted((NodeId(name), id_) for name, id_ in found if isinstance(id_, str) and id_))

    def _id_of(self, resource: Mapping[str, Any]) -> object:
        return resource.get("id") if self.id_output is None else (resource.get("outputs") or {}).get(self.id_output)


class Adoption(Protocol):
    """What recovery asks of a program's module."""

    instance: InstanceOf

    def instance_id(self, cell: Cell, record: InstanceRecord) -> str:
        """Pulumi's id of an instance that the provider lists."""
        ...

    def shared_id(self, cell: Cell, settings: ProviderSettings, type_: str, inputs: Inputs) -> str | None:
        """Pulumi's id of another resource with these inputs, if it exists or may exist (a refresh decides then)."""
        ...
