"""Solve the programme in whole numbers: a small one at once, a large one in stages (risk_first.py)."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite
from operator import ge

import numpy as np
from numpy.typing import NDArray

from engine.planner.candidates import Supply
from engine.planner.formulation import Columns, Pools, build, first_of_supplies
from engine.planner.linear import LinearModel, Relaxation, solve
from engine.planner.packing import Pattern
from engine.planner.programme import Choice, Programme, Unit, leaves_short, objective
from engine.planner.risk_first import (
    CUT_ROUNDS,
    MOST_BRANCHES,
    reserve_saves,
    settle_risks,
    solve_with_cuts,
)
from engine.planner.whole_units import WholeUnits

_MOST_WHOLE = 80
"""Purchases (candidate and filling) that a model solved in whole numbers may have."""
_MOST_POOLS = 24
"""Pools up to which a model with more purchases is worth solving as a whole, once it was solved in stages."""
_TRIALS = ((160, False), (160, True), (240, False))
"""(purchases, whether pools' counts are rounded beforehand): the finer model comes nearer to the bound, the coarser one
is there sooner; they take turns until a choice is good enough.
"""
_FIRST_SHARE = 0.4
"""Of the time limit, once there is a choice: scenarios may correct it, and the next one needs time, too."""
_TRIAL_SHARE = 0.5
"""Of the time that is left."""


@dataclass(frozen=True)
class Outcome:
    choice: Choice | None
    """None where the time limit brought nothing feasible."""
    gap: float
    seconds: float


def solve_programme(
    programme: Programme, *, seed: int, rough: Choice, time_limit: float, refine: bool = False
) -> Outcome:
    """``rough``: a choice to start from. A model with many purchases is solved in stages; with few risks besides, it
    is then solved as a whole for what time is left. The gap is to a bound on the whole model either way.
    ``refine``: the risks that ``rough`` takes come first on the menu.
    """
    if _purchases(programme) <= _MOST_WHOLE:
        return _solve_whole(programme, seed=seed, rough=rough, time_limit=time_limit, refine=refine)
    staged = Outcome(None, 0.0, 0.0) if refine else solve_in_stages(programme, seed=seed, time_limit=time_limit)
    if in_stages_only(programme) or (staged.choice is not None and staged.gap <= programme.policy.gap):
        return staged
    start = rough
    if staged.choice is not None and objective(programme, staged.choice) < objective(programme, rough):
        start = staged.choice
    left = max(0.0, time_limit - staged.seconds)
    whole = _solve_whole(programme, seed=seed, rough=start, time_limit=left, refine=refine)
    better = whole.choice is not None and (
        staged.choice is None or objective(programme, whole.choice) <= objective(programme, staged.choice)
    )
    return replace(whole if better else staged, seconds=staged.seconds + whole.seconds)


def in_stages_only(programme: Programme) -> bool:
    """Whether the programme is too large for a second look at it as a whole."""
    return _purchases(programme) > _MOST_WHOLE and len(programme.needs.pools) > _MOST_POOLS


def _purchases(programme: Programme) -> int:
    return sum(len(candidate.patterns) for candidate in programme.candidates)


def solve_in_stages(programme: Programme, *, seed: int, time_limit: float) -> Outcome:
    """Risks first, then units; see risk_first.py."""
    model, columns = build(programme, defer=True)
    relaxation = Relaxation(model, time_limit=time_limit, seed=seed)
    if not solve_with_cuts(relaxation, columns, rounds=1 if programme.reserve else CUT_ROUNDS):
        return Outcome(None, 0.0, relaxation.seconds)
    reserved = reserve_saves(programme, relaxation, columns)
    bound = settle_risks(programme, relaxation, columns, branches=0 if programme.reserve else MOST_BRANCHES)
    if bound is None:
        return Outcome(None, 0.0, relaxation.seconds)
    bound -= reserved
    seconds = relaxation.seconds
    released = sum(node.release_cost for node in programme.running) / programme.scale
    least = (bound + released) * programme.scale
    best: Choice | None = None
    worth, scarce = inf, bool(programme.reserve)
    for most, rough in _TRIALS:
        left = time_limit * (1.0 if programme.reserve or best is None else _FIRST_SHARE) - seconds
        if left <= 0 or (best is not None and worth - least <= programme.policy.gap * abs(worth)):
            break
        enough = least / max(1e-9, 1 - programme.policy.gap) / programme.scale - released
        rounded = rough or bool(programme.reserve)
        stage = WholeUnits(programme, columns, relaxation, most=most, ways_out=scarce or rounded, rounded=rounded)
        solution = stage.solve(enough=enough, time_limit=left * _TRIAL_SHARE, seed=seed)
        seconds += solution.seconds
        if solution.values is not None:
            found = read_choice(programme, columns, stage.spread(solution.values))
            worth_found = objective(programme, found)
            if worth_found < worth:
                best, worth = found, worth_found
            scarce = scarce or bool(leaves_short(programme, found))
    return Outcome(best, max(0.0, (worth - least) / max(abs(worth), 1e-12)) if best is not None else 0.0, seconds)


def _solve_whole(programme: Programme, *, seed: int, rough: Choice, time_limit: float, refine: bool) -> Outcome:
    """A large model is first relaxed, and only the purchases that the relaxation finds nearly worth making are solved
    in whole numbers, those of ``rough`` and the best of every supply among them.
    """
    programme = _with_fillings(programme, rough)
    model, columns = build(programme, rough, refine=refine)
    known = _start(programme, columns, rough)
    start = _completed(model, columns, known, seed=seed) if known else None
    bound, spent = inf, 0.0
    units = [column for fillings in columns.units for column in fillings]
    if len(units) > _MOST_WHOLE or programme.reserve:
        relaxed = Relaxation(model, time_limit=time_limit, seed=seed)
        if not relaxed.solve():
            return Outcome(None, 0.0, relaxed.seconds)
        ranked = sorted(units, key=lambda column: (relaxed.reduced_costs[column], column))
        kept = {*ranked[:_MOST_WHOLE], *known, *first_of_supplies(programme, columns, ranked)}
        dropped = [column for column in ranked if column not in kept]
        for column in dropped:
            model.upper[column] = 0.0
        if dropped:
            bound = relaxed.objective + max(0.0, float(relaxed.reduced_costs[dropped[0]]))
        if programme.reserve:
            bound = min(bound, relaxed.objective - reserve_saves(programme, relaxed, columns))
        spent = relaxed.seconds
    left = max(0.0, time_limit - spent)
    solution = solve(model, gap=programme.policy.gap, time_limit=left, seed=seed, start=start)
    spent += solution.seconds
    bound = min(bound, solution.bound)
    if solution.values is None or not isfinite(bound):
        return Outcome(None, 0.0, spent)
    reached = (solution.objective - bound) / max(abs(solution.objective), 1e-12)
    return Outcome(read_choice(programme, columns, solution.values), max(0.0, reached), spent)


def _with_fillings(programme: Programme, choice: Choice) -> Programme:
    """The same programme, in which the units of the choice may be filled as they are there."""
    candidates, running = list(programme.candidates), list(programme.running)
    for unit in choice.bought:
        owner = candidates[unit.candidate]
        filling = _by_shape(programme, unit.shards)
        if not _fitting(owner.patterns, filling):
            candidates[unit.candidate] = replace(owner, patterns=(*owner.patterns, filling))
    for index, added in enumerate(choice.added):
        filling = _by_shape(programme, added)
        if any(added) and not _fitting(running[index].patterns, filling):
            running[index] = replace(running[index], patterns=(*running[index].patterns, filling))
    return replace(programme, candidates=tuple(candidates), running=tuple(running))


def _by_shape(programme: Programme, shards: Sequence[int]) -> Pattern:
    counts = [0] * len(programme.needs.shapes)
    for pool, count in enumerate(shards):
        counts[programme.needs.pools[pool].shape] += count
    return tuple(counts)


def _fitting(patterns: Sequence[Pattern], filling: Pattern) -> list[int]:
    """Positions of the patterns that hold the filling."""
    return [index for index, pattern in enumerate(patterns) if all(map(ge, pattern, filling))]


def _completed(
    model: LinearModel, columns: Columns, known: dict[int, float], *, seed: int
) -> NDArray[np.float64] | None:
    """Every column of the solution in which the purchases and shards are the known ones."""
    decided = [column for fillings in (*columns.units, *columns.extend) for column in fillings]
    decided += [*columns.keep, *columns.share.values(), *columns.lasting]
    fixed = replace(model, lower=list(model.lower), upper=list(model.upper))
    for column in decided:
        fixed.lower[column] = fixed.upper[column] = known.get(column, 0.0)
    return solve(fixed, gap=0.0, time_limit=1.0, seed=seed).values


def _start(programme: Programme, columns: Columns, choice: Choice) -> dict[int, float]:
    """The columns of a choice in whole numbers; empty where it uses what the model does not have."""
    values: Counter[int] = Counter()
    index_of = {supply: index for index, supply in enumerate(programme.supplies)}
    owners = {(index, pool): pools for index, pools in columns.share for pool in pools}

    def put(supply: Supply, patterns: Sequence[Pattern], fillings: Sequence[int], shards: Sequence[int]) -> bool:
        for pool, count in enumerate(shards):
            if count and (index_of[supply], pool) not in owners:
                return False
            if count:
                values[columns.share[index_of[supply], owners[index_of[supply], pool]]] += count
                values[columns.lasting[pool]] += count * (supply.group is None)
        fitting = _fitting(patterns, _by_shape(programme, shards))
        if fitting:
            values[fillings[fitting[0]]] += 1
        return bool(fitting)

    for unit in choice.bought:
        candidate = programme.candidates[unit.candidate]
        if not put(candidate.supply, candidate.patterns, columns.units[unit.candidate], unit.shards):
            return {}
    for index, node in enumerate(programme.running):
        values[columns.keep[index]] += choice.kept[index]
        added = choice.added[index]
        if choice.kept[index] and any(added) and not put(node.supply, node.patterns, columns.extend[index], added):
            return {}
    return {column: float(value) for column, value in values.items()}


def read_choice(programme: Programme, columns: Columns, values: NDArray[np.float64]) -> Choice:
    """Whole numbers out of the solver's, shards laid onto single units: cheapest unit first, pools by rank."""
    whole = np.rint(values).astype(np.int64)
    layout = _Layout(
        programme,
        {key: int(whole[column]) for key, column in columns.share.items()},
        [int(whole[column]) for column in columns.lasting],
    )
    added = []
    for node, fillings in zip(programme.running, columns.extend, strict=True):
        chosen = next((p for p, column in zip(node.patterns, fillings, strict=True) if whole[column]), None)
        added.append((0,) * len(programme.needs.pools) if chosen is None else layout.take(node.supply, chosen))
    bought = [
        Unit(index, shards)
        for index, candidate in enumerate(programme.candidates)
        for pattern, column in zip(candidate.patterns, columns.units[index], strict=True)
        for _ in range(int(whole[column]))
        if any(shards := layout.take(candidate.supply, pattern))
    ]
    return Choice(kept=tuple(bool(whole[column]) for column in columns.keep), added=tuple(added), bought=tuple(bought))


class _Layout:
    """What is still to be laid onto units."""

    def __init__(self, programme: Programme, shares: dict[tuple[int, Pools], int], lasting: list[int]) -> None:
        self._programme, self._lasting = programme, lasting
        self._left: dict[Supply, dict[Pools, int]] = {}
        for (index, pools), count in shares.items():
            if count:
                self._left.setdefault(programme.supplies[index], {})[pools] = count

    def take(self, supply: Supply, pattern: Sequence[int]) -> tuple[int, ...]:
        """Shards by pool for one unit with this filling."""
        room, taken = list(pattern), [0] * len(self._programme.needs.pools)
        waiting = self._left.get(supply, {})
        for pools, left in waiting.items():
            for pool in pools:
                shape = self._programme.needs.pools[pool].shape
                count = min(room[shape], left)
                if supply.group is None:
                    count = min(count, self._lasting[pool])
                    self._lasting[pool] -= count
                room[shape] -= count
                left -= count
                taken[pool] += count
            waiting[pools] = left
        return tuple(taken)
