from datetime import timedelta

import pytest

from engine.errors import UnknownName, UsageError
from engine.model.ids import MoveId
from engine.model.move import MovePhase, MoveProgress
from engine.store.database import Database
from engine.store.moves import MoveHistory
from tests.small_orders import NOW, a_report, a_request


def test_a_move_is_under_way_until_its_report_is_there(store: Database) -> None:
    history = MoveHistory(store)
    history.announce([a_request()], NOW)
    mirrored = MoveProgress(request=a_request(), phase=MovePhase.MIRRORING, at=NOW + timedelta(seconds=3), bytes_left=9)
    history.stands(mirrored)
    history.announce([a_request()], NOW + timedelta(seconds=5))
    assert [(one.progress, one.since) for one in history.under_way()] == [(mirrored, NOW)]
    history.put(a_report(a_request()))
    history.stands(mirrored)
    history.announce([a_request()], NOW)
    assert history.under_way() == ()
    assert history.report(MoveId("move-1")) == a_report(a_request())


def test_only_a_move_under_way_can_be_cancelled(store: Database) -> None:
    history = MoveHistory(store)
    history.announce([a_request(), a_request("move-2")], NOW)
    history.cancel(MoveId("move-1"), NOW)
    history.cancel(MoveId("move-1"), NOW)
    assert history.cancelled() == {"move-1"}
    history.stands(MoveProgress(request=a_request(), phase=MovePhase.PRECOPY, at=NOW))
    assert [one.cancelled for one in history.under_way()] == [True, False]
    history.put(a_report(a_request()))
    with pytest.raises(UsageError, match="it has ended: cleaned"):
        history.cancel(MoveId("move-1"), NOW)
    with pytest.raises(UnknownName, match="move-9"):
        history.cancel(MoveId("move-9"), NOW)


@pytest.mark.parametrize(("seconds", "rate", "left"), [(None, 9.0, None), (90, 0.0, None), (90, 9.0, 10.0)])
def test_time_left_is_told_where_it_is_known(seconds: int | None, rate: float, left: float | None) -> None:
    progress = MoveProgress(
        request=a_request(), phase=MovePhase.PRECOPY, at=NOW, bytes_left=seconds, bytes_per_second=rate
    )
    assert progress.seconds_left == left


def test_who_waits_for_a_move_is_whoever_has_asked_last(store: Database) -> None:
    history = MoveHistory(store)
    history.announce([a_request()], NOW, "order-1")
    history.stands(MoveProgress(request=a_request(), phase=MovePhase.MIRRORING, at=NOW))
    assert [one.asked_by for one in history.under_way()] == ["order-1"]
    history.announce([a_request()], NOW, "order-2")
    assert [(one.asked_by, one.progress.phase) for one in history.under_way()] == [("order-2", MovePhase.MIRRORING)]


def test_the_first_report_stays_where_only_the_first_is_wanted(store: Database) -> None:
    history = MoveHistory(store)
    history.announce([a_request()], NOW)
    assert history.put_first(a_report(a_request()))
    assert not history.put_first(a_report(a_request(), MovePhase.ABORTED))
    assert [report.phase for report in history.latest(9)] == [MovePhase.CLEANED]
    assert history.under_way() == ()
