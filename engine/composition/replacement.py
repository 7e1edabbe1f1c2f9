"""Which replicas are given up for fresh ones: those that are unhealthy for too long, and those on shards of a type that
their pool does not have any more. Pure.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from engine.composition.binding import Rules
from engine.composition.membership import bad_for, is_well, state_of
from engine.model.composite import HealthState, ShardHealth
from engine.model.ids import NodeId, PoolId, ShardId
from engine.model.placement import Binding, ComponentName, Shard, ShardState


def replicas_to_replace(
    bindings: Sequence[Binding],
    health: Mapping[ShardId, ShardHealth],
    rules: Rules,
    *,
    now: datetime,
    listening_since: datetime,
) -> tuple[Binding, ...]:
    """At most one of a component at a time, the one that is bad for longest, and only while half of its replicas
    are well: when most of them look bad at once, the check is likelier to be wrong than they are. So a component's only
    replica is never replaced.
    """
    by_component: dict[ComponentName, list[Binding]] = {}
    for one in bindings:
        if one.draining_until is None:
            by_component.setdefault(one.component.base, []).append(one)
    chosen = []
    for base, replicas in sorted(by_component.items(), key=lambda item: str(item[0])):
        rule = rules.get(base)
        if rule is None or rule.replace_after is None:
            continue
        bad = {one.component: bad_for(health.get(one.shard), now, listening_since) for one in replicas}
        well = sum(is_well(health.get(one.shard), now) for one in replicas)
        due = [one for one in replicas if bad[one.component] > rule.replace_after]
        if due and 2 * well >= len(replicas):
            chosen.append(max(due, key=lambda one: (bad[one.component], -one.component.index)))
    return tuple(chosen)


def lost_nodes(
    bindings: Sequence[Binding],
    health: Mapping[ShardId, ShardHealth],
    rules: Rules,
    *,
    now: datetime,
    listening_since: datetime,
) -> frozenset[NodeId]:
    """Silent nodes all of whose bound shards are to be replaced now: there is nothing left on them to wait for."""
    replaced = {
        one.shard for one in replicas_to_replace(bindings, health, rules, now=now, listening_since=listening_since)
    }
    silent = {health[shard].node for shard in replaced if state_of(health[shard], now)[0] is HealthState.SILENT}
    bound = {one.shard for one in bindings}
    kept = {seen.node for shard, seen in health.items() if shard in bound and shard not in replaced}
    return frozenset(silent - kept)


def replicas_to_renew(
    bindings: Sequence[Binding],
    usable: Sequence[Shard],
    asked: Mapping[PoolId, str],
    replicas: Mapping[PoolId, int],
    *,
    going: Collection[NodeId],
    ending: Collection[NodeId],
) -> tuple[Binding, ...]:
    """Those on shards of another type than is asked for of their pool: as many as ready ones of that type can take over
    from, beside those that replicas wait for that nothing serves yet; first those on nodes that leave.

    ``usable``: bound shards, and others that may be bound once they are ready. ``going``: nodes that are left;
    ``ending``: those that are taken back, for what is on them is being moved already.
    """
    shards = {shard.id: shard for shard in usable}
    serving = [one for one in bindings if one.shard in shards and one.draining_until is None]
    bound = {one.shard for one in bindings}
    ready = (shard for shard in usable if shard.id not in bound and shard.state is ShardState.READY)
    spare = Counter(shard.pool for shard in ready if shard.shard_type == asked.get(shard.pool))
    served = Counter(shards[one.shard].pool for one in serving)
    for pool, number in replicas.items():
        spare[pool] -= max(0, number - served[pool])
    chosen = []
    for one in sorted(serving, key=lambda one: (shards[one.shard].node not in going, str(one.component))):
        shard = shards[one.shard]
        other = shard.pool in asked and shard.shard_type != asked[shard.pool]
        if other and shard.node not in ending and spare[shard.pool] > 0:
            spare[shard.pool] -= 1
            chosen.append(one)
    return tuple(chosen)
