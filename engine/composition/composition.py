"""What a round does for composites: replicas that are demanded, replaced, bound and drained, and their storage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from agent.image import MINIMUM_MEMORY_MIB
from engine.clock import Clock
from engine.composition.binding import Rules, plan_bindings
from engine.composition.leaving import Drains, Releases
from engine.composition.membership import is_well
from engine.composition.minimum import at_least, constant, least_shards
from engine.composition.replacement import lost_nodes, replicas_to_replace
from engine.composition.storage import Storage
from engine.errors import ProviderUnavailable
from engine.events import Event, Observe
from engine.market.base import ShardsWanted
from engine.model.capacity import CapacityTarget, Pool, ShardType
from engine.model.ids import NodeId, PoolId, provider_of
from engine.model.placement import ComponentName, NodeState, Shard
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
        memory = next((one.shard_type.resources.memory_gib for one in self.pools if one.id == pool), 0.0)
        return max(1, min(allowed, int(memory * 1024 / MINIMUM_MEMORY_MIB + 1e-9)))

    def wanted(self, targets: Sequence[CapacityTarget]) -> tuple[ShardsWanted, ...]:
        """By pool: the least that a useful offer must hold, and how often that is needed."""
        found = []
        for target in targets:
            parts = self.max_parts(target.pool.id)
            smallest = target.pool.shard_type.part(parts).resources
            found.append(ShardsWanted(slice=smallest, count=target.desired * parts))
        return tuple(found)

    def shard_types(self) -> dict[str, ShardType]:
        """By name, those of parts included."""
        return {
            part.name: part
            for pool in self.pools
            for parts in range(1, self.max_parts(pool.id) + 1)
            for part in (pool.shard_type.part(parts),)
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
            self.shard_map.unbind(one.component)
            try:
                self.fleet.release(self.shard_map.get(one.shard))
            except ProviderUnavailable as problem:
                self._say("health", f"{one.shard} goes with its node: {problem}")
        self.health.forget()

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
        drained = {node.id for node in self.shard_map.nodes(states=[NodeState.DRAINING])}
        reclaimed = {node.id for node in self.shard_map.nodes(states=[NodeState.RECLAIMING])}
        going = drained | reclaimed | set(plan.leaving)
        shards = self.shard_map.search()
        usable = [
            one for one in shards if one.id in bound or (one.node not in going and is_well(health.get(one.id), now))
        ]
        choice = plan_bindings(
            self.components,
            replicas,
            usable,
            bindings,
            rules=self.rules,
            providers={node.id: provider_of(node.cell) for node in self.shard_map.nodes()},
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
            self.shard_map.bind(component, shard_id)
            self._say("bind", f"{component} -> {shard_id}")
        for sentence in choice.crowded:
            self._say("bind", sentence)
        return self._attach()

    def _attach(self) -> list[str]:
        for one in self.storage.assign():
            self._say("bind", f"{one.component} keeps its data on {one.storage}")
        problems = list(self.storage.connect_all())
        for problem in problems:
            self._say("bind", problem)
        return problems

    def _say(self, step: str, text: str) -> None:
        self.observe(Event(step=step, text=text))
