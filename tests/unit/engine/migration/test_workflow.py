"""The workflow under the real DBOS, with agents in the same process."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.migration.workflow import DurableMover, configure
from engine.model.move import MovePhase
from tests.move_simulator.node import SimNode
from tests.move_simulator.world import NODES, Planned, World, request


@pytest.fixture
def mover(tmp_path: Path) -> Iterator[DurableMover]:
    from dbos import DBOS

    DBOS.destroy()
    DBOS(
        config={
            "name": "shardwright-test",
            "system_database_url": f"sqlite:///{tmp_path / 'dbos.sqlite'}",
            "application_version": "test",
            "run_admin_server": False,
            "log_level": "ERROR",
        }
    )
    DBOS.launch()
    yield DurableMover()
    DBOS.destroy()


def prepare(world: World) -> None:
    configure(world.control.context)


def runs_on_the_source(world: World) -> bool:
    here = world.nodes[NODES[0]].guest
    return here is not None and here.running


def test_a_move_is_done_once_however_often_it_is_asked_for(mover: DurableMover) -> None:
    world = World(quiet=True)
    prepare(world)
    first = mover.move(request())
    calls = world.calls
    assert mover.move(request()) == first
    assert world.calls == calls
    assert (first.phase, first.epoch_after, world.store.owner) == (MovePhase.CLEANED, 2, NODES[1])
    assert mover.result(mover.find(request().id)) == first


def test_a_failed_move_is_a_report_with_a_reason(mover: DurableMover) -> None:
    world = World(quiet=True, planned={2: Planned.REQUEST_LOST})
    prepare(world)
    report = mover.move(request())
    assert report.phase is MovePhase.ABORTED
    assert "lost" in report.error
    assert runs_on_the_source(world)
    assert report.downtime_seconds == 0


def test_an_unknown_shard_is_a_report_too(mover: DurableMover) -> None:
    world = World(quiet=True, planned={0: Planned.REQUEST_LOST})
    prepare(world)
    report = mover.move(request())
    assert (report.phase, report.epoch_before, report.epoch_after) == (MovePhase.ABORTED, 0, 0)


def test_a_failure_that_is_not_ours_rolls_back_as_well(mover: DurableMover, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(quiet=True)
    prepare(world)

    def broken(*_arguments: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(SimNode, "prepare", broken)
    report = mover.move(request())
    assert report.phase is MovePhase.ABORTED
    assert "RuntimeError: a bug" in report.error
    assert runs_on_the_source(world)
