"""An order that the game has accepted, in positions of the board; or the reason why it is malformed (rule 11)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from lab.board import Board
from lab.wire import Order


@dataclass(frozen=True, slots=True)
class StandingOrder:
    """``targets`` by fleet: units by offer. ``bids``: ceilings by offer, USD per unit-hour. ``commit``: fleet, offer,
    units.
    """

    targets: Sequence[Mapping[int, int]]
    fallback: Sequence[Sequence[int]]
    bids: Mapping[int, Decimal] = field(default_factory=dict)
    commit: Sequence[tuple[int, int, int]] = ()


class Malformed(ValueError):
    """Names what is wrong with an order."""


def no_order(board: Board) -> StandingOrder:
    """What stands before the first valid order: nothing is wanted."""
    nothing = [() for _ in board.fleet_ids]
    return StandingOrder(targets=[{} for _ in board.fleet_ids], fallback=nothing)


def accepted(board: Board, order: Order, step: int) -> StandingOrder:
    """Malformed: a wrong step, unknown ids, an offer that cannot serve the fleet, an option in the wrong place."""
    if order.step != step:
        raise Malformed(f"an order for step {order.step}, not for {step}")
    targets: list[dict[int, int]] = [{} for _ in board.fleet_ids]
    for fleet, offers in order.targets.items():
        at = _fleet(board, fleet)
        targets[at] = dict(_targets(board, at, offers))
    fallback: list[tuple[int, ...]] = [() for _ in board.fleet_ids]
    for fleet, names in order.fallback.items():
        at = _fleet(board, fleet)
        fallback[at] = tuple(_fallback(board, at, name) for name in names)
    bids = {}
    for name, ceiling in order.bids.items():
        offer = _offer(board, name)
        if not board.is_spot[offer]:
            raise Malformed(f"a bid for {name}, which is not spot")
        bids[offer] = ceiling
    commit = [_commit(board, each.fleet, each.offer, each.units) for each in order.commit]
    return StandingOrder(targets, fallback, bids, commit)


def _targets(board: Board, fleet: int, offers: Mapping[str, int]) -> Iterator[tuple[int, int]]:
    for name, units in offers.items():
        offer = _serving(board, fleet, name)
        if board.is_commitment[offer]:
            raise Malformed(f"the commitment {name} among the targets")
        if units:
            yield offer, units


def _fallback(board: Board, fleet: int, name: str) -> int:
    offer = _serving(board, fleet, name)
    if board.is_commitment[offer]:
        raise Malformed(f"the commitment {name} as fallback")
    if board.lead[offer] > 1:
        raise Malformed(f"{name} as fallback, whose lead is {board.lead[offer]}")
    return offer


def _commit(board: Board, fleet: str, name: str, units: int) -> tuple[int, int, int]:
    at = _fleet(board, fleet)
    offer = _serving(board, at, name)
    if not board.is_commitment[offer]:
        raise Malformed(f"{name} is not a commitment")
    return at, offer, units


def _fleet(board: Board, name: str) -> int:
    if name not in board.fleet_at:
        raise Malformed(f"there is no fleet {name!r}")
    return board.fleet_at[name]


def _offer(board: Board, name: str) -> int:
    if name not in board.offer_at:
        raise Malformed(f"there is no offer {name!r}")
    return board.offer_at[name]


def _serving(board: Board, fleet: int, name: str) -> int:
    offer = _offer(board, name)
    if not board.shards[fleet][offer]:
        raise Malformed(f"{name} cannot serve fleet {board.fleet_ids[fleet]}")
    return offer
