"""The clairvoyant bound: a linear programme that knows all demand, prices and depths to come.

It pays only what nobody can avoid: units may be broken, capacity arrives at once and is held no longer than needed, and
which pool is short is free to choose within the limits of the classes and of the whole. Commitments are paid to the end
of their term. A shard has moved where the capacity of its cell, before or now, cannot have kept it. Every play of the
game that keeps the limits is a solution of this programme, so no such play is cheaper.

Nothing distinguishes the on-demand offers of one cell here, nor its commitments of one term, so only the cheapest of
each stands in the programme; that keeps it small.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_FLOOR, Decimal
from fractions import Fraction
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.sparse import coo_array

from engine.errors import ShardwrightError
from engine.model.value import Value
from lab.board import Board
from lab.case import Case, CommitmentOffer, OnDemandOffer

MICRO = Decimal("0.000001")


class Bound(Value):
    """``cost`` in USD, rounded down. ``limits``: allowed shortfall by class; ``max_shortfall`` of the whole."""

    case: str
    fingerprint: str
    cost: Decimal
    max_shortfall: float
    limits: dict[str, float]
    seconds: float
    variables: int


def clairvoyant_bound(case: Case, *, shortfall: float = 1.0) -> Bound:
    """The least that demand can be served for. ``shortfall`` scales every limit: 1 uses all of them, 0 none."""
    board = Board(case)
    limits = {name: risk.max_shortfall * shortfall for name, risk in case.risk_classes.items()}
    overall = case.max_shortfall * shortfall
    demand = _demand_by_class(board)
    return _solved(board, demand, _needed(board, demand), limits, overall)


def bound_of_path(case: Case, bought: Sequence[Sequence[int]], load: Sequence[Sequence[int]]) -> Bound:
    """The least that a given capacity could be had for: ``bought`` in shards by fleet and step, none of it short,
    with ``load`` of it running.
    """
    board = Board(case)
    only = next(iter(case.risk_classes))
    demand = {(at, only): np.asarray(path, dtype=float) for at, path in enumerate(bought)}
    running = [np.asarray(path, dtype=float) for path in load]
    return _solved(board, demand, running, dict.fromkeys(case.risk_classes, 0.0), 0.0)


Path = NDArray[np.float64]
"""Shards by step."""
Demand = Mapping[tuple[int, str], Path]
"""By fleet (position) and risk class."""


def _demand_by_class(board: Board) -> Demand:
    demand: dict[tuple[int, str], Path] = {}
    for at in range(len(board.fleet_ids)):
        for pool in board.pools_of[at]:
            key = (at, board.case.pools[pool].risk)
            demand[key] = demand.get(key, np.zeros(board.steps)) + np.asarray(board.demand[pool], dtype=float)
    return demand


@dataclass
class _Programme:
    """min cost x, where every row is ``sum >= least`` and every variable lies between 0 and its ``most``."""

    cost: list[float] = field(default_factory=list)
    most: list[float] = field(default_factory=list)
    least: list[float] = field(default_factory=list)
    entries: list[tuple[int, int, float]] = field(default_factory=list)

    def row(self, least: float) -> int:
        self.least.append(least)
        return len(self.least) - 1

    def variable(self, cost: float, most: float, entries: Iterable[tuple[int, float]]) -> int:
        self.cost.append(cost)
        self.most.append(most)
        at = len(self.cost) - 1
        self.entries += [(row, at, factor) for row, factor in entries]
        return at

    def solve(self) -> float:
        rows, columns, factors = (np.asarray(part) for part in zip(*self.entries, strict=True))
        shape = (len(self.least), len(self.cost))
        matrix = coo_array((-factors.astype(float), (rows, columns)), shape=shape).tocsr()
        bounds = np.column_stack([np.zeros(len(self.most)), np.asarray(self.most)])
        answer = linprog(self.cost, A_ub=matrix, b_ub=-np.asarray(self.least), bounds=bounds, method="highs")
        if not answer.success:
            raise ShardwrightError(
                "there is no clairvoyant bound: nothing that is offered serves the demand within its limits",
                why=str(answer.message),
                next_step="allow more shortfall, or add an on-demand offer for each fleet",
            )
        return float(answer.fun)


def _solved(board: Board, demand: Demand, load: Sequence[Path], limits: Mapping[str, float], overall: float) -> Bound:
    began = perf_counter()
    programme = _Programme()
    serve = _serving_rows(programme, board, demand)
    staying = _staying_rows(programme, board, load)
    _shortfall(programme, board, demand, limits, overall, serve, staying)
    places = _Places(programme, board, serve, staying)
    _on_demand(programme, board, places)
    _spot(programme, board, places)
    _commitments(programme, board, places)
    cost = programme.solve()
    return Bound(
        case=board.case.id,
        fingerprint=board.case.fingerprint,
        cost=Decimal(repr(cost)).quantize(MICRO, rounding=ROUND_FLOOR),
        max_shortfall=overall,
        limits=dict(limits),
        seconds=perf_counter() - began,
        variables=len(programme.cost),
    )


Rows = Sequence[Sequence[int]]
"""A row by fleet and step."""


def _needed(board: Board, demand: Demand) -> list[Path]:
    needed = [np.zeros(board.steps) for _ in board.fleet_ids]
    for (at, _), shards in demand.items():
        needed[at] = needed[at] + shards
    return needed


def _serving_rows(programme: _Programme, board: Board, demand: Demand) -> Rows:
    """Capacity + short >= demand."""
    return [[programme.row(float(shards)) for shards in path] for path in _needed(board, demand)]


def _staying_rows(programme: _Programme, board: Board, load: Sequence[Path]) -> Rows:
    """Moved + kept + short before + short now >= the lesser load of the two steps; at step 0 nothing runs yet."""
    rows = []
    for at, path in enumerate(load):
        lesser = [0.0, *np.minimum(path[1:], path[:-1])]
        rows.append([programme.row(float(shards)) for shards in lesser])
        price = float(board.case.fleets[at].move_usd_per_shard)
        for row in rows[-1]:
            programme.variable(price, np.inf, [(row, 1.0)])
    return rows


class _Places:
    """Capacity by fleet, cell and step. Kept in a cell is at most its capacity of the step before and of this one."""

    def __init__(self, programme: _Programme, board: Board, serve: Rows, staying: Rows) -> None:
        self._serve = serve
        self._before: dict[tuple[int, int], list[int]] = {}
        self._now: dict[tuple[int, int], list[int]] = {}
        for at, shards in enumerate(board.shards):
            for cell in sorted({board.cell[offer] for offer, each in enumerate(shards) if each}):
                self._before[at, cell] = [programme.row(0.0) for _ in range(board.steps)]
                self._now[at, cell] = [programme.row(0.0) for _ in range(board.steps)]
                for step in range(1, board.steps):
                    limits = [(self._before[at, cell][step], -1.0), (self._now[at, cell][step], -1.0)]
                    programme.variable(0.0, np.inf, [(staying[at][step], 1.0), *limits])

    def entries(self, at: int, cell: int, step: int, shards: float) -> list[tuple[int, float]]:
        """Where a variable that carries ``shards`` counts."""
        entries = [(self._serve[at][step], shards), (self._now[at, cell][step], shards)]
        if step + 1 < len(self._serve[at]):
            entries.append((self._before[at, cell][step + 1], shards))
        return entries


def _shortfall(
    programme: _Programme,
    board: Board,
    demand: Demand,
    limits: Mapping[str, float],
    overall: float,
    serve: Rows,
    staying: Rows,
) -> None:
    """What may be short of each class counts against the budgets of the class and of the whole."""
    if overall <= 0:
        return
    whole = programme.row(-overall * sum(float(shards.sum()) for shards in demand.values()))
    of_class = {}
    for name, limit in limits.items():
        asked = sum(float(shards.sum()) for (_, risk), shards in demand.items() if risk == name)
        of_class[name] = programme.row(-limit * asked)
    for (at, name), shards in demand.items():
        for step, most in enumerate(shards):
            if most > 0:
                entries = [(serve[at][step], 1.0), (whole, -1.0), (of_class[name], -1.0)]
                entries += [(row, 1.0) for row in staying[at][step : step + 2]]
                programme.variable(0.0, float(most), entries)


def _per_shard(board: Board, at: int, option: type[OnDemandOffer] | type[CommitmentOffer]) -> dict[int, Fraction]:
    """Per shard-hour, exactly, by offer that can serve the fleet."""
    return {
        offer: Fraction(board.case.offers[offer].price) / shards  # type: ignore[union-attr]
        for offer, shards in enumerate(board.shards[at])
        if shards and isinstance(board.case.offers[offer], option)
    }


def _on_demand(programme: _Programme, board: Board, places: _Places) -> None:
    hours = board.case.step_hours
    for at in range(len(board.fleet_ids)):
        cheapest: dict[int, Fraction] = {}
        for offer, price in _per_shard(board, at, OnDemandOffer).items():
            cell = board.cell[offer]
            cheapest[cell] = min(price, cheapest.get(cell, price))
        for cell, price in cheapest.items():
            for step in range(board.steps):
                programme.variable(float(price) * hours, np.inf, places.entries(at, cell, step, 1.0))


def _spot(programme: _Programme, board: Board, places: _Places) -> None:
    """Where several fleets can use an offer they share its depth."""
    hours = board.case.step_hours
    unit = Fraction(1, 10**board.scale.digits)
    for offer, cell in enumerate(board.cell):
        if not board.is_spot[offer]:
            continue
        fleets = [at for at, shards in enumerate(board.shards) if shards[offer]]
        for step, depth in enumerate(board.depths[offer]):
            if not depth:
                continue
            price = float(board.prices[offer][step] * unit) * hours
            shared = [(programme.row(-float(depth)), -1.0)] if len(fleets) > 1 else []
            for at in fleets:
                carried = places.entries(at, cell, step, float(board.shards[at][offer]))
                programme.variable(price, float(depth), [*carried, *shared])


def _commitments(programme: _Programme, board: Board, places: _Places) -> None:
    """Bought at any step, paid for the whole term. The shards in force at a step are a variable of their own, linked
    to the step before, so that a long term does not make a long column.
    """
    for at in range(len(board.fleet_ids)):
        cheapest: dict[tuple[int, int], Fraction] = {}
        for offer, price in _per_shard(board, at, CommitmentOffer).items():
            key = (board.cell[offer], board.term[offer])
            cheapest[key] = min(price, cheapest.get(key, price))
        for (cell, term), price in cheapest.items():
            _committed(programme, board, places, at, cell, term, float(price) * term * board.case.step_hours)


def _committed(
    programme: _Programme, board: Board, places: _Places, at: int, cell: int, term: int, price: float
) -> None:
    """In force now <= in force before + bought now - bought a term ago."""
    links = [programme.row(0.0) for _ in range(board.steps)]
    for step, link in enumerate(links):
        carried = places.entries(at, cell, step, 1.0)
        following = [(after, 1.0) for after in links[step + 1 : step + 2]]
        programme.variable(0.0, np.inf, [*carried, (link, -1.0), *following])
        ends = [(links[step + term], -1.0)] if step + term < len(links) else []
        programme.variable(price, np.inf, [(link, 1.0), *ends])
