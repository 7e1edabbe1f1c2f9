"""The base of every value: frozen, strict, no unknown fields."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict


class Value(BaseModel):
    """An immutable value; equality is by content, and JSON goes out and comes back unchanged."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def _aware_utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("a time needs a zone; naive times are refused")
    return moment.astimezone(UTC)


Utc = Annotated[datetime, AfterValidator(_aware_utc)]
"""An aware datetime, normalised to UTC."""


class Interval(Value):
    """Half-open: start <= t < end."""

    start: Utc
    end: Utc

    @property
    def hours(self) -> float:
        return (self.end - self.start).total_seconds() / 3600
