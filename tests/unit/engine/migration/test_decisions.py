import re
from itertools import product
from pathlib import Path

import pytest

from agent.wire import DestinationStatus, SourceStatus
from engine.migration.decisions import (
    FINAL,
    LEADS_TO,
    Act,
    Observation,
    Ownership,
    Removal,
    Sight,
    Step,
    leftovers,
    next_act,
    next_step,
    out_of_patience,
    ownership,
)
from engine.model.ids import MoveId, NodeId, ShardId
from engine.model.move import UNSETTLED, MovePhase, MoveRequest
from engine.model.plan import MoveCause

MIGRATIONS = ("none", "setup", "active", "pre-switchover", "device", "completed", "failed", "cancelled")
MIGRATIONS += ("postcopy-active", "postcopy-paused", "postcopy-recover")


def source(migration: str, *, mirror: bool = False, running: bool = True, mirrored: bool = False) -> SourceStatus:
    return SourceStatus(
        running=running, mirror_ready=mirror, mirror_present=mirror, mirrored=mirrored, migration=migration
    )


WAITING = DestinationStatus(present=True, migration="active")
ARRIVED = DestinationStatus(present=True, arrived=True, migration="completed")
RUNNING = DestinationStatus(present=True, arrived=True, committed=True, running=True)
TOLD_BUT_PAUSED = DestinationStatus(present=True, arrived=True, committed=True)
DIED_AFTER_COMMIT = DestinationStatus(present=False, committed=True)
GONE = DestinationStatus(present=False)
LANDED = DestinationStatus(present=True, landed=True, migration="postcopy-active")
CUT_OFF = DestinationStatus(present=True, migration="postcopy-paused")
RECEIVING = LANDED.model_copy(update={"committed": True, "receiving": True, "running": True})
RECEIVING_CUT_OFF = RECEIVING.model_copy(update={"migration": "postcopy-paused", "landed": False})
RECEIVED = RECEIVING.model_copy(update={"migration": "completed", "arrived": True})
BOOTING = DestinationStatus(present=True, committed=True, running=True, booting=True)
BOOT_FAILED = DestinationStatus(present=False, committed=True, booting=True)
SILENT_WAITING = DestinationStatus(present=True, silent=True)
SILENT_RUNNING = SILENT_WAITING.model_copy(update={"committed": True})
SILENT_RECEIVING = SILENT_RUNNING.model_copy(update={"receiving": True})
DIED_RECEIVING = DestinationStatus(present=False, committed=True, receiving=True)


def seen(owner: Ownership, at_source: SourceStatus | Sight, at_destination: DestinationStatus | Sight) -> Observation:
    here = at_source if isinstance(at_source, SourceStatus) else None
    there = at_destination if isinstance(at_destination, DestinationStatus) else None
    there_sight = Sight.SILENT if there is None else Sight.ANSWERS if there.present else Sight.GUEST_GONE
    there_sight = Sight.SILENT if there is not None and there.silent else there_sight
    there_sight = at_destination if isinstance(at_destination, Sight) else there_sight
    return Observation(
        owner=owner,
        source_sight=Sight.ANSWERS if here else Sight(str(at_source)),
        source=here,
        destination_sight=there_sight,
        destination=there,
    )


@pytest.mark.parametrize(
    ("at_source", "at_destination", "act"),
    [
        (source("none", mirror=True), WAITING, Act.START_COPY),
        (source("completed", mirror=True), WAITING, Act.ROLL_BACK),
        (source("none"), WAITING, Act.ROLL_BACK),
        (source("active", mirror=True), WAITING, Act.AWAIT_SWITCHOVER),
        (source("pre-switchover", mirror=True, running=False), WAITING, Act.AWAIT_SWITCHOVER),
        (source("pre-switchover", running=False, mirrored=True), WAITING, Act.SWAP),
        (source("device", running=False, mirrored=True), WAITING, Act.SWAP),
        (source("completed", running=False, mirrored=True), ARRIVED, Act.SWAP),
        (source("completed", running=False, mirrored=True), WAITING, Act.SWAP),
        (source("completed", running=False), ARRIVED, Act.ROLL_BACK),
        (source("device", running=False), WAITING, Act.ROLL_BACK),
        (source("failed", running=False, mirrored=True), WAITING, Act.ROLL_BACK),
        (source("completed", running=False, mirrored=True), GONE, Act.ROLL_BACK),
        (source("pre-switchover", running=False), WAITING, Act.ROLL_BACK),
        (source("active"), WAITING, Act.ROLL_BACK),
        (source("failed"), WAITING, Act.ROLL_BACK),
        (source("active", mirror=True), GONE, Act.ROLL_BACK),
        (Sight.GUEST_GONE, WAITING, Act.ROLL_BACK),
        (Sight.SILENT, WAITING, Act.LOOK_AGAIN),
        (Sight.NODE_GONE, WAITING, Act.ROLL_BACK),
        (source("active", mirror=True), Sight.NODE_GONE, Act.ROLL_BACK),
        (source("active", mirror=True), Sight.SILENT, Act.LOOK_AGAIN),
        (source("active", mirror=True), SILENT_WAITING, Act.LOOK_AGAIN),
        (source("completed", running=False, mirrored=True), SILENT_WAITING, Act.LOOK_AGAIN),
    ],
)
def test_before_the_commit_point(
    at_source: SourceStatus | Sight, at_destination: DestinationStatus | Sight, act: Act
) -> None:
    assert next_act(seen(Ownership.SOURCE, at_source, at_destination)) is act


