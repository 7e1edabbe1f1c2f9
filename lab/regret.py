"""What a play cost above the clairvoyant bound, split by cause."""

from decimal import Decimal

from engine.model.value import Value
from lab.bound import Bound, bound_of_path
from lab.case import Case
from lab.tally import Result


class Regret(Value):
    """USD. ``total`` = ``sizing`` + ``market``.

    ``market``: what the play paid for the capacity it had, above the least that this very capacity could be had for:
    buying, packing, moving. ``sizing``: that least above the clairvoyant bound: capacity that nobody needed, less what
    was left short; negative where a play saved on demand that the bound serves.
    """

    total: Decimal
    sizing: Decimal
    market: Decimal


def regret_of(case: Case, result: Result, bound: Bound) -> Regret:
    least = bound_of_path(case, result.bought, result.load).cost
    return Regret(total=result.cost - bound.cost, sizing=least - bound.cost, market=result.cost - least)
