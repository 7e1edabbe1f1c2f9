import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from dbos import DBOS, SetWorkflowID

from engine.durable import durable_workflows, goes_on
from engine.migration.abandoned import Carried, end_abandoned
from engine.migration.base import MoveInDoubt
from engine.migration.sweep import sweep
from engine.migration.workflow import DurableMover, configure
from engine.model.ids import MoveId
from engine.model.move import MovePhase, MoveReport, MoveRequest
from engine.store.database import Database
from engine.store.moves import MoveHistory
from tests.move_simulator.node import SimNode
from tests.move_simulator.world import NODES, World, request
from tests.moves_process import BATCH, SHARDS, Gates, batch, requests, serve
from tests.small_orders import NOW, a_report, a_request

ROOT = Path(__file__).resolve().parents[4]
LATER = NOW + timedelta(minutes=1)


@dataclass
class Workflows:
    """One move's, as it is said to be."""

    state: Carried
    found: MoveInDoubt | None = None

    def carried(self, move: MoveId) -> Carried:
        return self.state

    def looked(self, request: MoveRequest) -> MoveInDoubt | None:
        return self.found

    def report(self, move: MoveId) -> MoveReport:
        return a_report(a_request(move))


@pytest.fixture
def history(database: Database) -> MoveHistory:
    return MoveHistory(database)


def never(_workflow: str) -> bool:
    return False


FOUND = MoveInDoubt(request=a_request(), epoch=3, started_at=NOW)


@pytest.mark.parametrize(
    ("workflows", "phase", "epoch", "error"),
    [
        (Workflows(Carried.NEVER_BEGUN), MovePhase.ABORTED, 0, "it was not begun: what had asked for it broke off"),
        (Workflows(Carried.BROKE_OFF), MovePhase.ABORTED, 0, "its workflow broke off before it had done anything"),
        (Workflows(Carried.BROKE_OFF, FOUND), MovePhase.IN_DOUBT, 3, "its workflow broke off"),
        (Workflows(Carried.ENDED), MovePhase.CLEANED, 1, ""),
    ],
)
def test_what_nobody_carries_out_is_ended_once(
    workflows: Workflows, phase: MovePhase, epoch: int, error: str, history: MoveHistory
) -> None:
    history.announce([a_request()], NOW, "order-1")
    (report,) = end_abandoned(history, workflows, never, LATER)
    assert (report.phase, report.epoch_before, history.report(MoveId("move-1"))) == (phase, epoch, report)
    assert report.error == error
    assert history.under_way() == ()
    assert end_abandoned(history, workflows, never, LATER) == ()


def test_what_goes_on_or_is_waited_for_is_left_alone(history: MoveHistory) -> None:
    history.announce([a_request()], NOW, "order-1")
    assert end_abandoned(history, Workflows(Carried.GOES_ON), never, LATER) == ()
    for state in Carried:
        assert end_abandoned(history, Workflows(state), lambda asker: asker == "order-1", LATER) == ()
    assert len(history.under_way()) == 1


def test_a_report_that_has_come_meanwhile_stays(history: MoveHistory, monkeypatch: pytest.MonkeyPatch) -> None:
    history.announce([a_request()], NOW, "order-1")
    seen = history.under_way()
    history.put(a_report(a_request()))
    monkeypatch.setattr(history, "under_way", lambda: seen)
    assert end_abandoned(history, Workflows(Carried.NEVER_BEGUN), never, LATER) == ()
    report = history.report(MoveId("move-1"))
    assert report is not None
    assert report.phase is MovePhase.CLEANED


def ended(history: MoveHistory) -> dict[str, tuple[MovePhase, str]]:
    found = end_abandoned(history, DurableMover(), goes_on, LATER)
    return {report.request.shard: (report.phase, report.error) for report in found}


