"""The four messages of the capacity game, one JSON object a line: init, observe, order, end.

What the game writes is read leniently by a policy (unknown fields are ignored, so that another host may add some);
what a policy answers is read strictly: one wrong field and the whole answer is malformed.
"""

from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    ValidationError,
    model_serializer,
)

from lab.case import RiskClass

PROTOCOL = "capacity-game/1"
MAX_UNITS = 1_000_000


class Missed(StrEnum):
    """Why there is no valid order: the previous one stands."""

    MALFORMED = "malformed"
    LATE = "late"


def _number_to_decimal(value: object) -> object:
    """Text as the protocol writes it, or a JSON number where another writer used one."""
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise ValueError("not a decimal number")
    try:
        return Decimal(str(value))
    except ArithmeticError as problem:
        raise ValueError("not a decimal number") from problem


Amount = Annotated[
    Decimal,
    BeforeValidator(_number_to_decimal),
    Field(allow_inf_nan=False),
    PlainSerializer(lambda amount: f"{amount:f}", return_type=str, when_used="json"),
]
"""USD; travels as text."""
Units = Annotated[int, Field(ge=0, le=MAX_UNITS)]
FleetUnits = dict[str, dict[str, int]]
"""Units by fleet and offer."""


class _FromGame(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=False)

    def line(self) -> str:
        return self.model_dump_json()


class InitRisk(_FromGame):
    rank: int
    max_shortfall: float


class InitFleet(_FromGame):
    id: str
    vector: dict[str, float]
    areas: tuple[str, ...] = ()
    move_usd_per_shard: Amount = Decimal(0)


class InitPool(_FromGame):
    """``history``: demand of the steps before step 0, oldest first."""

    id: str
    fleet: str
    risk: str
    history: tuple[int, ...] = ()


class InitOffer(_FromGame):
    """``price`` per unit-hour and ``term`` in steps where the option has them; ``price_history`` of spot: change
    points at negative steps.
    """

    id: str
    option: Literal["on_demand", "spot", "commitment"]
    provider: str
    region: str
    area: str
    cell: str
    group: str
    instance_type: str
    vector: dict[str, float]
    shards_per_unit: dict[str, int]
    lead: int = 1
    min_steps: int = 1
    on_demand_price: Amount
    price: Amount | None = None
    term: int | None = None
    price_history: tuple[tuple[int, Amount], ...] | None = None
    interruption_band: str | None = None

    @model_serializer(mode="wrap")
    def _of_its_option(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Fields of another option are not written; the band of a spot offer is, even when none is published."""
        kept = {"interruption_band"} if self.option == "spot" else set()
        return {name: value for name, value in dump(self).items() if value is not None or name in kept}


class Init(_FromGame):
    """What is known before step 0. Nothing of the future, nothing of the depth of spot."""

    type: Literal["init"] = "init"
    protocol: str = PROTOCOL
    case: str
    steps: int
    step_minutes: int
    start: str
    max_shortfall: float
    risk_classes: dict[str, InitRisk]
    fleets: tuple[InitFleet, ...]
    pools: tuple[InitPool, ...]
    offers: tuple[InitOffer, ...]


class HeldCommitment(_FromGame):
    """Serves ``start`` <= step < ``until``; the wire calls them ``from`` and ``until``."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True, serialize_by_alias=True)

    fleet: str
    offer: str
    units: int
    start: Annotated[int, Field(alias="from")]
    until: int


class Observe(_FromGame):
    """What a policy sees after step ``step`` (-1: before the first)."""

    type: Literal["observe"] = "observe"
    step: int
    demand: dict[str, int] = {}
    covered: dict[str, int] = {}
    prices: dict[str, Amount] = {}
    held: FleetUnits = {}
    pending: FleetUnits = {}
    commitments: tuple[HeldCommitment, ...] = ()
    attached: FleetUnits = {}
    delivered: FleetUnits = {}
    denied: FleetUnits = {}
    reclaimed: FleetUnits = {}
    cost: Amount = Decimal(0)


class End(_FromGame):
    type: Literal["end"] = "end"
    cost: Amount
    shortfall_rate: float


class _FromPolicy(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)

    def line(self) -> str:
        return self.model_dump_json()


class Ready(_FromPolicy):
    type: Literal["ready"] = "ready"


class Commit(_FromPolicy):
    fleet: str
    offer: str
    units: Units


Bid = Annotated[Amount, Field(gt=0)]


class Order(_FromPolicy):
    """Units wanted from step ``step`` + 1 on; what ``targets`` does not name is wanted 0 times."""

    type: Literal["order"] = "order"
    step: int
    targets: dict[str, dict[str, Units]]
    fallback: dict[str, tuple[str, ...]] = {}
    bids: dict[str, Bid] = {}
    commit: tuple[Commit, ...] = ()


FromGame = Annotated[Init | Observe | End, Field(discriminator="type")]
_FROM_GAME: TypeAdapter[Init | Observe | End] = TypeAdapter(FromGame)


def read_message(line: str | bytes) -> Init | Observe | End:
    """A message of the game, as a policy reads it. ValueError: it is none."""
    return _FROM_GAME.validate_json(line)


def read_order(line: str | bytes) -> Order | Missed:
    """A policy's answer as the game reads it; which offers and fleets exist is the game's to check."""
    try:
        return Order.model_validate_json(line)
    except ValidationError:
        return Missed.MALFORMED


def read_ready(line: str | bytes) -> bool:
    try:
        Ready.model_validate_json(line)
    except ValidationError:
        return False
    return True


def risks_of(classes: Mapping[str, RiskClass]) -> dict[str, InitRisk]:
    return {name: InitRisk(rank=risk.rank, max_shortfall=risk.max_shortfall) for name, risk in classes.items()}
