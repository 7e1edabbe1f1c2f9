"""A component that is served by several shards behind one name, and what is known of each of them."""

from datetime import timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from engine.model.ids import NodeId, PoolId, ShardId
from engine.model.placement import Epoch
from engine.model.value import Utc, Value

SERVICE_PORT = 7000
"""Where a shard serves unless its component says otherwise."""
MOST_PARTS = 16
"""Into how many parts a shard may be divided at all."""


class HealthCheck(Value):
    """A TCP port that must answer; ``fall`` failures in a row make a shard unhealthy, ``rise`` passes heal it."""

    port: Annotated[int, Field(ge=1, le=65535)] = SERVICE_PORT
    interval_seconds: Annotated[float, Field(ge=1, le=300)] = 5.0
    timeout_seconds: Annotated[float, Field(gt=0, le=60)] = 1.0
    rise: Annotated[int, Field(ge=1, le=20)] = 2
    fall: Annotated[int, Field(ge=1, le=20)] = 3


class HealthState(StrEnum):
    UNKNOWN = "unknown"
    """Not checked often enough yet, or no check is asked for."""
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    SILENT = "silent"
    """Its node has not reported for too long; only the control plane says this."""


class ShardHealth(Value):
    """What a node last reported of a shard of its own."""

    shard: ShardId
    node: NodeId
    epoch: Epoch
    state: HealthState
    reason: str = ""
    since: Utc
    """When the state began."""
    reported_at: Utc


class CompositeRule(Value):
    """How the replicas of one component are placed, checked and let go."""

    replicas: Annotated[int, Field(ge=1, le=1000)] = 1
    """As many at least, whatever the usage says."""
    max_provider_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Largest share of the replicas with one provider, as long as others have shards; one replica is always allowed."""
    drain: timedelta = timedelta(seconds=10)
    """Between leaving the name and being gone."""
    check: HealthCheck | None = None
    replace_after: timedelta | None = None
    """A replica that is unhealthy for so long is given up for a fresh one; None: never."""
    max_parts: Annotated[int, Field(ge=1, le=MOST_PARTS)] = 1
    """Into how many replicas at most the work of one may be divided, where that is cheaper or the only way."""
    storage: PoolId | None = None
    """The pool whose shards hold the replicas' data: one attached to each."""

    def most_with_one_provider(self, replicas: int) -> int:
        return max(1, int(self.max_provider_share * replicas + 1e-9))