def test_moves_of_a_caller_that_broke_off_are_under_way_no_more(history: MoveHistory, tmp_path: Path) -> None:
    """It cannot enter the first report: one has ended, one goes on, two will never begin."""

    def full(_report: MoveReport) -> None:
        raise OSError("the disk is full")

    gates = Gates()
    serve(gates, full, lambda asked, by: history.announce(asked, NOW, by))
    gates.close(SHARDS)
    with durable_workflows("moves", f"sqlite:///{tmp_path / 'dbos.sqlite'}"):
        with SetWorkflowID(BATCH):
            handle = DBOS.start_workflow(batch)
        gates.wait_begun(*SHARDS[:2])
        assert {one.asked_by for one in history.under_way()} == {BATCH}
        assert ended(history) == {}
        gates.open(SHARDS[0])
        with pytest.raises(OSError, match="the disk is full"):
            handle.get_result()
        found = ended(history)
        assert {shard: phase for shard, (phase, _) in found.items()} == dict.fromkeys(
            ("s0", "s2", "s3"), MovePhase.ABORTED
        )
        assert "not known" in found["s0"][1]
        assert "not begun" in found["s2"][1]
        gates.open(SHARDS[1])
        DBOS.retrieve_workflow(requests()[1].id).get_result()
        assert list(ended(history)) == ["s1"]
    assert history.under_way() == ()


def test_moves_that_an_older_version_has_left_are_under_way_no_more(history: MoveHistory, tmp_path: Path) -> None:
    """Killed while the second had ended, the first and the third had begun and done nothing, the last one waited."""
    code = (
        "import engine.durable, runpy, sys; engine.durable.WORKFLOW_VERSION = '0';"
        "sys.argv[0] = 'moves'; runpy.run_module('tests.moves_process', run_name='__main__')"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), "die"], check=False, cwd=ROOT, timeout=120, capture_output=True
    )
    history.announce(requests(), NOW, BATCH)
    with durable_workflows("moves", f"sqlite:///{tmp_path / 'dbos.sqlite'}"):
        assert not goes_on(BATCH)
        found = ended(history)
    assert {shard: phase for shard, (phase, _) in found.items()} == dict.fromkeys(SHARDS, MovePhase.ABORTED)
    assert "not known" in found["s1"][1]
    assert history.under_way() == ()


@pytest.fixture
def launched(tmp_path: Path) -> Iterator[DurableMover]:
    with durable_workflows("moves", f"sqlite:///{tmp_path / 'dbos.sqlite'}"):
        yield DurableMover()


def test_a_move_that_broke_off_half_way_is_settled_by_the_sweep(
    launched: DurableMover, history: MoveHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(quiet=True)
    configure(world.control.context)
    reserve = SimNode.reserve

    def cancelled(node: SimNode, *arguments: object) -> object:
        DBOS.cancel_workflow(request().id)
        return reserve(node, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(SimNode, "reserve", cancelled)
    history.announce([request()], NOW)
    with pytest.raises(Exception, match="cancelled"):
        launched.move(request())
    assert ended(history) == {request().shard: (MovePhase.IN_DOUBT, "its workflow broke off")}
    (report,) = history.unsettled()
    assert report.epoch_before == 1
    (settled,) = sweep(world.control.context, history)
    assert (settled.phase, world.store.owner) == (MovePhase.ABORTED, NODES[0])
    guest = world.nodes[NODES[0]].guest
    assert guest is not None
    assert guest.running


@pytest.mark.parametrize(
    ("found", "phase", "error"),
    [
        (FOUND, MovePhase.IN_DOUBT, "what an older version has reported cannot be read"),
        (None, MovePhase.ABORTED, "what an older version has reported cannot be read: it had done nothing"),
    ],
)
def test_one_whose_report_cannot_be_read_is_settled_by_what_it_found(
    found: MoveInDoubt | None, phase: MovePhase, error: str, history: MoveHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    history.announce([a_request()], NOW, "order-1")
    monkeypatch.setattr(Workflows, "report", older)
    (entered,) = end_abandoned(history, Workflows(Carried.ENDED, found), never, LATER)
    assert (entered.phase, entered.error) == (phase, error)
    assert history.under_way() == ()


def older(_workflows: Workflows, _move: MoveId) -> MoveReport:
    raise ValueError("an older version's report")


def test_one_that_cannot_be_read_at_all_keeps_no_other_under_way(
    history: MoveHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    history.announce([a_request(), a_request("move-2")], NOW, "order-1")

    def looked(_workflows: Workflows, request: MoveRequest) -> None:
        if request.id == "move-1":
            raise LookupError("an older version's plan")

    monkeypatch.setattr(Workflows, "looked", looked)
    (entered,) = end_abandoned(history, Workflows(Carried.BROKE_OFF), never, LATER)
    assert entered.request.id == "move-2"
    assert [one.progress.request.id for one in history.under_way()] == ["move-1"]
