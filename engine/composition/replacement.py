"""Which replicas are given up for fresh ones because they have been unhealthy for too long. Pure."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from engine.composition.binding import Rules
from engine.composition.membership import bad_for, is_well, state_of
from engine.model.composite import HealthState, ShardHealth
from engine.model.ids import NodeId, ShardId
from engine.model.placement import Binding, ComponentName


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
