"""Who answers to a name: the replicas that serve, and for the others why not. Pure."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta

from engine.model.composite import HealthState, ShardHealth
from engine.model.ids import ShardId
from engine.model.placement import Binding, ComponentName
from engine.model.value import Value

SILENT_AFTER = timedelta(seconds=30)
"""A node reports every ten seconds; so long without a word, and its shards are not counted on."""


class Standing(Value):
    """One replica as its name sees it."""

    serves: bool
    """Whether the component's name leads to it."""
    health: HealthState
    reason: str = ""
    """Why it does not serve, or what else is worth telling."""


def standings(
    bindings: Sequence[Binding],
    health: Mapping[ShardId, ShardHealth],
    storage: Mapping[ComponentName, ShardId],
    *,
    now: datetime,
    gone: Collection[ShardId] = (),
) -> dict[ComponentName, Standing]:
    """Of every replica. ``storage``: the shard that holds a replica's data, where it has one; ``gone``: those of them
    that were lost.

    Unhealthy, silent and draining replicas are not in the name. Where that would leave none, a name leads to every
    replica that is not draining: a check that is wrong, or a control plane that has slept, must not take all of them.
    A replica that was never checked serves.
    """
    found = {one.component: _alone(one, health, storage, gone, now) for one in bindings}
    served = {name.base for name, standing in found.items() if standing.serves}
    draining = {one.component for one in bindings if one.draining_until is not None}
    for name, standing in found.items():
        if name.base not in served and name not in draining:
            told = f"{standing.reason}; so are all others, so all are told"
            found[name] = standing.model_copy(update={"serves": True, "reason": told})
    return found


def _alone(
    binding: Binding,
    health: Mapping[ShardId, ShardHealth],
    storage: Mapping[ComponentName, ShardId],
    gone: Collection[ShardId],
    now: datetime,
) -> Standing:
    state, reason = state_of(health.get(binding.shard), now)
    if binding.draining_until is not None:
        return Standing(serves=False, health=state, reason=f"drained until {binding.draining_until:%H:%M:%S} UTC")
    if state in _BAD:
        return Standing(serves=False, health=state, reason=reason)
    disk = storage.get(binding.component)
    if disk in gone:
        return Standing(serves=False, health=HealthState.UNHEALTHY, reason=f"its storage {disk} is lost")
    behind, why = (HealthState.HEALTHY, "") if disk is None else state_of(health.get(disk), now)
    if behind in _BAD:
        return Standing(serves=False, health=HealthState.UNHEALTHY, reason=f"its storage {disk} is {behind}: {why}")
    return Standing(serves=True, health=state)


_BAD = (HealthState.UNHEALTHY, HealthState.SILENT)


def state_of(seen: ShardHealth | None, now: datetime) -> tuple[HealthState, str]:
    """The state as it counts now, and why."""
    if seen is None:
        return HealthState.UNKNOWN, ""
    quiet = now - seen.reported_at
    if quiet > SILENT_AFTER:
        return HealthState.SILENT, f"node {seen.node} has said nothing for {quiet.total_seconds():.0f} s"
    return seen.state, seen.reason


def is_well(seen: ShardHealth | None, now: datetime) -> bool:
    """Nothing bad is known of it."""
    return state_of(seen, now)[0] not in _BAD


def bad_for(seen: ShardHealth | None, now: datetime, listening_since: datetime) -> timedelta:
    """How long a shard has been unhealthy or silent without a break; nothing for one that is not.

    Silence counts only while somebody listened: a control plane that was away knows nothing of that time.
    """
    if seen is None:
        return timedelta(0)
    state, _ = state_of(seen, now)
    if state is HealthState.SILENT:
        return now - max(listening_since, seen.since if seen.state is HealthState.UNHEALTHY else seen.reported_at)
    return now - seen.since if state is HealthState.UNHEALTHY else timedelta(0)
