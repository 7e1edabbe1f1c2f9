"""``resize`` on a real store; the control plane is a thread that obeys."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine.app.configured import load, open_store
from engine.clock import SystemClock
from engine.errors import ExitCode
from engine.model.order import Order, OrderState, Problem, Resized
from engine.model.placement import NodeState
from engine.store.opened import Store
from engine.store.state_lock import hold_state
from tests.command import InProcess
from tests.obeying_control import obeying
from tests.small_orders import AWS, NOW, SMALL, a_request

NAME = "shard://shop/web/api"


@contextmanager
def taking(config: Path, problem: Problem | None = None) -> Iterator[None]:
    """A control plane that does each order, or refuses it with ``problem``."""

    def take(store: Store, order: Order, _over: threading.Event) -> None:
        assert order.size is not None
        shard = store.shard_map.search(node=AWS)[0]
        resized = Resized(shard=shard.id, before=shard.nominal, after=order.size.of(shard.nominal))
        ended = {"state": OrderState.ENDED, "problem": problem, "resized": resized if problem is None else None}
        store.orders.put(order.model_copy(update=ended))

    with obeying(config, take):
        yield


def test_a_resize_is_waited_for_and_shown(command: InProcess, config: Path) -> None:
    with taking(config):
        told = command("resize", NAME, "--memory-gib", 4, "--iops", 300, "--config", config, "--output", "json")
        shown = command("resize", NAME, "--vcpus", "0.5", "--config", config)
    assert told.code == ExitCode.OK, told.err
    assert (told.data["after"]["memory_gib"], told.data["after"]["storage_iops"]) == (4, 300)
    assert told.data["after"]["vcpus"] == SMALL.vcpus
    assert "resize shard://shop/web/api/0 --vcpus 0.5" in shown.out


def test_what_the_node_refuses_is_the_error_of_the_command(command: InProcess, config: Path) -> None:
    problem = Problem(kind="UsageError", what="this shard's memory can be 2048 to 8192 MiB while it runs")
    with taking(config, problem.model_copy(update={"next_step": "carve another shard and move over"})):
        told = command("resize", NAME, "--memory-gib", 1, "--config", config)
    told.refused(ExitCode.USAGE, "2048 to 8192 MiB while it runs")


def test_a_dry_run_says_what_would_change_and_changes_nothing(command: InProcess, config: Path) -> None:
    told = command("resize", NAME, "--memory-gib", 4, "--dry-run", "--config", config)
    assert told.code == ExitCode.OK, told.err
    assert "would have" in told.out
    with open_store(load(config)) as store:
        assert store.orders.open() == ()
        assert {shard.nominal for shard in store.shard_map.search()} == {SMALL}


def test_without_a_control_plane_nothing_is_asked(command: InProcess, config: Path) -> None:
    told = command("resize", NAME, "--memory-gib", 4, "--config", config)
    told.refused(ExitCode.ERROR, "no control plane runs", "shardwright resize shard://shop/web/api/0 --memory-gib 4")
    asked = command("resize", NAME, "--memory-gib", 4, "--no-wait", "--config", config, "--output", "json")
    assert (asked.code, asked.data["kind"]) == (ExitCode.OK, "resize")
    with open_store(load(config)) as store:
        assert [str(order) for order in store.orders.open()] == ["resize shard://shop/web/api/0 --memory-gib 4"]
    again = command("resize", NAME, "--memory-gib", 3, "--config", config)
    again.refused(ExitCode.ERROR, "cannot be resized now")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((NAME,), ExitCode.USAGE, "no size was given"),
        (("api", "--vcpus", "1"), ExitCode.USAGE, "is not a shard name"),
        (("shard://shop/web/none", "--vcpus", "1"), ExitCode.USAGE, "no shard is bound to it"),
        ((NAME, "--memory-gib", "7"), ExitCode.PROVIDER, "7 wanted of 6"),
        ((NAME, "--memory-gib", "inf"), ExitCode.USAGE, "--memory-gib inf is no size"),
        ((NAME, "--vcpus", "nan"), ExitCode.USAGE, "--vcpus"),
        ((NAME, "--iops", "0.5"), ExitCode.USAGE, "1 or more, or 0 for no limit"),
        ((NAME, "--network-mbps", "-1"), ExitCode.USAGE, "--network-mbps"),
        ((NAME, "--memory-gib", "2.3", "--dry-run"), ExitCode.USAGE, "--memory-gib 2.296875 or 2.30078125"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_asked(
    command: InProcess, config: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    command("resize", *arguments, "--config", config).refused(code, said)


def test_whoever_stops_waiting_is_told_that_it_goes_on(
    command: InProcess, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_clock: SystemClock, _seconds: float) -> None:
        raise KeyboardInterrupt

    with open_store(load(config)) as store, hold_state(store.database):
        monkeypatch.setattr(SystemClock, "sleep", interrupted)
        told = command("resize", NAME, "--iops", 0, "--config", config)
        assert [str(order) for order in store.orders.open()] == ["resize shard://shop/web/api/0 --iops 0"]
    assert told.code == ExitCode.CANCELLED
    assert "it goes on: shardwright shards" in told.err


def test_what_moves_or_is_left_is_refused(command: InProcess, config: Path) -> None:
    with open_store(load(config)) as store:
        store.moves.announce([a_request()], NOW)
    command("resize", NAME, "--vcpus", "0.5", "--config", config).refused(ExitCode.ERROR, "move-1 is under way")
    with open_store(load(config)) as store:
        store.shard_map.update_node(AWS, state=NodeState.DRAINING)
    second = "shard://shop/web/api/1"
    command("resize", second, "--memory-gib", "2.5", "--config", config).refused(ExitCode.ERROR, "is draining")
