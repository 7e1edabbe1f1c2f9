from itertools import product

import pytest

from agent.wire import DestinationStatus, SourceStatus
from engine.migration.decisions import Act, Observation, Ownership, Sight, next_act, out_of_patience

MIGRATIONS = ("none", "setup", "active", "pre-switchover", "device", "completed", "failed", "cancelled")


def source(migration: str, *, mirror: bool = False, running: bool = True) -> SourceStatus:
    return SourceStatus(running=running, mirror_ready=mirror, mirror_present=mirror, migration=migration)


WAITING = DestinationStatus(present=True, migration="active")
ARRIVED = DestinationStatus(present=True, arrived=True, migration="completed")
RUNNING = DestinationStatus(present=True, arrived=True, committed=True, running=True)
TOLD_BUT_PAUSED = DestinationStatus(present=True, arrived=True, committed=True)
DIED_AFTER_COMMIT = DestinationStatus(present=False, committed=True)
GONE = DestinationStatus(present=False)


def seen(owner: Ownership, at_source: SourceStatus | Sight, at_destination: DestinationStatus | Sight) -> Observation:
    here = at_source if isinstance(at_source, SourceStatus) else None
    there = at_destination if isinstance(at_destination, DestinationStatus) else None
    there_sight = (Sight.ANSWERS if there.present else Sight.GUEST_GONE) if there is not None else Sight.SILENT
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
        (source("completed", mirror=True), WAITING, Act.START_COPY),
        (source("none"), WAITING, Act.ROLL_BACK),
        (source("active", mirror=True), WAITING, Act.AWAIT_SWITCHOVER),
        (source("pre-switchover", mirror=True, running=False), WAITING, Act.AWAIT_SWITCHOVER),
        (source("pre-switchover", running=False), WAITING, Act.SWAP),
        (source("failed"), WAITING, Act.ROLL_BACK),
        (source("active", mirror=True), GONE, Act.ROLL_BACK),
        (Sight.GUEST_GONE, WAITING, Act.ROLL_BACK),
        (Sight.SILENT, WAITING, Act.LOOK_AGAIN),
        (source("active", mirror=True), Sight.SILENT, Act.LOOK_AGAIN),
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
        (Sight.GUEST_GONE, ARRIVED, Act.COMMIT),
        (source("completed", running=False), RUNNING, Act.DONE),
        (source("completed", running=False), DIED_AFTER_COMMIT, Act.DONE),
        (source("completed", running=False), GONE, Act.GIVE_BACK),
        (source("failed"), WAITING, Act.GIVE_BACK),
        (Sight.SILENT, GONE, Act.LOOK_AGAIN),
        (Sight.GUEST_GONE, WAITING, Act.LOOK_AGAIN),
        (source("failed"), Sight.SILENT, Act.LOOK_AGAIN),
    ],
)
def test_after_the_commit_point(
    at_source: SourceStatus | Sight, at_destination: DestinationStatus | Sight, act: Act
) -> None:
    assert next_act(seen(Ownership.DESTINATION, at_source, at_destination)) is act


def every_observation(owner: Ownership) -> list[Observation]:
    sources: list[SourceStatus | Sight] = [Sight.SILENT, Sight.GUEST_GONE]
    sources += [source(word, mirror=mirror) for word, mirror in product(MIGRATIONS, (True, False))]
    destinations: list[DestinationStatus | Sight] = [Sight.SILENT, WAITING, ARRIVED, RUNNING, TOLD_BUT_PAUSED]
    destinations += [DIED_AFTER_COMMIT, GONE]
    return [seen(owner, here, there) for here, there in product(sources, destinations)]


def test_nothing_runs_on_the_destination_before_the_store_says_so() -> None:
    acts = {next_act(one) for one in every_observation(Ownership.SOURCE)}
    assert not acts & {Act.PROCEED, Act.COMMIT, Act.DONE, Act.GIVE_BACK, Act.RESUME}


def test_the_source_is_never_told_to_run_after_the_commit_point() -> None:
    acts = {next_act(one) for one in every_observation(Ownership.DESTINATION)}
    assert not acts & {Act.ROLL_BACK, Act.RESUME, Act.SWAP, Act.START_COPY, Act.AWAIT_SWITCHOVER}


def test_a_shard_is_given_back_only_when_its_guest_never_ran_there() -> None:
    for one in every_observation(Ownership.DESTINATION):
        if next_act(one) is Act.GIVE_BACK:
            assert one.destination is not None
            assert not one.destination.committed


def test_a_shard_that_was_given_back_runs_on_the_source() -> None:
    assert next_act(seen(Ownership.GIVEN_BACK, source("completed", running=False), GONE)) is Act.RESUME
    assert next_act(seen(Ownership.GIVEN_BACK, Sight.SILENT, GONE)) is Act.LOOK_AGAIN


def test_a_shard_that_someone_else_has_taken_is_let_go() -> None:
    assert {next_act(one) for one in every_observation(Ownership.ELSEWHERE)} == {Act.ROLL_BACK}


def test_patience_ends_in_a_rollback_before_the_commit_point_only() -> None:
    assert out_of_patience(seen(Ownership.SOURCE, Sight.SILENT, WAITING)) is Act.ROLL_BACK
    assert out_of_patience(seen(Ownership.DESTINATION, Sight.SILENT, WAITING)) is Act.LOOK_AGAIN
