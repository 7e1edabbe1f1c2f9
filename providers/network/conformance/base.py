"""What a conformance case is, and what came of it.

A case is a function that talks to the network through a ``Probe`` and returns what it saw. It raises ``Unmet`` with
what it saw instead, or ``NotOffered`` where the network does not do such a thing at all.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from engine.model.value import Value

if TYPE_CHECKING:
    from providers.network.conformance.probe import Probe


class Outcome(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


class CaseResult(Value):
    """``seen``: what the network did; of a skipped case, why it could not be judged."""

    name: str
    outcome: Outcome
    expected: str
    seen: str


class Unmet(Exception):
    """The network did something else."""

    def __init__(self, seen: str) -> None:
        self.seen = seen
        super().__init__(seen)


class NotOffered(Exception):
    """There is nothing to judge: the network does not offer it, or has none left."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(why)


Judge = Callable[["Probe"], str]


@dataclass(frozen=True)
class Case:
    name: str
    expected: str
    judge: Judge


class Cases:
    """The cases of one file, in the order in which they are written."""

    def __init__(self) -> None:
        self.all: list[Case] = []

    def __call__(self, name: str, expected: str) -> Callable[[Judge], Judge]:
        def add(judge: Judge) -> Judge:
            self.all.append(Case(name, expected, judge))
            return judge

        return add


def require(met: bool, seen: str) -> None:
    """Raises Unmet with ``seen``."""
    if not met:
        raise Unmet(seen)
