"""Where nodes tell how their shards are, and hear which ones to check."""

from agent.wire import HealthOrders, HealthRequest, OrderedCheck
from engine.composition.binding import Rules
from engine.events import Event, Observe
from engine.model.composite import HealthState
from engine.model.ids import NodeId
from engine.store.shard_health import HealthBook, Reported
from engine.store.shard_map import ShardMap


class HealthDesk:
    """Called from the threads of the control listener."""

    def __init__(self, shard_map: ShardMap, book: HealthBook, rules: Rules, observe: Observe) -> None:
        self._map, self._book, self._rules, self._observe = shard_map, book, rules, observe
        self._asked = any(rule.check is not None or rule.storage is not None for rule in rules.values())
        """Where no component asks for it, nothing is written down."""

    def __call__(self, node: NodeId, request: HealthRequest) -> HealthOrders:
        if not self._asked:
            return HealthOrders(checks=())
        told = [Reported.model_validate(one.model_dump()) for one in request.shards]
        for change in self._book.report(node, told):
            if change.state is HealthState.UNHEALTHY:
                text = f"{change.shard} on {node} is unhealthy: {change.reason}"
                self._observe(Event(step="health", text=text, facts={"shard": change.shard, "node": node}))
        here = {one.shard for one in request.shards}
        checks = []
        for binding in self._map.bindings() if here else ():
            rule = self._rules.get(binding.component.base)
            if binding.shard in here and rule is not None and rule.check is not None:
                checks.append(OrderedCheck(shard=binding.shard, check=rule.check))
        return HealthOrders(checks=tuple(checks))
