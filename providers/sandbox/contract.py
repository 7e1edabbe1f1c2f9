"""The sandbox's internal contract: what every sandbox provider server answers under ``/_sandbox/``.

========================  ==================  ===========================================================
GET  /_sandbox/instances  [SandboxInstance]   terminated ones stay listed for 60 s
GET  /_sandbox/notices    [SandboxNotice]     reclaims under way; the server terminates the instance itself
POST /_sandbox/reclaim    ReclaimOrder        204
POST /_sandbox/price      PriceChange         204; appended to the spot history too
POST /_sandbox/fault      Fault               204; the provider's own API misbehaves for a while
GET  /_sandbox/prices     [PriceChange]       every price that it asks now; of several zones the lowest
GET  /_sandbox/bill       SandboxBill         ?start=ISO&end=ISO, where the provider has no delivery of its own
========================  ==================  ===========================================================

The models parse JSON bodies both as text and as decoded objects (FastAPI), so they are lax about ISO times only.
"""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, TypeAdapter

from engine.model.market import PurchaseOption
from engine.model.value import Utc

TERMINATED_LISTED_SECONDS = 60
"""How long a terminated instance stays in ``/_sandbox/instances``."""


class Message(BaseModel):
    """A body of the contract: frozen, no unknown fields, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _no_float(value: object) -> object:
    if isinstance(value, float):
        raise ValueError("money travels as text, never as a float")
    return value


def _not_negative(value: Decimal) -> Decimal:
    if value < 0:
        raise ValueError("a price cannot be negative")
    return value


Price = Annotated[Decimal, BeforeValidator(_no_float), AfterValidator(_not_negative)]
"""A decimal as JSON text, e.g. ``"0.0123"``; per hour of one instance."""


class InstanceState(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    TERMINATED = "terminated"


class SandboxInstance(Message):
    instance_id: str
    node: str
    """Value of the shardwright-node tag, "" where there is none."""
    region: str
    zone: str
    instance_type: str
    spot: StrictBool
    state: InstanceState
    user_data: str
    """Decoded text, "" where there is none."""
    private_ip: str | None
    launched_at: Utc


class SandboxNotice(Message):
    """``at``: when the server terminates the instance."""

    instance_id: str
    node: str
    seen_at: Utc
    at: Utc
    reason: str


class ReclaimOrder(Message):
    instance_id: str
    notice_seconds: Annotated[float, Field(ge=0)]


class MarketOption(StrEnum):
    """The purchase options whose price a server can be told."""

    ON_DEMAND = PurchaseOption.ON_DEMAND.value
    SPOT = PurchaseOption.SPOT.value
    AUCTION = PurchaseOption.AUCTION.value


class PriceChange(Message):
    region: str
    instance_type: str
    option: MarketOption
    price: Price


class FaultMode(StrEnum):
    NONE = "none"
    DOWN = "down"
    """503"""
    RUBBISH = "rubbish"
    """an HTML body"""
    THROTTLE = "throttle"
    """429"""
    SLOW = "slow"
    """answers after 30 s"""
    NO_CAPACITY = "no_capacity"
    """the provider's own no-capacity error"""


class Fault(Message):
    mode: FaultMode
    seconds: Annotated[float, Field(ge=0)]


class SandboxBill(Message):
    """A bill in the provider's own format; ``total`` is what the invoice asks for, rounded to the cent."""

    format: str
    content_type: str
    content_base64: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    invoice_id: str
    issuer: str
    total: Annotated[Decimal, BeforeValidator(_no_float)]
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
    period_start: Utc
    period_end: Utc


INSTANCES: TypeAdapter[list[SandboxInstance]] = TypeAdapter(list[SandboxInstance])
NOTICES: TypeAdapter[list[SandboxNotice]] = TypeAdapter(list[SandboxNotice])
PRICES: TypeAdapter[list[PriceChange]] = TypeAdapter(list[PriceChange])


def listed(instance: SandboxInstance, terminated_at: datetime | None, now: datetime) -> bool:
    """Whether an instance still belongs in ``/_sandbox/instances``."""
    if instance.state is not InstanceState.TERMINATED or terminated_at is None:
        return True
    return (now - terminated_at).total_seconds() < TERMINATED_LISTED_SECONDS
