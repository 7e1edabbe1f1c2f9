"""An order put into a real store: who waits for it, who does not, and who stops waiting."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.app.orders import Watched
from engine.cli.asking import ask
from engine.cli.console import Output
from engine.clock import ManualClock
from engine.errors import ShardwrightError
from engine.model.order import OrderState
from engine.store.opened import Store, opened_store
from engine.store.state_lock import hold_state
from tests.small_orders import NOW, move_order

LOOK = "shardwright moves --follow"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with opened_store(f"sqlite:///{tmp_path / 'control.sqlite'}", ManualClock(NOW)) as opened:
        yield opened


def unwatched(_stages: Iterator[Watched]) -> None:
    raise AssertionError("nobody waits")


def test_whoever_waits_needs_somebody_who_carries_it_out(store: Store) -> None:
    with pytest.raises(ShardwrightError, match="no control plane runs") as told:
        ask(store, move_order(), Output.TABLE, unwatched, wait=True, look=LOOK)
    assert f"shardwright {move_order()}" in told.value.next_step
    assert store.orders.open() == ()


def test_whoever_does_not_wait_is_told_how_to_look(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(store, move_order(), Output.TABLE, unwatched, wait=False, look=LOOK) is None
    assert store.orders.open() == (move_order(),)
    assert f"{move_order()} is asked for; {LOOK}" in capsys.readouterr().err


def test_its_stages_are_watched_to_the_end(store: Store) -> None:
    def watch(stages: Iterator[Watched]) -> list[bool]:
        store.orders.put(move_order().model_copy(update={"state": OrderState.ENDED}))
        return [stage.over for stage in stages]

    with hold_state(store.database):
        assert ask(store, move_order(), Output.TABLE, watch, wait=True, look=LOOK) == [True]


@pytest.mark.parametrize(
    ("give_up", "ways"), [("", LOOK), ("shardwright cancel MOVE", f"{LOOK}, shardwright cancel MOVE")]
)
def test_whoever_stops_waiting_is_told_that_it_goes_on(
    store: Store, capsys: pytest.CaptureFixture[str], give_up: str, ways: str
) -> None:
    def interrupted(stages: Iterator[Watched]) -> None:
        next(stages)
        raise KeyboardInterrupt

    with hold_state(store.database), pytest.raises(KeyboardInterrupt):
        ask(store, move_order(), Output.TABLE, interrupted, wait=True, look=LOOK, give_up=give_up)
    assert capsys.readouterr().err.endswith(f"it goes on: {ways}\n")
    assert store.orders.open() == (move_order(),)
