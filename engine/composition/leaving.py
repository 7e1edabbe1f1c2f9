"""Replicas that leave: out of the name first, and let go once their time is over."""

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Protocol

import structlog

from engine.clock import Clock
from engine.composition.binding import Rules
from engine.errors import ProviderUnavailable, StaleEpoch, UnknownName
from engine.model.composite import CompositeRule
from engine.model.ids import NodeId
from engine.model.placement import Binding, ComponentName, Shard
from engine.store.shard_map import ShardMap

EVERY_SECONDS = 1.0
"""How often a control plane looks whose drain time is over."""
_log = structlog.get_logger()


class Releases(Protocol):
    """The part of the fleet that gives shards up (engine.fleet.nodes.Fleet)."""

    def release(self, shard: Shard) -> None: ...


class Drains:
    """Safe to share between threads and to repeat; what is draining is in the store."""

    def __init__(self, shard_map: ShardMap, rules: Rules, clock: Clock, fleet: Releases) -> None:
        self._map, self._rules, self._clock, self._fleet = shard_map, rules, clock, fleet

    def begin(self, names: Iterable[ComponentName], *, by: datetime | None = None) -> None:
        """Out of their names now; bound until their component's drain time is over, ``by`` at the latest."""
        now = self._clock.now()
        for name in names:
            rule = self._rules.get(name.base, CompositeRule())
            until = now + rule.drain
            self._map.drain(name, until if by is None else max(now, min(until, by)))

    def finish(self) -> tuple[Binding, ...]:
        """Unbind those whose time is over; returns them. Their shards are ready for somebody else.

        One with storage attached is given up instead: whoever gets its shard next must not find that disk.
        """
        now = self._clock.now()
        over = [one for one in self._map.bindings() if one.draining_until is not None and one.draining_until <= now]
        return tuple(one for one in over if self._let_go(one, now))

    def _let_go(self, one: Binding, now: datetime) -> bool:
        """False where another thread has done so, or where the replica is wanted again by now."""
        if one not in self._map.bindings(shard=one.shard):
            return False
        try:
            if self._rules.get(one.component.base, CompositeRule()).storage is None:
                return self._map.unbind(one.component, drained_by=now)
            self._fleet.release(self._map.get(one.shard))
        except (UnknownName, StaleEpoch):  # the latter is one that has just moved, and is looked at again
            return False
        except ProviderUnavailable as problem:
            # Its name is free for another; the shard is marked as given up, and a round sees to it.
            _log.warning("a drained shard is given up later", shard=one.shard, error=str(problem))
            self._map.unbind(one.component, drained_by=now)
        return True

    def wait_for(self, nodes: Collection[NodeId], *, by: datetime | None = None) -> None:
        """Until nothing on the nodes is being drained any more; bounded by the longest drain time and ``by``."""
        here = {shard.id for node in nodes for shard in self._map.search(node=node)}
        ends = [one.draining_until for one in self._map.bindings() if one.shard in here and one.draining_until]
        if ends:
            until = max(ends) if by is None else min(max(ends), by)
            self._clock.sleep(max(0.0, (until - self._clock.now()).total_seconds()))
        self.finish()
