"""A large programme in two stages: first which risks are taken, then which whole units are bought.

The linear relaxation is nearly exact in the choice of risks, and branching on the few that it leaves open makes it so;
what it says of units is far from whole numbers. With the risks settled, every pool's shards per correlation group are
simply bounded, and what is left is a transport problem with whole units: small, because only purchases whose reduced
cost is near nothing are in it.
"""

from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import count
from math import ceil
from operator import mul

import numpy as np

from engine.planner.formulation import Columns
from engine.planner.linear import Relaxation
from engine.planner.programme import Programme

MOST_BRANCHES = 40
_WHOLE = 1e-6
CUT_ROUNDS = 2
_VIOLATED = 1e-4
"""Shards of shortage."""
_PLUNGE = 0.3
"""Of the risks that are open, the share that is settled before the relaxation is asked again."""
_MOST_PLUNGES = 12


def solve_with_cuts(relaxation: Relaxation, columns: Columns, *, rounds: int = CUT_ROUNDS) -> bool:
    """Solve, add of each curve the deferred tangent that the solution violates most, and again a few times; what is
    then still left out only makes the bound a little lower. False when the time is up.
    """
    waiting = list(columns.deferred or ())
    for _ in range(rounds):
        if not relaxation.solve():
            return False
        values = relaxation.values
        worst: dict[int, tuple[float, int]] = {}
        for position, (terms, at_least) in enumerate(waiting):
            missing = at_least - sum(values[column] * each for column, each in terms)
            if missing > _VIOLATED:
                curve = terms[0][0]
                worst[curve] = max(worst.get(curve, (0.0, 0)), (missing, position))
        if not worst:
            return True
        added = {position for _, position in worst.values()}
        for position in sorted(added):
            relaxation.add(waiting[position][0], at_least=waiting[position][1])
        waiting = [cut for position, cut in enumerate(waiting) if position not in added]
    return relaxation.solve()


def settle_risks(programme: Programme, relaxation: Relaxation, columns: Columns, *, branches: int) -> float | None:
    """Leaves the relaxation, already solved, with every risk and kept node in whole numbers, the best ones if they are
    found within so many branches. What no choice on the offered menus costs less than; None when the time is up.
    """
    groups = _alternatives(columns)
    pinned = {column for column, node in zip(columns.keep, programme.running, strict=True) if node.pinned}
    owner = {column: index for index, group in enumerate(groups) for column in group}
    decided = np.array(sorted(owner), dtype=np.int64)
    fixed: dict[int, float] = {}
    order = count()
    leaves: list[tuple[float, int, dict[int, float]]] = [(relaxation.objective, next(order), {})]
    for _ in range(branches):
        if not leaves:
            return None
        _, _, wanted = heappop(leaves)
        fixed = _impose(relaxation, pinned, fixed, wanted)
        if not relaxation.solve():
            continue
        values = relaxation.values[decided]
        open_ = np.abs(values - np.rint(values))
        if open_.max(initial=0.0) <= _WHOLE:
            return relaxation.objective
        column = int(decided[int(np.argmax(open_))])
        for value in (1.0, 0.0):
            more = {other: 0.0 for other in groups[owner[column]] if value and len(groups[owner[column]]) > 1}
            heappush(leaves, (relaxation.objective, next(order), {**wanted, **more, column: value}))
    bound = min((leaf[0] for leaf in leaves), default=relaxation.objective)
    return bound if _plunge(relaxation, groups) else None


def reserve_saves(programme: Programme, relaxation: Relaxation, columns: Columns) -> float:
    """By how much at most the relaxation, just solved, would cost less if what is in reserve were on offer in it."""
    index_of = {supply: index for index, supply in enumerate(programme.supplies)}
    saved = 0.0
    for shelf in programme.reserve:
        index = index_of.get(shelf.supply)
        if index is None:
            continue
        worth = [
            -relaxation.duals[columns.room[index, shape]] if (index, shape) in columns.room else 0.0
            for shape in range(len(programme.needs.shapes))
        ]
        best = max(sum(map(mul, pattern, worth)) for pattern in shelf.patterns)
        saved += float(np.maximum(0.0, best - shelf.scores / programme.scale) @ shelf.most)
    return saved


def _alternatives(columns: Columns) -> list[list[int]]:
    """Columns of which exactly one is taken; a switch or a node stands alone."""
    return [
        *([column for column, _ in menu] for menu in columns.menus if menu),
        *([column] for switches in columns.switches for column in switches.values()),
        *([column] for column in columns.keep),
    ]


def _impose(
    relaxation: Relaxation, pinned: set[int], fixed: dict[int, float], wanted: dict[int, float]
) -> dict[int, float]:
    for column in fixed.keys() - wanted.keys():
        relaxation.bound(column, float(column in pinned), 1.0)
    for column, value in wanted.items():
        if fixed.get(column) != value:
            relaxation.bound(column, value, value)
    return wanted


def _plunge(relaxation: Relaxation, groups: Sequence[Sequence[int]]) -> bool:
    """Settle the clearest of what is open, each time with what the relaxation makes of it, until nothing is."""
    for _ in range(_MOST_PLUNGES):
        values = relaxation.values
        clarity = {
            index: max(abs(2 * values[column] - 1) for column in group) if len(group) == 1 else max(values[list(group)])
            for index, group in enumerate(groups)
        }
        open_ = sorted((i for i, clear in clarity.items() if clear < 1 - _WHOLE), key=lambda i: -clarity[i])
        if not open_:
            break
        for index in open_[: ceil(len(open_) * _PLUNGE)]:
            _round(relaxation, groups[index])
        if not relaxation.solve():
            return False
    for group in groups:
        _round(relaxation, group)
    return relaxation.solve()


def _round(relaxation: Relaxation, group: Sequence[int]) -> None:
    values = relaxation.values
    chosen = max(group, key=lambda column: values[column])
    for column in group:
        value = float(column == chosen) if len(group) > 1 else float(np.rint(values[column]))
        relaxation.bound(column, value, value)
