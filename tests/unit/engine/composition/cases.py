"""Replicas of shop/web/api and what is known of them."""

from datetime import UTC, datetime, timedelta

from engine.model.capacity import Resources
from engine.model.composite import HealthState, ShardHealth
from engine.model.ids import NodeId, PoolId, ShardId
from engine.model.placement import Binding, ComponentName, Shard, ShardState

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
WEB = PoolId("web")
API = ComponentName(namespace="shop", workload="web", component="api")


def replica(index: int, of: ComponentName = API) -> ComponentName:
    return of.model_copy(update={"index": index})


def shard(name: str, node: str, state: ShardState = ShardState.READY, pool: PoolId = WEB) -> Shard:
    return Shard(
        id=ShardId(name),
        shard_type="cpu.small",
        pool=pool,
        node=NodeId(node),
        state=state,
        nominal=Resources(vcpus=1, memory_gib=1),
        address="10.9.0.1",
        mac="52:54:00:00:00:01",
    )


def bound(index: int, name: str, *, draining: bool = False) -> Binding:
    until = NOW + timedelta(seconds=10) if draining else None
    return Binding(component=replica(index), shard=ShardId(name), bound_at=NOW, draining_until=until)


def health(
    name: str, state: HealthState = HealthState.HEALTHY, *, since: float = 0, reported: float = 0, node: str = "n1"
) -> ShardHealth:
    """``since`` and ``reported``: seconds before NOW."""
    return ShardHealth(
        shard=ShardId(name), node=NodeId(node), epoch=1, state=state, reason="port 7000 is closed",
        since=NOW - timedelta(seconds=since), reported_at=NOW - timedelta(seconds=reported),
    )  # fmt: skip
