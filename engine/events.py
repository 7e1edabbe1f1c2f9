"""What the control plane tells whoever watches: one line for a person, facts for a program."""

from collections.abc import Callable

from pydantic import Field, JsonValue

from engine.model.value import Value


class Event(Value):
    """``step`` is the step of a round, or ``move``, ``evacuation``, ``sandbox`` …"""

    step: str
    text: str
    facts: dict[str, JsonValue] = Field(default_factory=dict)


Observe = Callable[[Event], None]


def unseen(_: Event) -> None:
    """For when nobody watches."""
