"""The prices of one sandbox cloud over time: list prices that stand still, spot prices that walk from a seed."""

import math
import random
from bisect import bisect_right
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal

from engine.clock import Clock

PriceKey = tuple[str, str, str]
"""(region, item, option); an item is whatever the provider prices: an instance type, or a family's cores."""


@dataclass(frozen=True)
class Walk:
    """A mean-reverting walk of the logarithm of a price around ``base``."""

    base: Decimal
    seed: str
    """Two series with the same seed move together, as the cores and the memory of one family do."""
    sigma: float = 0.08
    reversion: float = 0.1
    change_probability: float = 0.35
    ceiling: Decimal | None = None


@dataclass
class _Series:
    points: list[tuple[datetime, Decimal]]
    walk: Walk | None = None
    rng: random.Random = field(default_factory=random.Random)
    level: float = 0.0
    walked_to: int = 0


class PriceBoard:
    """Every price that a sandbox cloud has asked since it opened, and for ``history`` before that.

    A walking price changes at multiples of ``step`` of real time, in an order fixed by the seed however it is read.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        step: timedelta = timedelta(minutes=5),
        history: timedelta = timedelta(hours=24),
        places: int = 6,
    ) -> None:
        self._clock = clock
        self._step = step.total_seconds()
        self._quantum = Decimal(1).scaleb(-places)
        self._opened = clock.now() - history
        self._series: dict[PriceKey, _Series] = {}

    def post(self, key: PriceKey, price: Decimal) -> None:
        """A price that holds until ``change``."""
        self._series[key] = _Series(points=[(self._opened, price)])

    def start_walk(self, key: PriceKey, walk: Walk) -> None:
        first_step = int(self._opened.timestamp() // self._step)
        self._series[key] = _Series(
            points=[(self._opened, self._rounded(walk.base, walk))],
            walk=walk,
            rng=random.Random(walk.seed),  # noqa: S311 (a market's noise, not a secret)
            walked_to=first_step,
        )

    def change(self, key: PriceKey, price: Decimal) -> None:
        """From now on this price; a walk ends here. Raises KeyError for a price that was never posted."""
        series = self._caught_up(key)
        series.walk = None
        series.points.append((self._clock.now(), price))

    def knows(self, key: PriceKey) -> bool:
        return key in self._series

    def now(self, key: PriceKey) -> Decimal:
        return self._caught_up(key).points[-1][1]

    def changed_at(self, key: PriceKey) -> datetime:
        """When the price that holds now was first asked."""
        return self._caught_up(key).points[-1][0]

    def changes(self, key: PriceKey, start: datetime, end: datetime) -> list[tuple[datetime, Decimal]]:
        """(from when, price) in order: the price in force at ``start``, then every change before ``end``."""
        points = self._caught_up(key).points
        first = max(0, bisect_right(points, start, key=lambda point: point[0]) - 1)
        return [point for point in points[first:] if point[0] < end]

    def _caught_up(self, key: PriceKey) -> _Series:
        series = self._series[key]
        walk = series.walk
        if walk is None:
            return series
        current_step = int(self._clock.now().timestamp() // self._step)
        while series.walked_to < current_step:
            series.walked_to += 1
            moves, noise = series.rng.random() < walk.change_probability, series.rng.gauss(0.0, walk.sigma)
            series.level += noise - walk.reversion * series.level
            price = self._rounded(walk.base * Decimal(repr(math.exp(series.level))), walk)
            if moves and price != series.points[-1][1]:
                series.points.append((datetime.fromtimestamp(series.walked_to * self._step, UTC), price))
        return series

    def _rounded(self, price: Decimal, walk: Walk) -> Decimal:
        capped = price if walk.ceiling is None else min(price, walk.ceiling)
        return max(self._quantum, capped.quantize(self._quantum, rounding=ROUND_HALF_EVEN))
