"""What one resource type of a plugin can do, as plain calls that may block."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, ClassVar, Generic, TypeVar

from providers.plugin.values import UNKNOWN, Plain, Properties

Session = TypeVar("Session")


@dataclass(frozen=True)
class Made:
    """A resource that exists now; ``outputs`` come on top of its inputs."""

    id: str
    outputs: Properties = field(default_factory=dict)


class ResourceKind(ABC, Generic[Session]):
    """Errors are raised as ``engine.errors``; their text is what the user of Pulumi sees."""

    replace_on: ClassVar[frozenset[str]] = frozenset()
    """Inputs whose change needs a new resource; a change of the others is an update in place."""
    computed: ClassVar[tuple[str, ...]] = ()
    """Outputs that are not known in a preview."""
    delete_before_replace: ClassVar[bool] = False
    named: ClassVar[str | None] = None
    """The input that is filled with a name of its own where the program gives none."""

    def check(self, inputs: dict[str, Plain]) -> Mapping[str, str]:
        """Property -> what is wrong with it."""
        return {}

    @abstractmethod
    def create(self, session: Session, name: str, inputs: Properties) -> Made:
        """Creating twice with one token must not make two."""

    @abstractmethod
    def read(self, session: Session, resource_id: str, inputs: Properties) -> Made | None:
        """As it is now, or None when it is gone."""

    def update(self, session: Session, resource_id: str, old: Properties, new: Properties) -> Properties:
        """Outputs on top of the new inputs."""
        raise NotImplementedError(f"{type(self).__name__} cannot be updated in place")

    @abstractmethod
    def delete(self, session: Session, resource_id: str, properties: Properties) -> None:
        """Already gone = success."""

    def observed(self, inputs: Properties, outputs: Properties) -> dict[str, Plain]:
        """Inputs as the provider has them now (drift shows as a difference to the program); by default as stored."""
        return dict(inputs)


Invoke = Callable[[Any, Properties], Properties]
"""(session, arguments) -> results."""


def automatic_name(base: str, seed: bytes) -> str:
    return f"{base}-{sha256(seed).hexdigest()[:7]}"


def unknown_outputs(kind: ResourceKind[Any]) -> dict[str, Plain]:
    return dict.fromkeys(kind.computed, UNKNOWN)
