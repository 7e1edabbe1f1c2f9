"""Where a fleet's running shards are, and which of them had to move to another cell (rule 9)."""

from collections.abc import Sequence


class Attachment:
    """Shards by cell of one fleet. Shards that ended are taken to be those that stood in the way, so the sum may
    stand above the load until their places are given up.
    """

    def __init__(self, cells: int) -> None:
        self.shards = [0] * cells
        self._last_load = 0

    def follow(self, load: int, stable: Sequence[int], spot: Sequence[int]) -> int:
        """Shards moved in a step with ``load`` covered shards on capacity by cell: ``stable`` of on-demand and
        commitments, and ``spot``.
        """
        shards = self.shards
        for cell, there in enumerate(shards):
            if there:
                shards[cell] = min(there, stable[cell] + spot[cell])
        attached = sum(shards)
        moved = max(0, min(self._last_load, load) - attached)
        self._attach(load - attached, stable)
        self._attach(load - sum(shards), [a + b for a, b in zip(stable, spot, strict=True)])
        self._last_load = load
        return moved

    def _attach(self, more: int, places: Sequence[int]) -> None:
        for cell, room in enumerate(places):
            if more <= 0:
                return
            some = min(more, room - self.shards[cell])
            if some > 0:
                self.shards[cell] += some
                more -= some
