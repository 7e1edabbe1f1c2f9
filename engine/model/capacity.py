"""What capacity is measured in, and how much of it will be needed."""

from datetime import timedelta
from math import ceil, floor
from typing import Annotated

from pydantic import Field

from engine.model.ids import PoolId
from engine.model.value import Utc, Value

Amount = Annotated[float, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, le=1)]


class Resources(Value):
    """The vector that everything is cut from. 0 in a *need* means "no requirement"."""

    vcpus: Amount
    memory_gib: Amount
    storage_iops: Amount = 0
    network_mbps: Amount = 0

    def holds(self, slice_: "Resources") -> int:
        """How many slices fit: the minimum over resources of floor(whole / slice)."""
        pairs = (
            (self.vcpus, slice_.vcpus),
            (self.memory_gib, slice_.memory_gib),
            (self.storage_iops, slice_.storage_iops),
            (self.network_mbps, slice_.network_mbps),
        )
        return min((floor(whole / part + 1e-9) for whole, part in pairs if part > 0), default=0)


class ShardType(Value):
    """A named vector plus the performance below which it does not count."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*(\.[a-z0-9]+)+$")]
    resources: Resources
    min_performance: Annotated[float, Field(ge=0)] = 0.0
    """Single-core score relative to the reference core (1.0)."""
    disk_gib: Amount = 0
    """Size of the disk that such a shard lends to others over the network; 0: it runs a guest."""

    def part(self, parts: int) -> "ShardType":
        """One of so many equal parts, a type of its own; memory in whole MiB, so that together they are no less."""
        if parts == 1:
            return self
        whole = self.resources
        mib = ceil(whole.memory_gib * 1024 / parts - 1e-9)
        return self.model_copy(
            update={
                "name": f"{self.name}.p{parts}",
                "resources": Resources(
                    vcpus=whole.vcpus / parts,
                    memory_gib=mib / 1024,
                    storage_iops=whole.storage_iops / parts,
                    network_mbps=whole.network_mbps / parts,
                ),
            }
        )

    @property
    def is_storage(self) -> bool:
        return self.disk_gib > 0


class RiskClass(Value):
    """How sure a pool must be. ``rank`` 0 is served first."""

    name: str
    rank: Annotated[int, Field(ge=0)]
    quantile: Annotated[float, Field(gt=0, lt=1)]
    """The demand quantile that a plan must cover."""
    max_shortfall: Probability
    """Largest acceptable share of demanded shard-hours left unserved."""


class Placement(Value):
    """Where a pool may live; an empty tuple means anywhere."""

    providers: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()

    def allows(self, provider: str, region: str) -> bool:
        return (not self.providers or provider in self.providers) and (not self.regions or region in self.regions)


class Pool(Value):
    """Shard type x placement x risk class: the unit that is forecast."""

    id: PoolId
    shard_type: ShardType
    risk_class: RiskClass
    placement: Placement = Placement()


class TargetStep(Value):
    """One step of the horizon: how many shards, by quantile of demand (whole shards)."""

    start: Utc
    shards_by_quantile: tuple[tuple[float, int], ...]


class CapacityTarget(Value):
    """What the forecaster writes for one pool.

    ``demand_paths`` are joint sample paths of demand in whole shards, shape (paths, steps); the planner prices
    risk on them. ``desired`` is the risk class's quantile of each path's maximum over the horizon.
    """

    pool: Pool
    step: timedelta
    steps: tuple[TargetStep, ...]
    demand_paths: tuple[tuple[int, ...], ...]
    desired: Annotated[int, Field(ge=0)]
    current: Annotated[int, Field(ge=0)]
    """Shards in use when the forecast was made."""
    forecaster: str
    network: str = ""
    """Which network the forecaster used and where it came from; empty: not told."""
    made_at: Utc
    history_end: Utc | None = None
    """Where the measured usage ends that the forecast was made from; None: there is none (synthetic), or not told."""

    @property
    def history_age(self) -> timedelta | None:
        """How old the newest usage was when the forecast was made; negative for a history of the future."""
        return None if self.history_end is None else self.made_at - self.history_end
