"""Values of the locking: what is scarce, and who has how much of it until when."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from engine.model.market import Quote
from engine.model.value import Utc, Value


class Stock(Value):
    """Something of which there are ``limit`` units and no more."""

    id: Annotated[str, Field(min_length=1, max_length=255)]
    limit: Annotated[int, Field(ge=0)]


class LeaseState(StrEnum):
    HELD = "held"
    CONFIRMED = "confirmed"
    RELEASED = "released"
    EXPIRED = "expired"


class Lease(Value):
    """Units of a stock kept for one holder; ``fencing`` rises with every grant of the stock."""

    key: str
    """Idempotency key: the same key is the same lease."""
    group: str
    """What is held and given back together: a plan, a request."""
    stock: str
    units: Annotated[int, Field(gt=0)]
    shards_per_unit: Annotated[int, Field(gt=0)] = 1
    holder: str
    state: LeaseState
    fencing: Annotated[int, Field(gt=0)]
    created_at: Utc
    expires_at: Utc
    """A held lease lapses then; a confirmed one does not."""
    quote: Quote | None = None
    """For units of a quote: the quote."""
    hold_document: str | None = None
    """The provider's own hold as JSON, once it has answered."""

    def as_of(self, now: datetime) -> "Lease":
        """Expired where it has lapsed by then, swept or not."""
        lapsed = self.state is LeaseState.HELD and self.expires_at <= now
        return self.model_copy(update={"state": LeaseState.EXPIRED}) if lapsed else self

    @property
    def is_active(self) -> bool:
        """Its units are the holder's."""
        return self.state in (LeaseState.HELD, LeaseState.CONFIRMED)


def quote_stock(quote: Quote) -> Stock:
    """The firm quantity of one quote."""
    return Stock(id=f"quote:{quote.offer.provider}:{quote.id}", limit=quote.quantity)