@pytest.mark.parametrize(
    ("at_source", "at_destination", "act"),
    [
        (source("pre-switchover", running=False), WAITING, Act.PROCEED),
        (source("completed", running=False), ARRIVED, Act.COMMIT),
        (source("completed", running=False), TOLD_BUT_PAUSED, Act.COMMIT),
        (Sight.SILENT, ARRIVED, Act.COMMIT),
        (Sight.NODE_GONE, ARRIVED, Act.COMMIT),
        (Sight.NODE_GONE, WAITING, Act.LOOK_AGAIN),
        (Sight.GUEST_GONE, ARRIVED, Act.COMMIT),
        (source("completed", running=False), RUNNING, Act.DONE),
        (source("completed", running=False), DIED_AFTER_COMMIT, Act.DONE),
        (source("completed", running=False), GONE, Act.GIVE_BACK),
        (source("failed"), WAITING, Act.GIVE_BACK),
        (Sight.GUEST_GONE, BOOTING, Act.COLD_RESTART),
        (Sight.SILENT, BOOT_FAILED, Act.COLD_RESTART),
        (Sight.NODE_GONE, BOOT_FAILED, Act.COLD_RESTART),
        (Sight.SILENT, GONE, Act.LOOK_AGAIN),
        (Sight.GUEST_GONE, WAITING, Act.LOOK_AGAIN),
        (source("failed"), Sight.SILENT, Act.LOOK_AGAIN),
        (source("failed"), SILENT_WAITING, Act.LOOK_AGAIN),
        (source("completed", running=False), SILENT_RUNNING, Act.LOOK_AGAIN),
    ],
)
def test_after_the_commit_point(
    at_source: SourceStatus | Sight, at_destination: DestinationStatus | Sight, act: Act
) -> None:
    assert next_act(seen(Ownership.DESTINATION, at_source, at_destination)) is act


@pytest.mark.parametrize(
    ("at_source", "at_destination", "act"),
    [
        (source("pre-switchover", running=False), WAITING, Act.PROCEED),
        (source("postcopy-active", running=False), LANDED, Act.COMMIT),
        (source("postcopy-active", running=False), WAITING, Act.LOOK_AGAIN),
        (source("postcopy-paused", running=False), CUT_OFF, Act.RECONNECT),
        (source("postcopy-active", running=False), RECEIVING, Act.AWAIT_MEMORY),
        (source("completed", running=False), RECEIVING, Act.AWAIT_MEMORY),
        (source("postcopy-paused", running=False), RECEIVING, Act.RECONNECT),
        (source("postcopy-active", running=False), RECEIVING_CUT_OFF, Act.RECONNECT),
        (source("completed", running=False), RECEIVED, Act.COMMIT),
        (source("postcopy-active", running=False), RECEIVED, Act.COMMIT),
        (Sight.SILENT, RECEIVED, Act.COMMIT),
        (Sight.SILENT, RECEIVING, Act.LOOK_AGAIN),
        (Sight.GUEST_GONE, RECEIVING, Act.COLD_RESTART),
        (Sight.NODE_GONE, RECEIVING_CUT_OFF, Act.COLD_RESTART),
        (source("postcopy-active", running=False), DIED_RECEIVING, Act.COLD_RESTART),
        (source("postcopy-paused", running=False), GONE, Act.COLD_RESTART),
        (Sight.GUEST_GONE, LANDED, Act.LOOK_AGAIN),
        (source("postcopy-active", running=False), SILENT_RECEIVING, Act.LOOK_AGAIN),
        (source("postcopy-active", running=False), SILENT_WAITING, Act.LOOK_AGAIN),
        (source("postcopy-paused", running=False), SILENT_RECEIVING, Act.LOOK_AGAIN),
        (Sight.GUEST_GONE, SILENT_RECEIVING, Act.LOOK_AGAIN),
    ],
)
def test_while_memory_follows_a_guest_that_runs(
    at_source: SourceStatus | Sight, at_destination: DestinationStatus | Sight, act: Act
) -> None:
    assert next_act(seen(Ownership.DESTINATION, at_source, at_destination)) is act


