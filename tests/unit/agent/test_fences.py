import pytest

from agent import fences
from agent.guest import GuestRecord
from agent.wire import MoveCommand, Verdict
from engine.errors import ConcurrentUpdate, MoveFailed, StaleEpoch
from engine.model.ids import MoveId, ShardId
from tests.move_simulator.node import RECORD

M1, M2 = MoveId("m1"), MoveId("m2")


def record(**changes: object) -> GuestRecord:
    return RECORD.model_copy(update=changes)


def command(move: MoveId = M1, epoch: int = 5) -> MoveCommand:
    return MoveCommand(move=move, epoch=epoch)


def test_a_lower_epoch_is_refused() -> None:
    fences.current(ShardId("s"), 4, 4)
    with pytest.raises(StaleEpoch):
        fences.current(ShardId("s"), 4, 3)


def test_a_guest_obeys_its_own_move_only() -> None:
    fences.in_move(record(move=M1), command())
    for other in (None, M2):
        with pytest.raises(ConcurrentUpdate):
            fences.in_move(record(move=other), command())


def test_a_guest_joins_one_move_and_only_where_it_runs() -> None:
    fences.may_join(record(), command())
    fences.may_join(record(move=M1), command())
    for here in (record(move=M2), record(incoming=True, move=M1), record(ceded_epoch=4, move=M1)):
        with pytest.raises(ConcurrentUpdate):
            fences.may_join(here, command())


def test_a_commit_may_be_told_again_when_its_move_is_over() -> None:
    fences.may_commit(record(move=M1, incoming=True), command())
    fences.may_commit(record(), command())
    for here in (record(move=M2), record(incoming=True), record(move=M2, incoming=True)):
        with pytest.raises(ConcurrentUpdate):
            fences.may_commit(here, command())


def test_what_was_given_away_runs_again_by_a_newer_epoch_only() -> None:
    assert fences.may_run(record(move=M1, ceded_epoch=4), M1, 5)
    assert fences.may_run(record(), M1, 5)
    assert not fences.may_run(record(move=M2), M1, 5)
    assert not fences.may_run(record(move=M1, incoming=True), M1, 5)
    for given_away in (5, 6):
        with pytest.raises(StaleEpoch, match="given away"):
            fences.may_run(record(move=M1, ceded_epoch=given_away), M1, 5)


def test_only_remainders_of_a_move_are_killed_for_it() -> None:
    assert fences.may_kill(record(move=M1, incoming=True), command())
    assert fences.may_kill(record(move=M1, ceded_epoch=5), command())
    for here in (
        record(move=M1),
        record(incoming=True),
        record(move=M2, incoming=True),
        record(move=M2, ceded_epoch=5),
        record(move=M1, ceded_epoch=6),
    ):
        assert not fences.may_kill(here, command())


def test_a_guest_that_was_given_away_must_stop() -> None:
    assert fences.must_stop(record(ceded_epoch=2), running=True)
    assert not fences.must_stop(record(ceded_epoch=2), running=False)
    assert not fences.must_stop(record(), running=True)


def test_a_guest_that_may_have_been_given_away_must_stop_too() -> None:
    assert fences.must_stop(record(handing_over=True), running=True)
    assert not fences.must_stop(record(handing_over=True), running=False)


def test_no_mirror_begins_once_the_disk_was_handed_over() -> None:
    assert fences.may_mirror(record(move=M1))
    assert not fences.may_mirror(record(move=M1, handing_over=True))


def test_disks_are_equal_until_the_guest_runs_on() -> None:
    left = record(move=M1, handing_over=True)
    for migration in ("pre-switchover", "device", "completed"):
        assert fences.still_mirrored(left, mirrored=True, running=False, migration=migration)
        assert not fences.still_mirrored(left, mirrored=True, running=True, migration=migration)
        assert not fences.still_mirrored(left, mirrored=False, running=False, migration=migration)
    assert not fences.still_mirrored(left, mirrored=True, running=False, migration="failed")
    ceased = record(move=M1)  # stopped by the agent: QEMU does not start it again
    assert fences.still_mirrored(ceased, mirrored=True, running=False, migration="failed")


def test_what_waited_for_a_move_and_died_makes_way_for_other_moves_only() -> None:
    for here in (record(incoming=True, move=M2, pid=7), record(incoming=True, move=M1, pid=0), record(move=M1, pid=7)):
        fences.may_make_way(here, command())
    with pytest.raises(MoveFailed, match="has died"):
        fences.may_make_way(record(incoming=True, move=M1, pid=7), command())


def test_only_a_commit_that_was_begun_is_finished_unasked() -> None:
    assert fences.must_finish(record(committing=True))
    for here in (record(), record(committing=True, move=M2), record(committing=True, incoming=True)):
        assert not fences.must_finish(here)


def test_only_a_guest_that_a_move_left_paused_for_long_is_asked_about() -> None:
    long = fences.UNHEARD_SECONDS
    assert fences.must_ask(record(move=M1), running=False, unheard_seconds=long)
    assert fences.must_ask(record(move=M1, ceded_epoch=2), running=False, unheard_seconds=long)
    assert not fences.must_ask(record(move=M1), running=False, unheard_seconds=long - 0.1)
    assert not fences.must_ask(record(move=M1), running=True, unheard_seconds=long)
    assert not fences.must_ask(record(), running=False, unheard_seconds=long)
    assert not fences.must_ask(record(move=M1, incoming=True), running=False, unheard_seconds=long)


def test_only_a_newer_yes_for_the_same_move_lets_it_run_on() -> None:
    left = record(move=M1, ceded_epoch=2)
    assert fences.may_run_on(left, M1, Verdict(yours=True, epoch=3))
    assert not fences.may_run_on(left, M1, Verdict(yours=True, epoch=2))
    assert not fences.may_run_on(left, M1, Verdict(yours=False, epoch=3))
    assert not fences.may_run_on(record(move=M2), M1, Verdict(yours=True, epoch=3))


def test_the_stores_word_that_it_was_given_away_is_enough_for_that_move() -> None:
    assert fences.may_kill(record(move=M1), command(), given_away=True)
    assert not fences.may_kill(record(move=M2), command(), given_away=True)
    assert not fences.may_kill(record(move=M1), command())


def test_the_end_of_an_earlier_migration_is_not_this_moves() -> None:
    assert fences.word_on(record(move=M1, sent_for=M1), "cancelled") == "cancelled"
    assert fences.word_on(record(move=M2, sent_for=M1), "cancelled") == "none"
    assert fences.word_on(record(move=M2), "active") == "active"
