"""What the policy remembers of one fleet: its offers, what was forecast and what came, and what was taken back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engine.planner.rolling.offers import StepOffer
from engine.planner.rolling.sizing import Array
from lab.wire import Init, InitOffer


@dataclass
class FleetRecord:
    """``forecasts`` (by way of forecasting) and ``demand`` (by class): moment by moment, the look back first.
    ``samples`` (by way): of the steps ahead, (horizon, samples ascending). ``way``: the one in use.
    """

    id: str
    rows: NDArray[np.int64]
    risks: tuple[str, ...]
    sold: dict[str, InitOffer]
    move_cost: float
    step_hours: float
    forecasts: list[list[Array]] = field(default_factory=list)
    demand: list[Array] = field(default_factory=list)
    reclaimed: list[float] = field(default_factory=list)
    deliveries: list[Mapping[str, int]] = field(default_factory=list)
    samples: list[Array] = field(default_factory=list)
    way: int = 0
    offers: tuple[StepOffer, ...] = ()
    rises: Array = field(default_factory=lambda: np.zeros(0))
    rises_at: int = -1

    @classmethod
    def of(cls, init: Init, name: str, move_cost: float) -> "FleetRecord":
        rows = np.array([row for row, pool in enumerate(init.pools) if pool.fleet == name], dtype=np.int64)
        return cls(
            id=name,
            rows=rows,
            risks=tuple(init.pools[row].risk for row in rows),
            sold={offer.id: offer for offer in init.offers if offer.shards_per_unit.get(name)},
            move_cost=move_cost,
            step_hours=init.step_minutes / 60,
        )

    def remember(self, came: Array, classes: Sequence[str]) -> None:
        own = came[self.rows]
        by_class = [sum(value for value, risk in zip(own, self.risks, strict=True) if risk == each) for each in classes]
        if not self.forecasts:
            self.forecasts = [[] for _ in self.samples]
        for way, samples in zip(self.forecasts, self.samples, strict=True):
            way.append(samples[0])
        self.demand.append(np.array(by_class, dtype=np.float64))

    def see_delivered(self, units: Mapping[str, int]) -> None:
        self.deliveries.append(units)

    def young(self, held: Mapping[str, int]) -> dict[str, int]:
        """Units that were not held for their ``min_steps`` yet when the next step begins."""
        found: dict[str, int] = {}
        for name, count in held.items():
            recent = self.deliveries[-(self.sold[name].min_steps - 1) :] if self.sold[name].min_steps > 1 else []
            fresh = sum(each.get(name, 0) for each in recent)
            if fresh:
                found[name] = min(count, fresh)
        return found

    def size(self, offer: str) -> int:
        return self.sold[offer].shards_per_unit[self.id]

    def on_demand_price(self) -> float:
        """Of the cheapest shard and step."""
        prices = [
            float(offer.price or offer.on_demand_price) * self.step_hours / self.size(offer.id)
            for offer in self.sold.values()
            if offer.option == "on_demand"
        ]
        dearest = [float(offer.on_demand_price) * self.step_hours / self.size(offer.id) for offer in self.sold.values()]
        return min(prices or dearest or [1.0])
