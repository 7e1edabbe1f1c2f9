"""A mixed-integer linear model as arrays, and HiGHS to solve it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf

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

    def row(self, terms: Terms, *, at_least: float = -inf, at_most: float = inf) -> None:
        for column, coefficient in terms:
            self.index.append(column)
            self.value.append(coefficient)
        self.start.append(len(self.index))
        self.row_lower.append(at_least)
        self.row_upper.append(at_most)


@dataclass(frozen=True)
class Solution:
    values: NDArray[np.float64] | None
    """None: nothing feasible was found."""
    gap: float
    seconds: float
    infeasible: bool = False


def solve(model: LinearModel, *, gap: float, time_limit: float, seed: int) -> Solution:
    """One thread and a fixed seed, so that the same model gives the same answer."""
    if not model.cost:
        return Solution(np.zeros(0), 0.0, 0.0)
    highs = highspy.Highs()  # type: ignore[no-untyped-call]
    for option, value in (
        ("output_flag", False),
        ("threads", 1),
        ("random_seed", seed % (2**31 - 1)),
        ("mip_rel_gap", gap),
        ("mip_abs_gap", 1e-7),
        ("time_limit", time_limit),
    ):
        highs.setOptionValue(option, value)
    highs.passModel(_as_highs(model))
    highs.run()
    status, info = highs.getModelStatus(), highs.getInfo()
    found = info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
    return Solution(
        values=np.array(highs.getSolution().col_value) if found else None,
        gap=max(0.0, float(info.mip_gap)) if found and np.isfinite(info.mip_gap) else 0.0,
        seconds=float(highs.getRunTime()),
        infeasible=status in (highspy.HighsModelStatus.kInfeasible, highspy.HighsModelStatus.kUnboundedOrInfeasible),
    )


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
