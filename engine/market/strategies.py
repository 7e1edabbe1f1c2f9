"""Which negotiation strategies there are; imported only when used.

A strategy of ours is one file and one line here. Anybody else's is one entry point of their own package::

    [project.entry-points."shardwright.strategies"]
    haggle = "their_package.haggle:HaggleStrategy"
"""

from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import entry_points
from typing import cast

from engine.errors import ConfigurationError
from engine.market.base import Strategy

GROUP = "shardwright.strategies"
_STRATEGIES = {
    "fixed_price": "engine.market.fixed_price:FixedPriceStrategy",
    "spot": "engine.market.spot:SpotStrategy",
    "rfq": "engine.market.rfq:RfqStrategy",
    "auction": "engine.market.auction:AuctionStrategy",
}


def known_strategies() -> dict[str, str]:
    """Name -> ``module:Class``; ours cannot be replaced by a name that is taken."""
    return {point.name: point.value for point in entry_points(group=GROUP)} | _STRATEGIES


def open_strategies(names: Sequence[str] | None = None) -> tuple[Strategy, ...]:
    """By name, in that order; None: all of them. Raises ConfigurationError on a name that nobody registered."""
    known = known_strategies()
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise ConfigurationError(
            f"unknown negotiation strategy: {', '.join(unknown)}", why=f"known: {', '.join(sorted(known))}"
        )
    return tuple(_load(known[name]) for name in (names if names is not None else known))


def _load(path: str) -> Strategy:
    module, _, name = path.partition(":")
    return cast(Strategy, getattr(import_module(module), name)())
