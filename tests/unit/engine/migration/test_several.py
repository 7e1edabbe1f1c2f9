import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from dbos import DBOS, SetWorkflowID, WorkflowHandle

from engine.durable import durable_workflows
from engine.migration.several import may_begin
from engine.model.ids import MoveId, NodeId
from engine.model.move import MovePhase, MoveReport, MoveRequest
from tests.moves_process import BATCH, SHARDS, Gates, batch, requests, serve
from tests.small_orders import NOW, a_request

ROOT = Path(__file__).resolve().parents[4]


def move(name: str, source: str, destination: str, *, pressed: bool = False) -> MoveRequest:
    places = {"id": MoveId(name), "source": NodeId(source), "destination": NodeId(destination)}
    return a_request().model_copy(update=places | {"deadline": NOW + timedelta(seconds=30) if pressed else None})


def begun(waiting: list[MoveRequest], under_way: list[MoveRequest]) -> list[str]:
    return [request.id for request in may_begin(waiting, under_way)]


def test_two_leave_a_node_and_two_enter_one_at_a_time() -> None:
    leaving = [move(name, "a", to) for name, to in (("1", "b"), ("2", "c"), ("3", "d"))]
    assert begun(leaving, []) == ["1", "2"]
    entering = [move(name, source, "z") for name, source in (("1", "b"), ("2", "c"), ("3", "d"))]
    assert begun(entering, []) == ["1", "2"]
    assert begun(leaving, [move("other", "a", "z")]) == ["1"]
    assert begun(leaving, [move("other", "z", "a"), move("another", "z", "a")]) == []


def test_who_waits_for_a_node_keeps_nobody_else_waiting() -> None:
    busy = [move("1", "a", "b"), move("2", "a", "c")]
    assert begun([move("3", "a", "d"), move("4", "e", "f")], busy) == ["4"]


def test_a_move_that_has_begun_is_found_whatever_is_under_way() -> None:
    busy = [move("1", "a", "b"), move("2", "a", "c"), move("3", "a", "d")]
    assert begun([busy[2], move("4", "a", "e")], busy) == ["3"]


def test_moves_that_have_time_do_not_make_one_with_a_deadline_late() -> None:
    busy = [move("1", "a", "b"), move("2", "a", "c")]
    waiting = [move(name, "a", "d", pressed=True) for name in "345"]
    assert begun(waiting, busy) == ["3", "4"]
    assert begun([move("6", "d", "e")], waiting[:2]) == []


@pytest.fixture
def gates() -> Gates:
    return Gates()


@pytest.fixture
def kept(gates: Gates, tmp_path: Path) -> Iterator[list[MoveReport]]:
    reports: list[MoveReport] = []
    serve(gates, reports.append)
    with durable_workflows("moves", f"sqlite:///{tmp_path / 'dbos.sqlite'}"):
        yield reports


def ask(name: str = BATCH) -> WorkflowHandle[tuple[MoveReport, ...]]:
    with SetWorkflowID(name):
        return DBOS.start_workflow(batch)


def test_as_soon_as_one_has_ended_the_next_one_begins(gates: Gates, kept: list[MoveReport]) -> None:
    gates.close(SHARDS)
    handle = ask()
    gates.wait_begun(*SHARDS[:2])
    gates.open(SHARDS[1])
    gates.wait_begun(SHARDS[2])
    gates.open(SHARDS[2])
    gates.wait_begun(SHARDS[3])
    assert set(gates.begun[:2]) == set(SHARDS[:2])
    assert gates.begun[2:] == SHARDS[2:]
    assert [report.request.shard for report in kept] == SHARDS[1:3], "kept as they end"
    gates.open(SHARDS[3])
    gates.open(SHARDS[0])
    assert [report.request.shard for report in handle.get_result()] == SHARDS
    assert {report.phase for report in kept} == {MovePhase.ABORTED}
    assert gates.most == 2


def test_two_callers_share_the_nodes_and_the_moves(gates: Gates, kept: list[MoveReport]) -> None:
    first, second = ask("one"), ask("two")
    assert first.get_result() == second.get_result()
    assert sorted(gates.begun) == SHARDS
    assert gates.most <= 2
    assert [report.request for report in ask("three").get_result()] == requests()
    assert len(gates.begun) == 4


def test_one_that_is_held_back_keeps_no_other_waiting(gates: Gates, tmp_path: Path) -> None:
    reports: list[MoveReport] = []
    held = {MoveId(f"move-{SHARDS[0]}")}
    serve(gates, reports.append, held=held)
    with durable_workflows("moves", f"sqlite:///{tmp_path / 'dbos.sqlite'}"):
        handle = ask()
        gates.wait_begun(*SHARDS[1:])
        assert SHARDS[0] not in gates.begun
        held.clear()
        assert [report.request.shard for report in handle.get_result()] == SHARDS


def process(folder: Path, *how: str) -> tuple[int, list[str]]:
    """Its exit code and what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.moves_process", str(folder), *how],
        capture_output=True, text=True, check=False, cwd=ROOT, env=dict(os.environ), timeout=120,
    )  # fmt: skip
    return done.returncode, done.stdout.splitlines()


def test_a_control_plane_that_was_killed_in_the_middle_goes_on_where_it_was(tmp_path: Path) -> None:
    """Though the second move had ended before the first."""
    code, looked = process(tmp_path, "die")
    assert code == -signal.SIGKILL
    assert looked[2:] == ["s2"]
    assert set(looked[:2]) == {"s0", "s1"}
    code, told = process(tmp_path)
    assert code == 0
    *looked, kept, reports = told
    assert sorted(looked) == ["s0", "s2", "s3"]
    assert (sorted(kept.split()), reports.split()) == (SHARDS, SHARDS)
    assert kept.split()[0] == "s1"
