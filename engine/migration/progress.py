"""How moves stand, from their own threads into the store and back: which of them are not wanted any more.

A move never waits for the store over this: what it tells is kept in memory, the newest of each, and written down by
somebody else a little later.
"""

import threading
from typing import Protocol

from engine.model.ids import MoveId
from engine.model.move import MoveProgress

EVERY_SECONDS = 0.5


class UnderWay(Protocol):
    """The part of the history of moves that progress needs (engine.store.moves.MoveHistory)."""

    def stands(self, progress: MoveProgress) -> None: ...

    def cancelled(self) -> frozenset[MoveId]: ...


class ProgressBoard:
    """``told`` and ``cancelled`` return at once; ``exchange`` is called every half second by a thread of its own."""

    def __init__(self, store: UnderWay) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._newest: dict[MoveId, MoveProgress] = {}
        self._cancelled: frozenset[MoveId] = frozenset()

    def told(self, progress: MoveProgress) -> None:
        with self._lock:
            self._newest[progress.request.id] = progress

    def cancelled(self, move: MoveId) -> bool:
        return move in self._cancelled

    def exchange(self) -> None:
        """Write down how moves stand, and read which of them are not wanted any more."""
        self._cancelled = self._store.cancelled()
        with self._lock:
            newest, self._newest = self._newest, {}
        for progress in newest.values():
            self._store.stands(progress)
