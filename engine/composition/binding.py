"""Which shard serves which replica of a component: spread over providers and nodes, and drained on leave. Pure."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from engine.model.composite import CompositeRule
from engine.model.ids import NodeId, PoolId, ShardId
from engine.model.placement import Binding, ComponentName, Shard, ShardState
from engine.model.value import Value

Rules = Mapping[ComponentName, CompositeRule]
"""By component (number 0); what is not named follows CompositeRule's defaults."""


class BindPlan(Value):
    bind: tuple[tuple[ComponentName, ShardId], ...]
    drain: tuple[ComponentName, ...]
    """Replicas that are not wanted any more: out of the name now, gone a little later."""
    keep: tuple[ComponentName, ...] = ()
    """Replicas that were being drained and are wanted again."""
    crowded: tuple[str, ...] = ()
    """One sentence for each component with more replicas at one provider than its rule allows."""


def plan_bindings(
    components: Mapping[PoolId, Sequence[ComponentName]],
    replicas: Mapping[PoolId, int],
    shards: Sequence[Shard],
    bindings: Sequence[Binding],
    *,
    rules: Rules,
    providers: Mapping[NodeId, str],
) -> BindPlan:
    """Share each pool's replicas among its components: to each its least number first, the rest in turns.

    ``components`` are named with number 0. What is bound stays bound. A pool binds at most as many shards as it has;
    the others stay ready, as headroom and as room for evacuations. A new replica goes to the provider that has the
    fewest of its component, there to the node with the fewest bound shards of the pool.

    A replica on another pool's shard (its component was given this pool since) serves there until this pool has a free
    shard, and is bound to that one then. One with data of its own is drained first: two shards never write to it.
    """
    bound = {binding.component: binding for binding in bindings}
    holders = {binding.shard: binding.component.base for binding in bindings}
    bind: list[tuple[ComponentName, ShardId]] = []
    drain: list[ComponentName] = []
    keep: list[ComponentName] = []
    crowded: list[str] = []
    for pool, names in components.items():
        mine = {name: one for name, one in bound.items() if name.base in names}
        usable = [s for s in shards if s.pool == pool and _may_serve(s, holders.get(s.id), names)]
        ids = {shard.id for shard in usable}
        here = {name: one for name, one in mine.items() if one.shard in ids}
        elsewhere = mine.keys() - here.keys()
        least = {name: rules.get(name, CompositeRule()).replicas for name in names}
        fixed = {name for name in names if rules.get(name, CompositeRule()).storage is not None}
        demand = max(replicas.get(pool, 0), sum(least.values()))
        wanted = _wanted(names, least, fixed, min(demand, len(usable)))
        leaving = (here.keys() - set(wanted)) | (elsewhere - set(_wanted(names, least, fixed, demand)))
        places = _Places(usable, {name: one.shard for name, one in here.items()}, set(wanted), providers)
        for name in wanted:
            if name in here or (chosen := places.next_for(name)) is None:
                continue
            if name in elsewhere and name.base in fixed:
                leaving.add(name)
            else:
                bind.append((name, chosen))
        drain += [name for name in sorted(leaving, key=str) if not mine[name].draining_until]
        keep += [name for name in wanted if name in here and here[name].draining_until]
        crowded += [text for name in names if (text := places.crowded(name, rules.get(name, CompositeRule())))]
    return BindPlan(bind=tuple(bind), drain=tuple(drain), keep=tuple(keep), crowded=tuple(crowded))


_SERVING = (ShardState.READY, ShardState.BOUND)


def _may_serve(shard: Shard, holder: ComponentName | None, names: Collection[ComponentName]) -> bool:
    """Free, or one of these components' own; another pool's component may still be on a shard of this one."""
    return shard.state in _SERVING if holder is None else holder in names


def _wanted(
    names: Sequence[ComponentName], least: Mapping[ComponentName, int], fixed: Collection[ComponentName], count: int
) -> list[ComponentName]:
    """``count`` replicas at most: first those of the components that are below their least number, then by turns.

    ``fixed``: components that never have more than that, since each replica has data of its own.
    """
    has = dict.fromkeys(names, 0)
    wanted = []
    for _ in range(count):
        open_ = [one for one in names if one not in fixed or has[one] < least[one]]
        if not open_:
            break
        name = min(open_, key=lambda one: (has[one] >= least[one], has[one]))
        wanted.append(name.model_copy(update={"index": has[name]}))
        has[name] += 1
    return wanted


class _Places:
    """Which shards of one pool are free, and who serves where, while replicas are handed out."""

    def __init__(
        self,
        usable: Sequence[Shard],
        mine: Mapping[ComponentName, ShardId],
        wanted: set[ComponentName],
        providers: Mapping[NodeId, str],
    ) -> None:
        self._usable = {shard.id: shard for shard in usable}
        self._providers = providers
        self._leaving = {shard for name, shard in mine.items() if name not in wanted}
        self._serving = {name: shard for name, shard in mine.items() if name in wanted}

    def next_for(self, name: ComponentName) -> ShardId | None:
        taken = set(self._serving.values()) | self._leaving
        free = [shard for shard in self._usable.values() if shard.id not in taken]
        if not free:
            return None  # those that are being let go are free next time
        at, load = self._by_provider(name), self._by_node()
        chosen = min(free, key=lambda one: (at[self._provider(one)], load[one.node], one.id))
        self._serving[name] = chosen.id
        return chosen.id

    def crowded(self, name: ComponentName, rule: CompositeRule) -> str:
        """Empty where the component keeps to its rule."""
        at = self._by_provider(name)
        most = rule.most_with_one_provider(at.total())
        over = [f"{number} with {provider}" for provider, number in sorted(at.items()) if number > most]
        if not over:
            return ""
        base = str(name).removesuffix("/0")
        return f"{base}: {', '.join(over)} of {at.total()} replicas, above the {most} that its rule allows"

    def _by_provider(self, name: ComponentName) -> Counter[str]:
        here = (self._usable[shard] for one, shard in self._serving.items() if one.base == name.base)
        return Counter(self._provider(shard) for shard in here)

    def _by_node(self) -> Counter[NodeId]:
        return Counter(self._usable[shard].node for shard in self._serving.values())

    def _provider(self, shard: Shard) -> str:
        return self._providers.get(shard.node, "")
