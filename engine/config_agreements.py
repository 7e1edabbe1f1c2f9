"""Negotiated discounts in shardwright.toml, and where none can be."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Self

from pydantic import Field, model_validator

from engine.config_table import Table
from engine.model.market import PurchaseOption
from engine.model.value import Utc

_POSTED = (PurchaseOption.ON_DEMAND, PurchaseOption.COMMITMENT)


class AgreementTable(Table):
    """A negotiated discount on a provider's posted prices."""

    discount: Annotated[Decimal, Field(gt=0, lt=1)]
    instance_types: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    options: tuple[PurchaseOption, ...] = (PurchaseOption.ON_DEMAND,)
    until: Utc | None = None

    @model_validator(mode="after")
    def _off_a_posted_price(self) -> Self:
        """Spot and auctions cost what the market asks: nothing could be bought at the price that is planned with."""
        others = [option.value for option in self.options if option not in _POSTED]
        if others:
            raise ValueError(f"options: {', '.join(others)} has no posted price to be discounted")
        return self


def refuse_agreements(kind: str, agreements: Sequence[AgreementTable]) -> None:
    """A network is paid what its own quote says, and a hold at another price is given back. Raises ValueError."""
    if agreements and kind == "network":
        raise ValueError("agreements do not belong to kind 'network': it quotes every customer's own price itself")
