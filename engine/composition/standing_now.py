"""Who serves at this moment, read from the store: what resolvers, the API and the pages ask."""

from collections.abc import Mapping, Sequence

from engine.clock import Clock
from engine.composition.membership import Standing, standings
from engine.model.placement import Binding, ComponentName
from engine.store.opened import Store


class StandingNow:
    """``engine.namespace.resolver.Members``. Keeps nothing."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock

    def __call__(self, bindings: Sequence[Binding]) -> Mapping[ComponentName, Standing]:
        storage = {one.component: one.storage for one in self._store.attachments.all()}
        there = {shard.id for shard in self._store.shard_map.search()} if storage else set()
        gone = [shard for shard in storage.values() if shard not in there]
        return standings(bindings, self._store.health.all(), storage, now=self._clock.now(), gone=gone)