@pytest.mark.parametrize(
    ("at_source", "receiving", "waiting"),
    [
        (source("postcopy-active", running=False), Act.LOOK_AGAIN, Act.LOOK_AGAIN),
        (source("postcopy-paused", running=False), Act.COLD_RESTART, Act.COLD_RESTART),
        (source("completed", running=False), Act.LOOK_AGAIN, Act.GIVE_BACK),
        (source("failed", running=False), Act.COLD_RESTART, Act.GIVE_BACK),
        (Sight.SILENT, Act.LOOK_AGAIN, Act.LOOK_AGAIN),
        (Sight.GUEST_GONE, Act.COLD_RESTART, Act.GIVE_BACK),
        (Sight.NODE_GONE, Act.COLD_RESTART, Act.COLD_RESTART),
    ],
)
def test_a_qemu_that_stays_silent_is_given_up_only_where_its_memory_cannot_come_or_is_elsewhere(
    at_source: SourceStatus | Sight, receiving: Act, waiting: Act
) -> None:
    """Its monitor may be stuck at a page that never comes: no command that mends the connection would reach it."""
    assert out_of_patience(seen(Ownership.DESTINATION, at_source, SILENT_RECEIVING)) is receiving
    assert out_of_patience(seen(Ownership.DESTINATION, at_source, SILENT_WAITING)) is waiting
    assert out_of_patience(seen(Ownership.DESTINATION, at_source, SILENT_RUNNING)) is Act.LOOK_AGAIN
    for there in (SILENT_RECEIVING, SILENT_WAITING):
        assert out_of_patience(seen(Ownership.SOURCE, at_source, there)) is Act.ROLL_BACK


def test_from_post_copy_there_is_no_way_back_to_the_source() -> None:
    for one in every_observation(Ownership.DESTINATION):
        sent = one.source is not None and one.source.migration.startswith("postcopy")
        if sent or (one.destination is not None and one.destination.receiving):
            assert Act.GIVE_BACK not in (next_act(one), out_of_patience(one))
    assert out_of_patience(seen(Ownership.DESTINATION, Sight.GUEST_GONE, LANDED)) is Act.COLD_RESTART


def every_observation(owner: Ownership) -> list[Observation]:
    sources: list[SourceStatus | Sight] = [Sight.SILENT, Sight.GUEST_GONE]
    sources += [source(word, mirror=mirror) for word, mirror in product(MIGRATIONS, (True, False))]
    destinations: list[DestinationStatus | Sight] = [Sight.SILENT, WAITING, ARRIVED, RUNNING, TOLD_BUT_PAUSED]
    destinations += [DIED_AFTER_COMMIT, GONE, LANDED, CUT_OFF, RECEIVING, RECEIVING_CUT_OFF, RECEIVED, DIED_RECEIVING]
    destinations += [BOOTING, BOOT_FAILED, SILENT_WAITING, SILENT_RUNNING, SILENT_RECEIVING]
    return [seen(owner, here, there) for here, there in product(sources, destinations)]


def test_nothing_runs_on_the_destination_before_the_store_says_so() -> None:
    acts = {next_act(one) for one in every_observation(Ownership.SOURCE)}
    assert not acts & {Act.PROCEED, Act.COMMIT, Act.DONE, Act.GIVE_BACK}


def test_the_source_is_never_told_to_run_after_the_commit_point() -> None:
    for one in every_observation(Ownership.DESTINATION):
        assert next_act(one) not in {Act.ROLL_BACK, Act.SWAP, Act.START_COPY, Act.AWAIT_SWITCHOVER}
    assert Removal.RESUME_SOURCE not in leftovers(Ownership.DESTINATION) + leftovers(Ownership.ELSEWHERE)


def test_a_shard_is_given_back_only_when_its_guest_never_ran_there() -> None:
    for one in every_observation(Ownership.DESTINATION):
        if Act.GIVE_BACK in (next_act(one), out_of_patience(one)):
            assert one.destination is not None
            assert not one.destination.committed


