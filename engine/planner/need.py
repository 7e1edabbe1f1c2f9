"""What each pool needs, with the two curves of its demand that the programme prices risk on."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from engine.errors import BadUsageData
from engine.model.capacity import CapacityTarget, Placement, Resources, RiskClass
from engine.model.plan import ShardSlot
from engine.planner.policy import PlanPolicy

IntArray = NDArray[np.int64]

_CUTS = 6
"""Tangents that stand for a convex curve, and steps that stand for the tail of a distribution."""


@dataclass(frozen=True)
class PoolNeed:
    target: CapacityTarget
    risk: RiskClass
    shape: int
    """Index into ``Needs.shapes``: pools with the same slice share it."""
    demand: IntArray
    """Shape (paths, steps), whole shards."""

    @property
    def id(self) -> str:
        return self.target.pool.id

    @property
    def desired(self) -> int:
        return self.target.desired

    @property
    def hours(self) -> float:
        return float(self.target.step.total_seconds() / 3600 * self.demand.shape[1])

    @cached_property
    def peaks(self) -> IntArray:
        """Each path's maximum, sorted."""
        return np.sort(self.demand.max(axis=1))

    @cached_property
    def values(self) -> IntArray:
        """Every demand of every path and step, sorted."""
        return np.sort(self.demand, axis=None)

    @cached_property
    def mean_demand(self) -> float:
        return float(self.values.mean())

    @property
    def most(self) -> int:
        """More than this never helps, losses apart."""
        return max(self.desired, int(self.peaks[-1]))

    def covered(self, shards: int) -> float:
        """Share of paths whose maximum is at most ``shards``."""
        return bisect_right(self._peaks, shards) / len(self._peaks)

    def short(self, shards: int) -> float:
        """Expected shards missing per step when ``shards`` are there."""
        return self._shortages[shards] if shards < len(self._shortages) else 0.0

    @cached_property
    def _peaks(self) -> list[int]:
        return [int(peak) for peak in self.peaks]

    @cached_property
    def _shortages(self) -> list[float]:
        """By shards that are there, up to the largest demand."""
        above = len(self.values) - np.cumsum(np.bincount(self.values))
        missing = np.cumsum(above[::-1])[::-1] / len(self.values)
        return [float(value) for value in missing]

    def shortage_tangents(self) -> tuple[tuple[float, float], ...]:
        """(slope, intercept) of tangents below the convex curve ``short``, exact at the chosen whole numbers."""
        points = {0, self.desired, *(int(v) for v in np.quantile(self.values, np.linspace(0.05, 0.999, _CUTS)))}
        tangents = {(self.short(c + 1) - self.short(c), c) for c in sorted(points)}
        return tuple((slope, self.short(c) - slope * c) for slope, c in sorted(tangents) if slope < 0)

    def tail(self) -> tuple[tuple[int, float], ...]:
        """(shards above desired, further coverage gained) in steps up to certainty."""
        beyond = self.peaks[self.peaks > self.desired]
        if len(beyond) == 0:
            return ()
        ranks = np.unique(np.linspace(0, len(beyond) - 1, min(_CUTS, len(beyond))).astype(int))
        levels = sorted({int(beyond[rank]) for rank in ranks})
        reached = [self.covered(self.desired), *(self.covered(level) for level in levels)]
        heights = [self.desired, *levels]
        return tuple((heights[i + 1] - heights[i], reached[i + 1] - reached[i]) for i in range(len(levels)))


@dataclass(frozen=True)
class Kind:
    """Pools that are one to an offer or a node: same slice, same places, same least performance."""

    shape: int
    placement: Placement
    min_performance: float
    is_storage: bool
    pools: tuple[int, ...]


@dataclass(frozen=True)
class Needs:
    pools: tuple[PoolNeed, ...]
    shapes: tuple[Resources, ...]
    """The distinct slices that are asked for."""
    _together: dict[tuple[int, ...], tuple[int, ...]] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def hours(self) -> float:
        """The longest horizon."""
        return max((pool.hours for pool in self.pools), default=1.0)

    @cached_property
    def desired(self) -> int:
        return sum(pool.desired for pool in self.pools)

    @cached_property
    def index_of(self) -> dict[str, int]:
        """By the pool's id."""
        return {pool.id: index for index, pool in enumerate(self.pools)}

    @cached_property
    def kinds(self) -> tuple[Kind, ...]:
        found: dict[tuple[int, Placement, float, bool], list[int]] = {}
        for index, need in enumerate(self.pools):
            of = need.target.pool
            key = (need.shape, of.placement, of.shard_type.min_performance, of.shard_type.is_storage)
            found.setdefault(key, []).append(index)
        return tuple(Kind(*key, tuple(pools)) for key, pools in found.items())

    def pools_of(self, kinds: Iterable[int]) -> tuple[int, ...]:
        """Ascending; for the same kinds the same tuple, since there may be as many nodes as pools."""
        key = tuple(kinds)
        if key not in self._together:
            self._together[key] = tuple(sorted(pool for kind in key for pool in self.kinds[kind].pools))
        return self._together[key]

    def asks_for(self, slot: ShardSlot) -> bool:
        """Its pool, and shards of that very type."""
        index = self.index_of.get(slot.pool)
        return index is not None and self.pools[index].target.pool.shard_type.name == slot.shard_type


def read_needs(policy: PlanPolicy, targets: Sequence[CapacityTarget]) -> Needs:
    """Pools in order of risk rank, then id. Raises BadUsageData on paths that are empty, ragged or negative."""
    shapes: list[Resources] = []
    pools: list[PoolNeed] = []
    for target in sorted(targets, key=lambda t: (policy.risk_of(t.pool).rank, t.pool.id)):
        slice_ = target.pool.shard_type.resources
        if slice_ not in shapes:
            shapes.append(slice_)
        pools.append(
            PoolNeed(
                target=target,
                risk=policy.risk_of(target.pool),
                shape=shapes.index(slice_),
                demand=_demand(target),
            )
        )
    if len({pool.id for pool in pools}) < len(pools):
        raise BadUsageData("two capacity targets name the same pool")
    return Needs(pools=tuple(pools), shapes=tuple(shapes))


def _demand(target: CapacityTarget) -> IntArray:
    lengths = {len(path) for path in target.demand_paths}
    if len(lengths) != 1 or 0 in lengths:
        raise BadUsageData(
            f"pool {target.pool.id}: demand paths of length {sorted(lengths)}",
            why="a capacity target needs at least one path, all of one length",
        )
    demand = np.array(target.demand_paths, dtype=np.int64)
    if demand.min() < 0:
        raise BadUsageData(f"pool {target.pool.id}: negative demand in its paths")
    return demand
