"""Resources that the sandbox has no server side for: kept in Pulumi's state alone, with an id that follows from them."""

from collections.abc import Callable
from typing import Any

from providers.plugin.kinds import Made, ResourceKind
from providers.plugin.values import Properties


class Recorded(ResourceKind[Any]):
    """``identify(inputs)`` gives the id; ``outputs(inputs)`` what the provider would add."""

    def __init__(
        self,
        identify: Callable[[Properties], str],
        outputs: Callable[[Properties], Properties] = lambda _: {},
    ) -> None:
        self._identify, self._outputs = identify, outputs

    def create(self, session: Any, name: str, inputs: Properties) -> Made:
        return Made(self._identify(inputs), self._outputs(inputs))

    def read(self, session: Any, resource_id: str, inputs: Properties) -> Made:
        return Made(resource_id, self._outputs(inputs))

    def update(self, session: Any, resource_id: str, old: Properties, new: Properties) -> Properties:
        return self._outputs(new)

    def delete(self, session: Any, resource_id: str, properties: Properties) -> None:
        return None
