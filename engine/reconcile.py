"""Cells brought in line with a plan, side by side: one attempt per cell, and errors as values.

A cell that fails does not stop the others. Nothing is retried here: the next round plans on what is there then.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from typing import Protocol, runtime_checkable

import engine.errors as errors
from engine.errors import ConcurrentUpdate, ExitCode, InsufficientCapacity, ShardwrightError
from engine.model.ids import NodeId
from engine.model.placement import Cell
from engine.model.plan import CellPlan, Plan
from engine.model.value import Value
from stacks.base import CellDriver, CellOutcome, ResourceChanges


class CellFailure(Value):
    """Why one attempt at one cell came to nothing, or not to everything."""

    cell: Cell
    generation: int
    kind: str
    """Name of the error class in engine.errors."""
    what: str
    why: str = ""
    next_step: str = ""
    denied: tuple[NodeId, ...] = ()
    """Nodes that could not be had for want of capacity."""
    nodes: tuple[tuple[NodeId, str], ...] = ()
    """(node id, the provider's instance id) of those that are there nevertheless."""

    def error(self) -> ShardwrightError:
        """The error again, to be raised; what its class says about exit codes holds."""
        kind = getattr(errors, self.kind, ShardwrightError)
        found: ShardwrightError = kind(self.what, why=self.why, next_step=self.next_step)
        return found

    @property
    def exit_code(self) -> ExitCode:
        return self.error().exit_code

    @classmethod
    def of(cls, plan: CellPlan, error: ShardwrightError) -> "CellFailure":
        return cls(
            cell=plan.cell,
            generation=plan.generation,
            kind=type(error).__name__,
            what=error.what,
            why=error.why,
            next_step=error.next_step,
            denied=tuple(map(NodeId, error.nodes)) if isinstance(error, InsufficientCapacity) else (),
        )


CellResult = CellOutcome | CellFailure


class CellState(StrEnum):
    STARTED = "started"
    DONE = "done"
    FAILED = "failed"


class CellEvent(Value):
    cell: Cell
    state: CellState
    result: CellOutcome | CellFailure | None = None


OnCellEvent = Callable[[CellEvent], None]


@runtime_checkable
class SupportsRefresh(Protocol):
    def refresh(self, cell: Cell) -> ResourceChanges:
        """Reads the cell back; ``delete`` counts what is gone at the provider, ``update`` what differs."""
        ...


def reconcile(
    plan: Plan,
    driver: CellDriver,
    user_data: Mapping[NodeId, str],
    *,
    on_event: OnCellEvent = lambda _: None,
    max_workers: int = 8,
    current_generation: Callable[[], int] | None = None,
    recover: Callable[[Cell], object] | None = None,
) -> tuple[CellResult, ...]:
    """One result per cell of the plan, in its order. Blocks until every attempt has ended.

    ``current_generation`` is read again before each attempt: an older plan is refused (ConcurrentUpdate), so that a
    stale executor cannot move a cell backwards. ``recover`` is called before each attempt and puts right what an
    interrupted one left. ``on_event`` is called from worker threads.
    """

    def attempt(cell_plan: CellPlan) -> CellOutcome:
        _refuse_stale(cell_plan, current_generation)
        if recover is not None:
            recover(cell_plan.cell)
        return driver.up(cell_plan, user_data)

    return _side_by_side(plan.cells, attempt, on_event, max_workers)


def preview(
    plan: Plan,
    driver: CellDriver,
    user_data: Mapping[NodeId, str],
    *,
    on_event: OnCellEvent = lambda _: None,
    max_workers: int = 8,
    recover: Callable[[Cell], object] | None = None,
) -> tuple[CellResult, ...]:
    """As ``reconcile``, but only says what would be done and what the policy pack thinks of it."""

    def attempt(cell_plan: CellPlan) -> CellOutcome:
        if recover is not None:
            recover(cell_plan.cell)
        return driver.preview(cell_plan, user_data)

    return _side_by_side(plan.cells, attempt, on_event, max_workers)


def drift(
    cells: Sequence[Cell], driver: SupportsRefresh, *, max_workers: int = 8
) -> tuple[tuple[Cell, ResourceChanges | CellFailure], ...]:
    """What changed behind our back, cell by cell; the state knows it afterwards. Creates nothing."""

    def read_back(cell: Cell) -> ResourceChanges | CellFailure:
        try:
            return driver.refresh(cell)
        except ShardwrightError as error:
            return CellFailure.of(CellPlan(cell=cell, generation=0, nodes=()), error)

    with ThreadPoolExecutor(max_workers, thread_name_prefix="drift") as pool:
        return tuple(zip(cells, pool.map(read_back, cells), strict=True))


def _side_by_side(
    plans: Sequence[CellPlan],
    attempt: Callable[[CellPlan], CellOutcome],
    on_event: OnCellEvent,
    max_workers: int,
) -> tuple[CellResult, ...]:
    def guarded(plan: CellPlan) -> CellResult:
        on_event(CellEvent(cell=plan.cell, state=CellState.STARTED))
        try:
            outcome = attempt(plan)
        except ShardwrightError as error:
            failure = CellFailure.of(plan, error)
            on_event(CellEvent(cell=plan.cell, state=CellState.FAILED, result=failure))
            return failure
        on_event(CellEvent(cell=plan.cell, state=CellState.DONE, result=outcome))
        return outcome

    with ThreadPoolExecutor(max_workers, thread_name_prefix="cell") as pool:
        return tuple(pool.map(guarded, plans))


def _refuse_stale(plan: CellPlan, current_generation: Callable[[], int] | None) -> None:
    if current_generation is None:
        return
    current = current_generation()
    if plan.generation < current:
        raise ConcurrentUpdate(
            f"{plan.cell.id}: generation {plan.generation} is stale", why=f"generation {current} is the target now"
        )
