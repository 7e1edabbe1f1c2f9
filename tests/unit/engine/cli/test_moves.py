"""``move``, ``drain``, ``moves`` and ``cancel`` on a real store; the control plane is a thread that obeys."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine.app.configured import load, open_store
from engine.cli.move_tables import progress_line
from engine.errors import ExitCode
from engine.model.ids import MoveId
from engine.model.move import MovePhase, MoveProgress, MoveUnderWay
from engine.model.order import Order, OrderState, Problem
from engine.model.placement import NodeState
from engine.store.opened import Store
from tests.command import InProcess
from tests.obeying_control import obeying
from tests.small_orders import AWS, AZURE, NOW, a_report, a_request

NAME = "shard://shop/web/api"


@contextmanager
def taking(config: Path, *, phase: MovePhase = MovePhase.CLEANED, problem: Problem | None = None) -> Iterator[None]:
    """A control plane: takes each order, ends its one move in ``phase``, or refuses with ``problem``."""

    def take(store: Store, order: Order, over: threading.Event) -> None:
        if problem is not None:
            store.orders.put(order.model_copy(update={"state": OrderState.ENDED, "problem": problem}))
            return
        request = a_request(f"move-of-{order.id}")
        store.moves.announce([request], NOW)
        store.orders.put(order.model_copy(update={"state": OrderState.TAKEN, "moves": (request.id,)}))
        store.moves.stands(MoveProgress(request=request, phase=MovePhase.PRECOPY, at=NOW, bytes_left=8 << 20))
        over.wait(0.6)
        store.moves.put(a_report(request, phase, "" if phase is MovePhase.CLEANED else "the mirror broke off"))
        ended = store.orders.get(order.id).model_copy(update={"state": OrderState.ENDED})
        store.orders.put(ended)

    with obeying(config, take):
        yield


def test_a_dry_run_tells_where_and_why_and_changes_nothing(command: InProcess, config: Path) -> None:
    told = command("move", NAME, "--to", "azure", "--dry-run", "--config", config, "--output", "json")
    assert told.code == ExitCode.OK, told.err
    (one,) = told.data["intentions"]
    assert (one["request"]["destination"], one["request"]["shard"]) == (AZURE, "sw-aws-s0")
    assert "another provider" in one["why"]
    shown = command("drain", AWS, "--dry-run", "--config", config)
    assert "sw-aws-s1" in shown.out
    with open_store(load(config)) as store:
        assert store.orders.open() == ()
        assert store.shard_map.node(AWS).state is NodeState.JOINED


def test_without_a_control_plane_nothing_is_asked_and_the_next_command_is_told(
    command: InProcess, config: Path
) -> None:
    told = command("move", NAME, "--config", config)
    told.refused(ExitCode.ERROR, "no control plane runs", "shardwright run --serve --rounds 0")
    with open_store(load(config)) as store:
        assert store.orders.open() == ()
    assert command("move", NAME, "--no-wait", "--config", config).code == ExitCode.OK
    with open_store(load(config)) as store:
        assert [str(order) for order in store.orders.open()] == ["move shard://shop/web/api/0"]


def test_a_move_is_followed_to_its_end(command: InProcess, config: Path) -> None:
    with taking(config):
        told = command("move", NAME, "--to", "azure", "--config", config, "--output", "json")
    assert told.code == ExitCode.OK, told.err
    assert [one["phase"] for one in told.data["ended"]] == ["cleaned"]
    assert "precopy, 8.0 MiB left" in told.err
    listed = command("moves", "--config", config)
    assert "12 ms" in listed.out
    assert "cleaned" in listed.out


def test_a_move_that_failed_says_why(command: InProcess, config: Path) -> None:
    with taking(config, phase=MovePhase.ABORTED):
        told = command("move", NAME, "--config", config)
    assert told.code == ExitCode.ERROR
    assert "the mirror broke off" in told.err


def test_what_kept_an_order_from_beginning_is_its_error(command: InProcess, config: Path) -> None:
    with taking(config, problem=Problem(kind="UnknownName", what="it is gone", next_step="shardwright nodes")):
        told = command("drain", AWS, "--config", config)
    told.refused(ExitCode.USAGE, "it is gone")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("move", "api"), "is not a shard name"),
        (("move", "shard://shop/web/none"), "no shard is bound to it"),
        (("move", NAME, "--to", "mars"), "aws, azure, gcp"),
        (("drain", "sw-none"), "sw-none"),
        (("drain", "sw-none", "--undo"), "sw-none"),
        (("cancel", "move-none"), "move-none"),
    ],
)
def test_bad_input_is_refused_before_anything_is_asked(
    command: InProcess, config: Path, arguments: tuple[str, ...], said: str
) -> None:
    command(*arguments, "--config", config).refused(ExitCode.USAGE, said)


def test_a_drain_is_undone_without_a_control_plane(command: InProcess, config: Path) -> None:
    with open_store(load(config)) as store:
        store.shard_map.update_node(AWS, state=NodeState.DRAINING)
    told = command("drain", AWS, "--undo", "--config", config, "--output", "json")
    assert told.data["state"] == "joined"
    again = command("drain", AWS, "--undo", "--config", config)
    assert "was not drained" in again.err


def test_an_undo_has_no_dry_run(command: InProcess, config: Path) -> None:
    command("drain", AWS, "--undo", "--dry-run", "--config", config).refused(ExitCode.USAGE, "--undo has no dry run")


@pytest.mark.parametrize("phase", [MovePhase.ABORTED, MovePhase.CLEANED])
def test_a_cancelled_move_is_waited_for_and_one_that_is_too_late_is_told(
    command: InProcess, config: Path, phase: MovePhase
) -> None:
    with open_store(load(config)) as store:
        store.moves.announce([a_request()], NOW)

    def end() -> None:
        with open_store(load(config)) as store:
            while not store.moves.cancelled():
                threading.Event().wait(0.05)
            store.moves.put(a_report(a_request(), phase))

    with taking(config):
        thread = threading.Thread(target=end, daemon=True)
        thread.start()
        told = command("cancel", "move-1", "--config", config)
        thread.join(20)
    if phase is MovePhase.ABORTED:
        assert told.code == ExitCode.OK, told.err
    else:
        assert told.code == ExitCode.ERROR
        assert "had passed its commit point" in told.err
        assert f"--to {AWS}" in told.err
    command("cancel", "move-1", "--config", config).refused(ExitCode.USAGE, "it has ended")


def test_a_line_of_progress_has_phase_bytes_bandwidth_and_time() -> None:
    progress = MoveProgress(
        request=a_request(), phase=MovePhase.MIRRORING, at=NOW, bytes_left=48 << 20, bytes_per_second=12 << 20
    )
    line = progress_line(MoveUnderWay(progress=progress, since=NOW, cancelled=True))
    assert line == "move-1: sw-aws -> sw-azure mirroring, cancelled, 48 MiB left at 12 MiB/s, 4 s to go"
    assert MoveId("move-1") in line
