"""What an operator has asked a control plane for: a row that outlives both of them."""

from enum import StrEnum

from engine.model.ids import MoveId, NodeId, OrderId, ShardId
from engine.model.placement import ComponentName
from engine.model.value import Utc, Value


class OrderKind(StrEnum):
    MOVE = "move"
    DRAIN = "drain"


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
    moves: tuple[MoveId, ...] = ()
    stranded: tuple[Stranded, ...] = ()
    problem: Problem | None = None

    def __str__(self) -> str:
        where = "" if self.to is None else f" --to {self.to}"
        return f"{self.kind} {self.component or self.node}{where}"
