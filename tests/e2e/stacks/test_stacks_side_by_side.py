"""Four cells in threads of one process, on the real engine."""

from datetime import UTC, datetime

from engine.errors import ExitCode
from engine.model.ids import PlanId
from engine.model.money import usd
from engine.model.plan import CellPlan, Plan
from engine.reconcile import CellEvent, CellFailure, CellState, drift, reconcile
from stacks.base import CellOutcome
from tests.e2e.stacks.sandbox_cells import AWS, AZURE, GCP, HARBOR, Cloud, MakeDriver, bought, cell_plan, user_data

CELLS = (AWS, GCP, AZURE, HARBOR)


def plan_of(*cells: CellPlan) -> Plan:
    return Plan(
        id=PlanId("side-by-side"),
        parent=None,
        generation=1,
        made_at=datetime(2026, 11, 23, tzinfo=UTC),
        cells=cells,
        decisions=(),
        pools=(),
        expected_hourly_cost=usd("0.2"),
        cost_quantiles=(),
        solver="given",
        gap=0,
        solve_seconds=0,
    )


def test_four_cells_come_up_side_by_side(make_driver: MakeDriver, cloud: Cloud) -> None:
    driver = make_driver()
    nodes = {cell.kind: bought(cell, f"side-{cell.kind}", cloud) for cell in CELLS}
    plan = plan_of(*(cell_plan(cell, nodes[cell.kind]) for cell in CELLS))
    events: list[CellEvent] = []
    try:
        results = reconcile(
            plan,
            driver,
            user_data(*nodes.values()),
            on_event=events.append,
            current_generation=lambda: 1,
            recover=lambda cell: driver.recover(cell, _NothingThere()),
        )
        assert [type(result) for result in results] == [CellOutcome] * 4
        assert [result.cell for result in results] == list(CELLS)
        assert [len(cloud.instances(cell.provider)) for cell in CELLS] == [1, 1, 1, 1]
        first_end = next(i for i, event in enumerate(events) if event.state is CellState.DONE)
        assert first_end == 4, "every cell began before the first one ended"

        again = reconcile(plan, driver, user_data(*nodes.values()))
        assert all(isinstance(result, CellOutcome) and result.changes.none for result in again)
        assert all(changes.none for _, changes in drift(CELLS, driver) if not isinstance(changes, CellFailure))

        stale = reconcile(plan, driver, {}, current_generation=lambda: 2)
        assert [result.exit_code for result in stale if isinstance(result, CellFailure)] == [ExitCode.ERROR] * 4
    finally:
        for cell in CELLS:
            driver.destroy(cell)
    assert [cloud.instances(cell.provider) for cell in CELLS] == [[], [], [], []]


class _NothingThere:
    """No inventory is asked for where nothing was interrupted."""

    def instances(self) -> list[object]:
        raise AssertionError("the provider was asked")

    def terminate(self, instance_id: str) -> None:
        raise AssertionError("the provider was told to end an instance")
