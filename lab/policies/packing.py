"""Whole units for a number of shards."""

from collections.abc import Sequence

from lab.policies.board_view import Sold


def packed(shards: int, offers: Sequence[Sold]) -> dict[str, int]:
    """Units by offer that carry at least ``shards``: the cheapest per shard for all it fills, then the cheapest single
    unit that covers the rest. ``offers`` stand cheapest per shard first; none of them is short.
    """
    if shards <= 0 or not offers:
        return {}
    best = offers[0]
    whole, rest = divmod(shards, best.shards)
    units = {best.id: whole} if whole else {}
    if rest:
        covering = min((each for each in offers if each.shards >= rest), key=lambda each: each.price, default=best)
        units[covering.id] = units.get(covering.id, 0) + 1
    return units
