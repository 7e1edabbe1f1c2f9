"""Following orders and moves from a process that does not carry them out."""

from pathlib import Path

import pytest

from engine.app.orders import EVERY_SECONDS, TAKEN_WITHIN, cancel, follow_moves, follow_order
from engine.clock import ManualClock
from engine.errors import ShardwrightError, UsageError
from engine.model.plan import MoveCause
from engine.store.opened import opened_store
from engine.store.state_lock import hold_state
from tests.small_orders import NOW, a_report, a_request, move_order


def test_an_order_that_nobody_takes_is_not_waited_for_without_end(tmp_path: Path) -> None:
    clock = ManualClock(NOW)
    with opened_store(f"sqlite:///{tmp_path / 'control.sqlite'}", clock) as store:
        store.orders.put(move_order())
        with pytest.raises(ShardwrightError, match="nobody works on order-1 any more"):
            list(follow_order(store, move_order(), clock))
    assert clock.now() - NOW > TAKEN_WITHIN


def test_moves_that_nobody_drives_are_not_watched_without_end(tmp_path: Path) -> None:
    clock = ManualClock(NOW)
    with opened_store(f"sqlite:///{tmp_path / 'control.sqlite'}", clock) as store:
        store.moves.announce([a_request()], NOW)
        with pytest.raises(ShardwrightError, match="no control plane drives them"):
            list(follow_moves(store, clock))
        with hold_state(store.database):
            stages = follow_moves(store, clock)
            for _ in range(int(2 * TAKEN_WITHIN.total_seconds() / EVERY_SECONDS)):
                assert not next(stages).over
            store.moves.put(a_report(a_request()))
            assert [(one.over, one.ended) for one in stages] == [(True, (a_report(a_request()),))]


def test_a_move_off_a_node_that_goes_away_is_not_cancelled(tmp_path: Path) -> None:
    clock = ManualClock(NOW)
    with opened_store(f"sqlite:///{tmp_path / 'control.sqlite'}", clock) as store:
        reclaim = a_request("move-2").model_copy(update={"cause": MoveCause.RECLAIM})
        store.moves.announce([a_request(), reclaim], NOW)
        cancel(store, a_request().id, clock)
        with pytest.raises(UsageError, match="there is nothing to stay on"):
            cancel(store, reclaim.id, clock)
        assert store.moves.cancelled() == {a_request().id}
