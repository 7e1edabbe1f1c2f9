"""What capacity is measured in, and how much of it will be needed."""

from collections.abc import Iterable
from datetime import timedelta
from math import ceil, floor
from typing import Annotated

from pydantic import Field

from engine.model.ids import PoolId
from engine.model.value import Utc, Value

Amount = Annotated[float, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, le=1)]


_ALWAYS_KNOWN = ("vcpus", "memory_gib")


class Resources(Value):
    """The vector that everything is cut from. 0 in a *need* means "no requirement".

    IOPS and bandwidth of 0 are no limit on a shard, and nothing that is known of a node.
    """

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

    @classmethod
    def total(cls, parts: Iterable["Resources"]) -> "Resources":
        """Together; nothing of each where there are none."""
        listed = tuple(parts)
        return cls(**{name: sum(getattr(part, name) for part in listed) for name in cls.model_fields})

    @classmethod
    def least(cls, parts: Iterable["Resources"]) -> "Resources":
        """What each of them holds at least; nothing where there are none."""
        listed = tuple(parts)
        return cls(**{name: min((getattr(part, name) for part in listed), default=0.0) for name in cls.model_fields})

    @property
    def counted(self) -> tuple[str, ...]:
        """The names of what it says something about."""
        return tuple(name for name in Resources.model_fields if name in _ALWAYS_KNOWN or getattr(self, name) > 0)

    def short_of(self, wanted: "Resources", beside: Iterable["Resources"] = ()) -> tuple[str, ...]:
        """What a node of these resources, as far as they are known, lacks for ``wanted`` next to what is there."""
        taken = (*beside, wanted)
        return tuple(
            name
            for name in self.counted
            if getattr(wanted, name) > 0 and sum(getattr(one, name) for one in taken) > getattr(self, name) + 1e-6
        )


class Growth(Value):
    """How far a shard may grow while it runs: room that its guest boots with. None: as the node's agent does it."""

    memory_gib: Annotated[float, Field(gt=0)] | None = None
    vcpus: Annotated[float, Field(gt=0)] | None = None


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

    def divided_into(self, name: str) -> int | None:
        """How many shards of the type with this name stand for one of this type: 1 for its own, None for another."""
        if name == self.name:
            return 1
        whole, _, parts = name.rpartition(".p")
        return int(parts) if whole == self.name and parts.isdecimal() else None

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
