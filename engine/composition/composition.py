"""What a round does for composites: replicas that are demanded, replaced, bound and drained, and their storage."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from agent.image import MINIMUM_MEMORY_MIB
from engine.clock import Clock
from engine.composition.binding import Rules, plan_bindings
from engine.composition.leaving import Drains, Releases
from engine.composition.membership import is_well
from engine.composition.minimum import at_least, constant, least_shards
from engine.composition.replacement import lost_nodes, replicas_to_renew, replicas_to_replace
from engine.composition.storage import Storage
from engine.errors import ConcurrentUpdate, ProviderUnavailable, StaleEpoch, UnknownName, UsageError
from engine.events import Event, Observe
from engine.market.base import ShardsWanted
from engine.model.capacity import CapacityTarget, Pool, ShardType
from engine.model.composite import MOST_PARTS
from engine.model.ids import NodeId, PoolId, provider_of
from engine.model.placement import Binding, ComponentName, NodeState, Shard
from engine.model.plan import Plan
from engine.store.shard_health import HealthBook
from engine.store.shard_map import ShardMap


@dataclass(frozen=True)
class Composition:
    """Each act may be repeated after a crash and finds its own traces."""

    pools: tuple[Pool, ...]
    components: Mapping[PoolId, tuple[ComponentName, ...]]
    rules: Rules
    shard_map: ShardMap
    health: HealthBook
    drains: Drains
    storage: Storage
    fleet: Releases
    clock: Clock
    observe: Observe
    listening_since: datetime
    """When this process began to take nodes' reports."""

    def with_replicas(self, targets: Sequence[CapacityTarget]) -> tuple[CapacityTarget, ...]:
        """The forecast's targets, nowhere below the least number of replicas; and those of the storage pools."""
        least = least_shards(self.components, self.rules)
        lifted = tuple(at_least(target, least.get(target.pool.id, 0)) for target in targets)
        if not lifted:
            return lifted
        step, steps, now = lifted[0].step, len(lifted[0].steps), self.clock.now()
        disks = (pool for pool in self.pools if pool.shard_type.is_storage)
        return lifted + tuple(constant(pool, least.get(pool.id, 0), step=step, steps=steps, now=now) for pool in disks)

    def max_parts(self, pool: PoolId) -> int:
        """As every component of the pool allows, and as a guest's least memory does."""
        rules = [self.rules.get(name) for name in self.components.get(pool, ())]
        allowed = min((1 if rule is None else rule.max_parts for rule in rules), default=1)
        memory = self._types[pool].resources.memory_gib if pool in self._types else 0.0
        return max(1, min(allowed, int(memory * 1024 / MINIMUM_MEMORY_MIB + 1e-9)))

    @cached_property
    def _types(self) -> dict[PoolId, ShardType]:
        return {pool.id: pool.shard_type for pool in self.pools}

    def wanted(self, targets: Sequence[CapacityTarget]) -> tuple[ShardsWanted, ...]:
        """By pool: the least that a useful offer must hold, and how often that is needed."""
        divisions = self._divisions() if targets else {}
        found = []
        for target in targets:
            parts = max(self.max_parts(target.pool.id), divisions.get(target.pool.id, 1))
            smallest = target.pool.shard_type.part(parts).resources
            found.append(ShardsWanted(slice=smallest, count=target.desired * parts))
        return tuple(found)

    def _divisions(self) -> dict[PoolId, int]:
        """Into how many parts at most what is there is divided, whatever its components allow now."""
        found: dict[PoolId, int] = {}
        for pool, name in {(shard.pool, shard.shard_type) for shard in self.shard_map.search()}:
            parts = self._types[pool].divided_into(name) if pool in self._types else None
            found[pool] = max(found.get(pool, 1), parts or 1)
        return found

    def shard_types(self) -> dict[str, ShardType]:
        """By name, with every part of them: what is divided stays so when its components no longer allow it."""
        distinct = {of.name: of for of in self._types.values()}
        return {
            part.name: part
            for of in distinct.values()
            for parts in range(1, 2 if of.is_storage else MOST_PARTS + 1)
            for part in (of.part(parts),)
        }

    def lost_nodes(self) -> frozenset[NodeId]:
        return lost_nodes(
            self.shard_map.bindings(),
            self.health.all(),
            self.rules,
            now=self.clock.now(),
            listening_since=self.listening_since,
        )

    def replace_unhealthy(self) -> None:
        """Give up replicas that have been ill for too long; this round carves and binds others in their place."""
        health, now = self.health.all(), self.clock.now()
        bindings, since = self.shard_map.bindings(), self.listening_since
        for one in replicas_to_replace(bindings, health, self.rules, now=now, listening_since=since):
            self._say("health", f"{one.component}: {one.shard} has been unhealthy for too long and is replaced")
            self._let_go(one, "health")
        self.health.forget()

    def _let_go(self, one: Binding, step: str) -> None:
        """The shard is given up, and its name is free for another."""
        self.shard_map.unbind(one.component)
        try:
            self.fleet.release(self.shard_map.get(one.shard))
        except (UnknownName, StaleEpoch):
            return  # given up beside this round; or moved, to where it is judged anew
        except ProviderUnavailable as problem:
            self._say(step, f"{one.shard} is given up later, or goes with its node: {problem}")

    def create_disks(self, shards: Sequence[Shard]) -> list[str]:
        """Those of the shards that are storage; returns what went wrong."""
        sizes = {pool.shard_type.name: pool.shard_type.disk_gib for pool in self.pools}
        problems = []
        for shard in shards:
            if sizes.get(shard.shard_type, 0) > 0:
                made = self.storage.create(shard, round(sizes[shard.shard_type] * 1024))
                problems += [f"{made.shard}: {made.failure}"] if made.failure else []
                self._say("carve", problems[-1] if made.failure else f"{made.shard} is ready to lend its disk")
        return problems

    def bind(self, replicas: Mapping[PoolId, int], plan: Plan) -> list[str]:
        """As many replicas of each pool, in the plan's parts; the others are drained. Returns what went wrong."""
        least = least_shards(self.components, self.rules)
        replicas = {pool: plan.parts_of(pool) * max(number, least.get(pool, 0)) for pool, number in replicas.items()}
        self.drains.finish()
        health, now, bindings = self.health.all(), self.clock.now(), self.shard_map.bindings()
        bound = {one.shard for one in bindings}
        drained = {node.id for node in self.shard_map.nodes(states=[NodeState.DRAINING, NodeState.LEAVING])}
        reclaimed = {node.id for node in self.shard_map.nodes(states=[NodeState.RECLAIMING])}
        going = drained | reclaimed | set(plan.leaving)
        shards = self.shard_map.search()
        usable = [
            one for one in shards if one.id in bound or (one.node not in going and is_well(health.get(one.id), now))
        ]
        here = {one.node for one in shards}
        bindings, usable = self._renewed(plan, replicas, bindings, usable, going=going, ending=reclaimed)
        choice = plan_bindings(
            self.components,
            replicas,
            usable,
            bindings,
            rules=self.rules,
            providers={node.id: provider_of(node.cell) for node in self.shard_map.nodes(ids=here)},
        )
        self.drains.begin(choice.drain)
        for component in choice.drain:
            self._say("bind", f"{component} leaves its name and is drained")
        lost = {shard.id for shard in shards if shard.node in reclaimed}
        ending = {one.component for one in bindings if one.shard in lost}
        for component in choice.keep:
            if component in ending:
                continue  # its evacuation found no place for it; it is bound elsewhere once it is gone
            self.shard_map.keep(component)
            self._say("bind", f"{component} is wanted again")
        for component, shard_id in choice.bind:
            try:
                self.shard_map.bind(component, shard_id)
            except (ConcurrentUpdate, UsageError) as problem:
                # Its node leaves, or an evacuation has given the spare up meanwhile; the next round binds another.
                self._say("bind", f"{component} waits: {problem}")
            else:
                self._say("bind", f"{component} -> {shard_id}")
        for sentence in choice.crowded:
            self._say("bind", sentence)
        return self._attach()

    def _renewed(
        self,
        plan: Plan,
        replicas: Mapping[PoolId, int],
        bindings: Sequence[Binding],
        usable: Sequence[Shard],
        *,
        going: Collection[NodeId],
        ending: Collection[NodeId],
    ) -> tuple[tuple[Binding, ...], list[Shard]]:
        """Both without the shards of another type than their pool's that have given way to ready ones of its own."""
        asked = {pool: of.part(plan.parts_of(pool)).name for pool, of in self._types.items()}
        renewed = replicas_to_renew(bindings, usable, asked, replicas, going=going, ending=ending)
        for one in renewed:
            self._say("bind", f"{one.component}: {one.shard} is not of its pool's type any more and is replaced")
            self._let_go(one, "bind")
        given_up, bound = {one.shard for one in renewed}, {one.shard for one in bindings}
        pools = {shard.pool for shard in usable if shard.id in given_up}
        return tuple(one for one in bindings if one not in renewed), [
            shard
            for shard in usable
            if shard.id not in given_up
            and (shard.id in bound or shard.pool not in pools or shard.shard_type == asked[shard.pool])
        ]

    def _attach(self) -> list[str]:
        for one in self.storage.assign():
            self._say("bind", f"{one.component} keeps its data on {one.storage}")
        problems = list(self.storage.connect_all())
        for problem in problems:
            self._say("bind", problem)
        return problems

    def _say(self, step: str, text: str) -> None:
        self.observe(Event(step=step, text=text))
