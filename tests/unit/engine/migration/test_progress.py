from engine.migration.progress import ProgressBoard
from engine.model.ids import MoveId
from engine.model.move import MovePhase, MoveProgress
from engine.store.database import Database
from engine.store.moves import MoveHistory
from tests.small_orders import NOW, a_report, a_request


def progress(phase: MovePhase) -> MoveProgress:
    return MoveProgress(request=a_request(), phase=phase, at=NOW)


def test_the_newest_of_each_move_is_written_and_what_is_not_wanted_is_read(database: Database) -> None:
    history = MoveHistory(database)
    board = ProgressBoard(history)
    board.told(progress(MovePhase.RESERVED))
    board.told(progress(MovePhase.MIRRORING))
    assert history.under_way() == (), "a move does not wait for the store"
    board.exchange()
    assert [one.progress.phase for one in history.under_way()] == [MovePhase.MIRRORING]
    history.cancel(MoveId("move-1"), NOW)
    assert not board.cancelled(MoveId("move-1"))
    board.exchange()
    assert board.cancelled(MoveId("move-1"))


def test_a_word_that_comes_late_does_not_bring_an_ended_move_back(database: Database) -> None:
    history = MoveHistory(database)
    board = ProgressBoard(history)
    board.told(progress(MovePhase.CLEANED))
    history.put(a_report(a_request()))
    board.exchange()
    assert history.under_way() == ()
