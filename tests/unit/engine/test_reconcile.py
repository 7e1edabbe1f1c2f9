import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import pytest

from engine.errors import ConcurrentUpdate, ExitCode, InsufficientCapacity, PolicyViolation, ShardwrightError
from engine.model.ids import NodeId, PlanId
from engine.model.money import usd
from engine.model.placement import Cell
from engine.model.plan import CellPlan, Plan
from engine.reconcile import CellEvent, CellFailure, CellState, drift, preview, reconcile
from stacks.base import CellOutcome, ResourceChanges

CELLS = tuple(Cell(provider=name, kind=name, account="1", region="r") for name in ("aws", "gcp", "azure"))


def plan(generation: int = 3) -> Plan:
    return Plan(
        id=PlanId("p"),
        parent=None,
        generation=generation,
        made_at=datetime(2026, 11, 23, tzinfo=UTC),
        cells=tuple(CellPlan(cell=cell, generation=generation, nodes=()) for cell in CELLS),
        decisions=(),
        pools=(),
        expected_hourly_cost=usd(0),
        cost_quantiles=(),
        solver="given",
        gap=0,
        solve_seconds=0,
    )


class Driver:
    """Does what ``act`` says for a cell."""

    def __init__(self, act: Callable[[Cell], None] = lambda _: None) -> None:
        self.act = act
        self.ups: list[str] = []

    def up(self, plan: CellPlan, user_data: Mapping[NodeId, str]) -> CellOutcome:
        self.ups.append(plan.cell.provider)
        self.act(plan.cell)
        return CellOutcome(cell=plan.cell, generation=plan.generation, changes=ResourceChanges(create=1))

    def preview(self, plan: CellPlan, user_data: Mapping[NodeId, str]) -> CellOutcome:
        self.act(plan.cell)
        return CellOutcome(cell=plan.cell, generation=plan.generation, changes=ResourceChanges(create=1))

    def refresh(self, cell: Cell) -> ResourceChanges:
        self.act(cell)
        return ResourceChanges(delete=1)

    def destroy(self, cell: Cell) -> None:
        raise AssertionError("nothing is destroyed here")


def failing(provider: str, error: ShardwrightError) -> Callable[[Cell], None]:
    def act(cell: Cell) -> None:
        if cell.provider == provider:
            raise error

    return act


def test_a_failed_cell_is_a_value_and_does_not_stop_the_others() -> None:
    error = InsufficientCapacity("gcp: no n2", why="exhausted", next_step="wait", nodes=("n2",))
    results = reconcile(plan(), Driver(failing("gcp", error)), {})
    assert [type(result).__name__ for result in results] == ["CellOutcome", "CellFailure", "CellOutcome"]
    failure = results[1]
    assert isinstance(failure, CellFailure)
    assert (failure.cell, failure.generation, failure.kind) == (CELLS[1], 3, "InsufficientCapacity")
    assert failure.denied == ("n2",)
    again = failure.error()
    assert isinstance(again, InsufficientCapacity)
    assert (again.what, again.why, again.next_step) == (error.what, error.why, error.next_step)
    assert failure.exit_code is ExitCode.PROVIDER


def test_what_nobody_foresaw_is_raised_after_the_others_have_ended() -> None:
    def act(cell: Cell) -> None:
        if cell.provider == "aws":
            raise RuntimeError("a bug")

    driver = Driver(act)
    with pytest.raises(RuntimeError, match="a bug"):
        reconcile(plan(), driver, {})
    assert sorted(driver.ups) == ["aws", "azure", "gcp"]


def test_cells_run_side_by_side() -> None:
    together = threading.Barrier(3, timeout=5)
    results = reconcile(plan(), Driver(lambda _: together.wait() and None), {})
    assert all(isinstance(result, CellOutcome) for result in results)


def test_a_stale_plan_touches_nothing() -> None:
    driver = Driver()
    results = reconcile(plan(generation=3), driver, {}, current_generation=lambda: 4)
    assert driver.ups == []
    assert {result.kind for result in results if isinstance(result, CellFailure)} == {ConcurrentUpdate.__name__}
    assert len(reconcile(plan(generation=4), driver, {}, current_generation=lambda: 4)) == len(driver.ups) == 3


def test_recovery_comes_first_and_its_failure_keeps_the_cell_untouched() -> None:
    driver = Driver()
    results = reconcile(plan(), driver, {}, recover=failing("aws", ConcurrentUpdate("still running")))
    assert isinstance(results[0], CellFailure)
    assert sorted(driver.ups) == ["azure", "gcp"]


def test_events_tell_begin_and_end_of_each_cell() -> None:
    events: list[CellEvent] = []
    driver = Driver(failing("gcp", PolicyViolation("no")))
    results = reconcile(plan(), driver, {}, on_event=events.append, max_workers=1)
    assert [(event.cell.provider, event.state) for event in events] == [
        ("aws", CellState.STARTED),
        ("aws", CellState.DONE),
        ("gcp", CellState.STARTED),
        ("gcp", CellState.FAILED),
        ("azure", CellState.STARTED),
        ("azure", CellState.DONE),
    ]
    assert [event.result for event in events if event.result] == list(results)


def test_preview_is_an_attempt_of_its_own() -> None:
    results = preview(plan(), Driver(failing("azure", PolicyViolation("no"))), {})
    assert [isinstance(result, CellFailure) for result in results] == [False, False, True]


def test_drift_is_told_per_cell() -> None:
    found = dict(drift(CELLS, Driver(failing("gcp", InsufficientCapacity("down")))))
    assert found[CELLS[0]] == ResourceChanges(delete=1)
    assert isinstance(found[CELLS[1]], CellFailure)
