"""What an operator has asked a control plane for: a row that outlives both of them."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from engine.model.capacity import Resources
from engine.model.ids import MoveId, NodeId, OrderId, ShardId
from engine.model.placement import ComponentName
from engine.model.value import Utc, Value


class OrderKind(StrEnum):
    MOVE = "move"
    DRAIN = "drain"
    RESIZE = "resize"


class OrderState(StrEnum):
    ASKED = "asked"
    TAKEN = "taken"
    """A control plane works on it; ``moves`` says with which moves."""
    ENDED = "ended"
    """All its moves have ended, well or not; ``problem`` says what kept it from beginning any."""


class Problem(Value):
    """An error of the vocabulary (engine.errors) as a value; ``kind`` is its class name."""

    kind: str
    what: str
    why: str = ""
    next_step: str = ""


class Stranded(Value):
    """A shard that finds no place."""

    shard: ShardId
    why: str


_OPTIONS = {
    "vcpus": "--vcpus",
    "memory_gib": "--memory-gib",
    "storage_iops": "--iops",
    "network_mbps": "--network-mbps",
}


class Size(Value):
    """What a running shard shall have; None: what it has."""

    vcpus: Annotated[float, Field(gt=0)] | None = None
    memory_gib: Annotated[float, Field(gt=0)] | None = None
    storage_iops: Annotated[float, Field(ge=0)] | None = None
    """0: no limit; so is a bandwidth of 0."""
    network_mbps: Annotated[float, Field(ge=0)] | None = None

    def of(self, resources: Resources) -> Resources:
        return resources.model_copy(update=self.model_dump(exclude_none=True))

    def __str__(self) -> str:
        """As the command's options."""
        given = self.model_dump(exclude_none=True).items()
        return " ".join(f"{_OPTIONS[name]} {repr(value).removesuffix('.0')}" for name, value in given)


class Resized(Value):
    """What a resize comes to: decided before anything is changed."""

    shard: ShardId
    before: Resources
    after: Resources
    displaced: tuple[ShardId, ...] = ()
    """Spare shards of its node that give way."""


class Order(Value):
    id: OrderId
    kind: OrderKind
    asked_at: Utc
    state: OrderState = OrderState.ASKED
    component: ComponentName | None = None
    """What moves, of a move; which shard that is, is read when the order is taken."""
    node: NodeId | None = None
    """What is emptied, of a drain."""
    to: str | None = None
    """A provider or a node; None: wherever is best."""
    size: Size | None = None
    """Of a resize of ``component``."""
    resized: Resized | None = None
    """Of a resize that was taken."""
    moves: tuple[MoveId, ...] = ()
    stranded: tuple[Stranded, ...] = ()
    problem: Problem | None = None

    def __str__(self) -> str:
        more = "" if self.to is None else f" --to {self.to}"
        more += "" if self.size is None else f" {self.size}"
        return f"{self.kind} {self.component or self.node}{more}"
