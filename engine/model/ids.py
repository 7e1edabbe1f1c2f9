"""Typed ids: strings at run time, distinct to the type checker."""

from typing import NewType

PoolId = NewType("PoolId", str)
OfferId = NewType("OfferId", str)
QuoteId = NewType("QuoteId", str)
HoldId = NewType("HoldId", str)
ReservationId = NewType("ReservationId", str)
CellId = NewType("CellId", str)
"""provider/account/region, e.g. ``aws/123456789012/us-east-1``."""
NodeId = NewType("NodeId", str)
ShardId = NewType("ShardId", str)
PlanId = NewType("PlanId", str)
RoundId = NewType("RoundId", str)
MoveId = NewType("MoveId", str)
OrderId = NewType("OrderId", str)


def provider_of(cell: CellId) -> str:
    """The configured name of the provider that the cell is with."""
    return cell.split("/", 1)[0]
