"""A mixed-integer linear model as arrays, and HiGHS to solve it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf, isfinite
from typing import Any

import highspy
import numpy as np
from numpy.typing import NDArray

Terms = Iterable[tuple[int, float]]
"""(column, coefficient)"""


@dataclass
class LinearModel:
    """minimise cost @ x with lower <= x <= upper and row_lower <= A x <= row_upper."""

    cost: list[float] = field(default_factory=list)
    lower: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    integer: list[bool] = field(default_factory=list)
    row_lower: list[float] = field(default_factory=list)
    row_upper: list[float] = field(default_factory=list)
    start: list[int] = field(default_factory=lambda: [0])
    index: list[int] = field(default_factory=list)
    value: list[float] = field(default_factory=list)

    def column(self, cost: float = 0.0, *, upper: float = inf, lower: float = 0.0, integer: bool = False) -> int:
        self.cost.append(cost)
        self.lower.append(lower)
        self.upper.append(upper)
        self.integer.append(integer)
        return len(self.cost) - 1

    def row(self, terms: Terms, *, at_least: float = -inf, at_most: float = inf) -> int:
        for column, coefficient in terms:
            self.index.append(column)
            self.value.append(coefficient)
        self.start.append(len(self.index))
        self.row_lower.append(at_least)
        self.row_upper.append(at_most)
        return len(self.row_lower) - 1


@dataclass(frozen=True)
class Solution:
    values: NDArray[np.float64] | None
    """None: nothing feasible was found."""
    objective: float
    bound: float
    """No solution of this model costs less."""
    seconds: float


def solve(
    model: LinearModel,
    *,
    gap: float,
    time_limit: float,
    seed: int,
    start: NDArray[np.float64] | None = None,
    enough: float = -inf,
    by_reduced_cost: bool = True,
) -> Solution:
    """One thread and a fixed seed, so that the same model gives the same answer.

    ``start``: a known solution, than which the answer is never worse. ``enough``: a solution at most as dear ends the
    search, whatever the gap. ``by_reduced_cost``: whether the solver's search by reduced costs at the root runs; it is
    dear where many columns are nearly as good.
    """
    if not model.cost:
        return Solution(np.zeros(0), 0.0, 0.0, 0.0)
    highs = _opened(seed, time_limit)
    highs.setOptionValue("mip_rel_gap", gap)
    highs.setOptionValue("mip_abs_gap", 1e-7)
    highs.setOptionValue("mip_heuristic_run_root_reduced_cost", by_reduced_cost)
    if isfinite(enough):
        highs.setOptionValue("objective_target", enough)
    highs.passModel(_as_highs(model))
    if start is not None:
        highs.setSolution(len(start), np.arange(len(start), dtype=np.int32), start)
    highs.run()
    info = highs.getInfo()
    found = info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
    return Solution(
        values=np.array(highs.getSolution().col_value) if found else None,
        objective=float(info.objective_function_value) if found else inf,
        bound=float(info.mip_dual_bound) if any(model.integer) else float(info.objective_function_value),
        seconds=float(highs.getRunTime()),
    )


class Relaxation:
    """A model's linear relaxation, kept open: each solution after a change of bounds starts from the last one."""

    def __init__(self, model: LinearModel, *, time_limit: float, seed: int) -> None:
        self._highs = _opened(seed, time_limit)
        relaxed = _as_highs(model)
        relaxed.integrality_ = []
        self._highs.passModel(relaxed)
        self.values: NDArray[np.float64] = np.zeros(len(model.cost))
        self.reduced_costs: NDArray[np.float64] = np.zeros(len(model.cost))
        self.duals: NDArray[np.float64] = np.zeros(len(model.row_lower))
        self.objective = inf

    def bound(self, column: int, lower: float, upper: float) -> None:
        self._highs.changeColBounds(column, lower, upper)

    @property
    def seconds(self) -> float:
        return float(self._highs.getRunTime())

    def add(self, terms: Terms, *, at_least: float) -> None:
        columns, coefficients = zip(*terms, strict=True)
        index, value = np.array(columns, dtype=np.int32), np.array(coefficients, dtype=np.float64)
        self._highs.addRow(at_least, inf, len(index), index, value)

    def solve(self) -> bool:
        """False where there is no solution, or none was found in the time that all solutions share."""
        self._highs.run()
        if self._highs.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            self.objective = inf
            return False
        solution = self._highs.getSolution()
        self.values = np.array(solution.col_value)
        self.reduced_costs = np.array(solution.col_dual)
        self.duals = np.array(solution.row_dual)
        self.objective = float(self._highs.getInfo().objective_function_value)
        return True


def _opened(seed: int, time_limit: float) -> Any:
    highs = highspy.Highs()  # type: ignore[no-untyped-call]
    for option, value in (
        ("output_flag", False),
        ("threads", 1),
        ("random_seed", seed % (2**31 - 1)),
        ("time_limit", time_limit),
    ):
        highs.setOptionValue(option, value)
    return highs


def _as_highs(model: LinearModel) -> highspy.HighsLp:
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = len(model.cost), len(model.row_lower)
    lp.col_cost_ = np.array(model.cost)
    lp.col_lower_, lp.col_upper_ = np.array(model.lower), np.array(model.upper)
    lp.row_lower_, lp.row_upper_ = np.array(model.row_lower), np.array(model.row_upper)
    lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    lp.a_matrix_.num_col_, lp.a_matrix_.num_row_ = lp.num_col_, lp.num_row_
    lp.a_matrix_.start_ = np.array(model.start)
    lp.a_matrix_.index_ = np.array(model.index)
    lp.a_matrix_.value_ = np.array(model.value)
    kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
    lp.integrality_ = [kinds[whole] for whole in model.integer]
    return lp
