"""Where things are: cells, nodes, shards, and which component is bound to which shard."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from engine.model.capacity import Resources
from engine.model.ids import CellId, NodeId, PoolId, ShardId
from engine.model.market import Place, PurchaseOption
from engine.model.money import Money
from engine.model.value import Utc, Value

Epoch = Annotated[int, Field(ge=0)]
BEYOND_ALL = 2
"""How far above the epoch that it began at a move speaks of a shard that the store does not know any more: its own
swap has raised it by one at most, and a give-back by another."""


class Cell(Value):
    """Provider + account + region = one Pulumi stack = one state = one lock."""

    provider: str
    """The provider's configured name."""
    kind: str
    """Which program and adapter serve it: aws, gcp, azure, network."""
    account: str
    region: str

    @property
    def id(self) -> CellId:
        return CellId(f"{self.provider}/{self.account}/{self.region}")

    @property
    def stack_name(self) -> str:
        return "-".join((self.provider, self.account, self.region)).replace("/", "-")


class NodeState(StrEnum):
    EXPECTED = "expected"
    JOINED = "joined"
    DRAINING = "draining"
    """An operator empties it: it takes no new shards, and the next round gives it back, unless that is undone."""
    LEAVING = "leaving"
    """Empty, and given back in a moment: nothing comes to it any more, a move that is under way neither."""
    RECLAIMING = "reclaiming"
    GONE = "gone"


class Node(Value):
    """A provider instance that shards are carved from. ``id`` is ours and is also its name at the provider."""

    id: NodeId
    cell: CellId
    zone: str
    instance_type: str
    option: PurchaseOption
    hourly_price: Money
    resources: Resources
    state: NodeState = NodeState.EXPECTED
    instance_id: str | None = None
    """The provider's id, known once the cell update is done."""
    agent_url: str | None = None
    """Where the agent listens (mutual TLS), known once it has joined."""
    underlay_address: str | None = None

    @property
    def place(self) -> Place:
        return Place(self.cell, self.zone, self.instance_type, self.option)


class ShardState(StrEnum):
    HELD = "held"
    READY = "ready"
    BOUND = "bound"
    DRAINING = "draining"
    RELEASED = "released"


CARVED = (ShardState.READY, ShardState.BOUND, ShardState.DRAINING)
"""Its node was seen to have it; what is only held a round carves by itself."""


class Shard(Value):
    """An addressable slice of a shard type. Its physical place is ``node``; only the store raises ``epoch``."""

    id: ShardId
    shard_type: str
    pool: PoolId
    node: NodeId
    state: ShardState
    epoch: Epoch = 1
    nominal: Resources
    measured: Resources | None = None
    address: str
    """Stable overlay address (IPv4); survives every move."""
    mac: str


class ShardQuery(Value):
    """Which shards are looked for: everything that is given must hold, nothing given means all."""

    shard_type: str | None = None
    provider: str | None = None
    region: str | None = None
    state: ShardState | None = None
    at_least: Resources = Resources(vcpus=0, memory_gib=0)
    """By measured performance, where there is one, else nominal; 0 asks for nothing."""

    def admits(self, shard: Shard) -> bool:
        """Whether the shard performs well enough; the store answers the rest."""
        has = shard.measured or shard.nominal
        return all(getattr(has, name) >= getattr(self.at_least, name) for name in Resources.model_fields)


class ComponentName(Value):
    """shard://NAMESPACE/WORKLOAD/COMPONENT[/N]"""

    namespace: str
    workload: str
    component: str
    index: Annotated[int, Field(ge=0)] = 0

    @property
    def base(self) -> "ComponentName":
        """The component that this is a replica of: the name with number 0."""
        return self.model_copy(update={"index": 0})

    def __str__(self) -> str:
        return f"shard://{self.namespace}/{self.workload}/{self.component}/{self.index}"


class Binding(Value):
    """Component <-> shard: one row of the shard map."""

    component: ComponentName
    shard: ShardId
    bound_at: Utc
    draining_until: Utc | None = None
    """It has left the name, and is let go then; None: it serves."""