@pytest.mark.parametrize("owner", [Ownership.KEPT, Ownership.ELSEWHERE, Ownership.RELEASED])
def test_a_move_that_has_lost_its_shard_is_let_go(owner: Ownership) -> None:
    assert {next_act(one) for one in every_observation(owner)} == {Act.ROLL_BACK}


def test_a_move_that_is_overdue_is_rolled_back_before_its_commit_point_and_finished_after_it() -> None:
    for owner in (Ownership.SOURCE, Ownership.DESTINATION):
        for one in every_observation(owner):
            late = next_act(one.model_copy(update={"overdue": True}))
            assert late is (Act.ROLL_BACK if owner is Ownership.SOURCE else next_act(one))


def test_patience_ends_in_a_rollback_before_the_commit_point_only() -> None:
    assert out_of_patience(seen(Ownership.SOURCE, Sight.SILENT, WAITING)) is Act.ROLL_BACK
    assert out_of_patience(seen(Ownership.DESTINATION, Sight.SILENT, WAITING)) is Act.LOOK_AGAIN


def test_memory_that_never_arrives_is_not_waited_for_when_its_source_is_dead() -> None:
    for there in (WAITING, GONE):
        assert out_of_patience(seen(Ownership.DESTINATION, Sight.GUEST_GONE, there)) is Act.GIVE_BACK
        assert out_of_patience(seen(Ownership.DESTINATION, Sight.NODE_GONE, there)) is Act.COLD_RESTART
    for there in (ARRIVED, RUNNING, DIED_AFTER_COMMIT, Sight.SILENT):
        for lost in (Sight.GUEST_GONE, Sight.NODE_GONE):
            assert out_of_patience(seen(Ownership.DESTINATION, lost, there)) is Act.LOOK_AGAIN


MOVE = MoveRequest(
    id=MoveId("m"), shard=ShardId("s"), source=NodeId("a"), destination=NodeId("b"), cause=MoveCause.OPERATOR
)


@pytest.mark.parametrize(
    ("owner", "found"),
    [
        (("a", 4), Ownership.SOURCE),
        (("b", 5), Ownership.DESTINATION),
        (("a", 5), Ownership.KEPT),
        (("a", 6), Ownership.KEPT),
        (("b", 7), Ownership.ELSEWHERE),
        (("c", 5), Ownership.ELSEWHERE),
        (None, Ownership.RELEASED),
    ],
)
def test_who_owns_it_seen_from_a_move_that_began_at_epoch_4(owner: tuple[NodeId, int] | None, found: Ownership) -> None:
    assert ownership(MOVE, 4, owner) is found


def test_only_a_shard_that_is_nobodys_is_released() -> None:
    releases = {Removal.RELEASE_SOURCE, Removal.RELEASE_DESTINATION}
    assert set(leftovers(Ownership.RELEASED)) == releases
    assert not any(releases & set(leftovers(owner)) for owner in Ownership if owner is not Ownership.RELEASED)


def test_nothing_is_removed_while_nothing_is_decided() -> None:
    assert leftovers(Ownership.SOURCE) == ()


def test_every_state_has_a_way_to_a_final_one_and_a_step_or_a_sweep_that_takes_it() -> None:
    for phase in LEADS_TO:
        reached, edge = {phase}, [phase]
        while edge:
            for following in LEADS_TO.get(edge.pop(), ()):
                if following not in reached:
                    reached.add(following)
                    edge.append(following)
        assert reached & set(FINAL), phase
        inside_transfer = (MovePhase.PRECOPY, MovePhase.SWITCHING, MovePhase.POSTCOPY)
        assert next_step(phase, frozenset()) is not None or phase in (*UNSETTLED, *inside_transfer)
    assert not set(FINAL) & set(LEADS_TO)
    assert next_step(MovePhase.COMMITTED, frozenset({Step.END})) is None


def test_from_a_commit_there_is_one_way_back_and_it_is_taken_by_giving_back_only() -> None:
    before = {phase for phase, following in LEADS_TO.items() if MovePhase.COMMITTED in following}
    assert before == {MovePhase.SWITCHING, MovePhase.IN_DOUBT}


def test_the_picture_in_the_design_note_is_this_table() -> None:
    note = (Path(__file__).resolve().parents[4] / "docs/design/0009-shards-and-moves.md").read_text()
    drawn = set(re.findall(r"^    (\w+) --> (\w+)", note, re.MULTILINE))
    table = {(before.value, after.value) for before, following in LEADS_TO.items() for after in following}
    assert drawn == table
