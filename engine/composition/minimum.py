"""Demand that does not come from usage: the least number of replicas, and the storage that goes with them. Pure."""

from collections.abc import Mapping, Sequence
from datetime import timedelta

from engine.composition.binding import Rules
from engine.model.capacity import CapacityTarget, Pool, TargetStep
from engine.model.ids import PoolId
from engine.model.placement import ComponentName
from engine.model.value import Utc


def least_shards(components: Mapping[PoolId, Sequence[ComponentName]], rules: Rules) -> dict[PoolId, int]:
    """How many shards each pool needs for its components' replicas alone; storage pools included."""
    found: dict[PoolId, int] = {}
    for pool, names in components.items():
        for name in names:
            rule = rules.get(name)
            if rule is None:
                continue
            found[pool] = found.get(pool, 0) + rule.replicas
            if rule.storage is not None:
                found[rule.storage] = found.get(rule.storage, 0) + rule.replicas
    return found


def at_least(target: CapacityTarget, shards: int) -> CapacityTarget:
    """The same target, nowhere below ``shards``."""
    if shards <= 0:
        return target
    return target.model_copy(
        update={
            "desired": max(target.desired, shards),
            "steps": tuple(
                TargetStep(
                    start=step.start,
                    shards_by_quantile=tuple((q, max(number, shards)) for q, number in step.shards_by_quantile),
                )
                for step in target.steps
            ),
            "demand_paths": tuple(tuple(max(number, shards) for number in path) for path in target.demand_paths),
        }
    )


def constant(pool: Pool, shards: int, *, step: timedelta, steps: int, now: Utc) -> CapacityTarget:
    """So many shards at every step, for certain."""
    return CapacityTarget(
        pool=pool,
        step=step,
        steps=tuple(
            TargetStep(start=now + number * step, shards_by_quantile=((0.5, shards),)) for number in range(steps)
        ),
        demand_paths=((shards,) * steps,),
        desired=shards,
        current=shards,
        forecaster="the configuration",
        made_at=now,
    )
