"""Which correlation groups a pool may be exposed to: the combinatorial part of the chance constraint, decided ahead.

A pool that would fall below what is desired when a group is reclaimed is exposed to it, and the probabilities of the
groups it is exposed to must fit between its coverage and its quantile. More shards raise the coverage and make room
for more groups, so each pool gets a short menu: so many shards, these groups. The solver picks from the menu; a group
outside of it may still be used as far as its loss leaves what is desired.
"""

from collections.abc import Collection
from dataclasses import dataclass
from math import inf

from engine.planner.programme import Programme

_MOST_OPTIONS = 3
_MOST_EXPOSED = 6
_MOST_CONSIDERED = 10


@dataclass(frozen=True)
class RiskOption:
    shards: int
    """At least so many."""
    groups: tuple[str, ...]
    """Losing any one of these may take the pool below what is desired."""


@dataclass(frozen=True)
class PoolRisk:
    options: tuple[RiskOption, ...]
    considered: frozenset[str]
    """Groups that the pool may use at all: those it runs on, those of the menu and the cheapest others."""


def pool_risk(programme: Programme, pool: int, used: Collection[str] = (), *, prefer_used: bool = False) -> PoolRisk:
    """``used``: groups that must be considered in any case; with ``prefer_used`` they also come first on the menu."""
    need = programme.needs.pools[pool]
    ranked = _ranked(programme, pool)
    if prefer_used:
        ranked.sort(key=lambda group: group not in used)
    asked = programme.asked_quantile(pool)
    levels = [need.desired]
    for height, _ in need.tail():
        levels.append(levels[-1] + height)
    options: list[RiskOption] = []
    for level in levels:
        slack = need.covered(level) - asked
        groups = _within(programme, ranked, slack)
        if slack >= -1e-9 and (not options or set(groups) > set(options[-1].groups)):
            options.append(RiskOption(level, groups))
    if not options:
        options = [RiskOption(levels[-1], ())]
    chosen = tuple(options[:_MOST_OPTIONS])
    running = {node.supply.group for node in programme.running if node.supply.group is not None and node.held[pool] > 0}
    considered = {*running, *used, *(group for option in chosen for group in option.groups)}
    for group in ranked:
        if len(considered) >= _MOST_CONSIDERED:
            break
        considered.add(group)
    return PoolRisk(chosen, frozenset(considered))


def _within(programme: Programme, ranked: list[str], slack: float) -> tuple[str, ...]:
    taken: list[str] = []
    for group in ranked:
        loss = programme.group_loss[group]
        if loss <= slack + 1e-12 and len(taken) < _MOST_EXPOSED:
            taken.append(group)
            slack -= loss
    return tuple(taken)


def _ranked(programme: Programme, pool: int) -> list[str]:
    """Groups that carry the pool, those it already runs on first, then by price per shard-hour with the risk on top."""
    need = programme.needs.pools[pool]
    running = {node.supply.group for node in programme.running if node.held[pool]}
    best: dict[str, float] = {group: 0.0 for group in running if group is not None}
    scores, dearest = programme.shard_scores, programme.dearest_scores[need.shape]
    for index in programme.serving[pool]:
        group, score = programme.supplies[index].group, scores[index][need.shape]
        if group is not None and score < inf:
            price = score + dearest * programme.group_loss[group]
            best[group] = min(price, best.get(group, price))
    return sorted(best, key=lambda group: (best[group], group))
