"""The move's own code where one thing goes wrong, or a few, at any call: the laws hold, and it always ends."""

from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.model.ids import MoveId
from engine.model.move import MovePhase, MoveReport
from tests.move_simulator.world import NODES, Planned, World, request

SOURCE, DESTINATION = NODES[:2]
LONGEST = timedelta(minutes=10)
CALLS = 20
"""A move makes fewer."""


def moved(planned: dict[int, Planned], **changes: object) -> tuple[World, MoveReport]:
    world = World(quiet=True, planned=planned)
    for name, value in changes.items():
        setattr(world, name, value)
    report = world.move(request())
    assert report.finished_at - report.started_at < LONGEST
    last = world.store.reports[report.request.id]
    if last.phase is MovePhase.CLEANED:
        assert (world.store.owner, world.store.epoch) == (DESTINATION, 2)
    else:
        assert world.store.owner == SOURCE
        assert last.error
    return world, report


@given(planned=st.dictionaries(st.integers(0, CALLS), st.sampled_from(list(Planned)), max_size=5))
@settings(max_examples=150, deadline=None)
def test_never_two_copies_never_a_lost_write_and_always_an_end(planned: dict[int, Planned]) -> None:
    moved(planned)


def test_every_single_fault_at_every_call() -> None:
    for fault in Planned:
        for at in range(CALLS):
            moved({at: fault})


def test_a_crash_of_the_controller_alone_never_fails_a_move() -> None:
    for fault in (Planned.CRASH_BEFORE, Planned.CRASH_AFTER):
        for at in range(CALLS):
            _, report = moved({at: fault})
            assert (report.phase, report.error) == (MovePhase.CLEANED, "")


def test_one_lost_message_never_leaves_a_shard_in_doubt() -> None:
    for fault in (Planned.REQUEST_LOST, Planned.ANSWER_LOST):
        for at in range(CALLS):
            _, report = moved({at: fault})
            assert report.phase is not MovePhase.IN_DOUBT


def test_memory_that_the_migration_loses_is_found_and_brought_after() -> None:
    for at in range(CALLS):
        for fault in (None, Planned.CRASH_BEFORE, Planned.CRASH_AFTER, Planned.REQUEST_LOST, Planned.ANSWER_LOST):
            _, report = moved({at: fault} if fault else {}, loses_memory=True)
            assert fault or report.phase is MovePhase.CLEANED


def test_a_move_that_is_cancelled_before_its_commit_point_leaves_the_shard_where_it_is() -> None:
    """At every call of the controller: before the swap it ends on the source, after it the move is made."""
    ends = []
    for at in range(CALLS):
        world = World(quiet=True)
        real = world.before_call

        def before_call(world: World = world, at: int = at, real: Any = real) -> Any:
            if world.calls == at:
                world.cancelled.add(request().id)
            return real()

        world.before_call = before_call  # type: ignore[method-assign]
        report = world.move(request())
        ends.append(report.phase)
        where = NODES[1] if report.phase is MovePhase.CLEANED else NODES[0]
        assert (world.store.owner, report.phase in (MovePhase.CLEANED, MovePhase.ABORTED)) == (where, True)
        assert report.phase is MovePhase.CLEANED or "cancelled" in report.error
    assert ends == sorted(ends), "aborted, and from some call on cleaned"
    assert set(ends) == {MovePhase.ABORTED, MovePhase.CLEANED}


def test_a_shard_whose_move_was_cancelled_or_failed_can_move_again() -> None:
    """QEMU keeps the end of its last migration until the next one begins."""
    for word in ("cancelled", "failed", "completed"):
        world = World(quiet=True)
        here = world.nodes[SOURCE].guest
        assert here is not None
        here.migration = word
        here.save(sent_for=MoveId("an-earlier-one"))
        assert world.move(request()).phase is MovePhase.CLEANED
    world = World(quiet=True, planned={})
    world.cancelled.add(MoveId("first"))
    assert world.move(request("first")).phase is MovePhase.ABORTED
    assert world.move(request("second")).phase is MovePhase.CLEANED


def test_without_faults_the_phases_come_in_order() -> None:
    world, report = moved({})
    assert world.phases == [
        MovePhase.RESERVED,
        MovePhase.PREPARED,
        MovePhase.MIRRORING,
        MovePhase.PRECOPY,
        MovePhase.SWITCHING,
        MovePhase.COMMITTED,
        MovePhase.CLEANED,
    ]
    assert (report.epoch_before, report.epoch_after, report.strategy) == (1, 2, "pre-copy")
