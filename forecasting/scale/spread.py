"""The seam for work that falls into independent pieces: who does them, and in how many places, changes no result."""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Protocol, TypeVar

Shared = TypeVar("Shared")
Piece = TypeVar("Piece")
Result = TypeVar("Result")
Item = TypeVar("Item")

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many pieces are done, and of how many."""

MOST_IN_BATCH, LEAST_IN_BATCH, USUAL_BATCHES = 64, 4, 16
"""Sixty-four series go through the network as fast, each, as five hundred and twelve, and leave a smaller trace."""


class Spread(Protocol):
    """Does pieces of work. ``work`` is a pure function that a module names, so that another process can find it."""

    def map(
        self, work: Callable[[Shared, Piece], Result], shared: Shared, pieces: Sequence[Piece], *, what: str
    ) -> Iterator[Result]:
        """``work(shared, piece)`` of every piece, in the order of the pieces. Raises what the work raises, and
        ScaleOutFailed when a piece cannot be done for a reason that is not its own."""
        ...


def untold(what: str, done: int, of: int) -> None:
    """No progress."""


class InProcess:
    """One piece after the other, here."""

    def __init__(self, progress: Progress = untold) -> None:
        self._progress = progress

    def map(
        self, work: Callable[[Shared, Piece], Result], shared: Shared, pieces: Sequence[Piece], *, what: str
    ) -> Iterator[Result]:
        for done, piece in enumerate(pieces, start=1):
            yield work(shared, piece)
            self._progress(what, done, len(pieces))


IN_PROCESS = InProcess()


def batches(items: Sequence[Item]) -> list[Sequence[Item]]:
    """The items in order, cut into even pieces by their number alone: the number of workers must not matter, since a
    network's last bits depend on what goes through it together."""
    count = len(items)
    pieces = max(-(-count // MOST_IN_BATCH), min(USUAL_BATCHES, -(-count // LEAST_IN_BATCH)))
    edges = [count * i // max(pieces, 1) for i in range(pieces + 1)]
    return [items[low:high] for low, high in pairwise(edges)]


def at_quarters(tell: Callable[[str], None]) -> Progress:
    """A line for each quarter of the pieces; none where there are fewer than four."""

    def told(what: str, done: int, of: int) -> None:
        if of >= 4 and done * 4 // of > (done - 1) * 4 // of:
            tell(f"{what}: {done} of {of} pieces")

    return told
