"""The move's own code in a world where any call may fail, in any order: two laws, and it always ends."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import ShardwrightError
from engine.migration import workflow
from engine.migration.base import MoveContext
from engine.model.move import MovePhase, MoveReport
from tests.move_world import DESTINATION, SOURCE, ControllerDied, Fault, World, request

_STEPS = ("_begin", "_reserve", "_prepare", "_mirror", "_transfer", "_end", "_now")
LONGEST = timedelta(minutes=10)


@contextmanager
def recorded_steps() -> Iterator[None]:
    """What DBOS does: a step that has ended, well or with an error, is not run again when its workflow resumes."""
    memory: dict[str, tuple[bool, Any]] = {}
    originals = {name: getattr(workflow, name) for name in _STEPS}

    def recording(name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            if name not in memory:
                try:
                    memory[name] = (True, step(*arguments))
                except ShardwrightError as problem:
                    memory[name] = (False, problem)
            well, outcome = memory[name]
            if not well:
                raise outcome
            return outcome

        return run

    for name, step in originals.items():
        setattr(workflow, name, recording(name, step.__wrapped__))
    try:
        yield
    finally:
        for name, step in originals.items():
            setattr(workflow, name, step)


def run_move(world: World) -> MoveReport:
    """As a control plane that is started again whenever it dies."""

    def observe(_move: object, phase: MovePhase) -> None:
        world.phases.append(phase)

    workflow.configure(MoveContext(agents=world.agents, shards=world, clock=world.clock, observer=observe))
    with recorded_steps():
        for _ in range(100):
            try:
                return MoveReport.model_validate_json(workflow.move_shard.__wrapped__(request().model_dump_json()))
            except ControllerDied:
                continue
    raise AssertionError("it died a hundred times")


def check(world: World, report: MoveReport) -> None:
    world.live()
    assert report.finished_at - report.started_at < LONGEST
    landing = world.destination
    if report.phase is MovePhase.CLEANED:
        assert (world.owner, world.epoch) == (DESTINATION, 2)
        assert landing is not None
        assert landing.committed
        assert not world.source.running
    if report.phase is MovePhase.ABORTED:
        assert world.owner == SOURCE
        assert landing is None or not landing.running
        lost_messages = {Fault.REQUEST_LOST, Fault.ANSWER_LOST} & set(world.faults.values())
        told = bool(report.error) and bool(lost_messages)
        assert world.source.running or not world.source.alive or told


@given(
    faults=st.dictionaries(st.integers(0, 40), st.sampled_from(list(Fault)), max_size=5),
    rounds=st.integers(0, 4),
    arrival=st.integers(0, 9),
)
@settings(max_examples=400, deadline=None)
def test_never_two_copies_never_a_lost_write_and_always_an_end(
    faults: dict[int, Fault], rounds: int, arrival: int
) -> None:
    world = World(faults=faults, rounds_to_converge=rounds, calls_until_arrival=arrival)
    check(world, run_move(world))


@given(at=st.integers(0, 30), fault=st.sampled_from([Fault.CRASH_BEFORE, Fault.CRASH_AFTER]))
@settings(max_examples=120, deadline=None)
def test_a_crash_of_the_controller_alone_never_fails_a_move(at: int, fault: Fault) -> None:
    world = World(faults={at: fault})
    report = run_move(world)
    assert (report.phase, report.error) == (MovePhase.CLEANED, "")
    check(world, report)


@given(at=st.integers(0, 30), fault=st.sampled_from([Fault.REQUEST_LOST, Fault.ANSWER_LOST]))
@settings(max_examples=120, deadline=None)
def test_one_lost_message_never_leaves_a_shard_in_doubt(at: int, fault: Fault) -> None:
    world = World(faults={at: fault})
    report = run_move(world)
    assert report.phase in (MovePhase.CLEANED, MovePhase.ABORTED, MovePhase.COMMITTED)
    check(world, report)


def test_every_single_fault_at_every_call() -> None:
    for fault in Fault:
        for at in range(30):
            world = World(faults={at: fault})
            check(world, run_move(world))


def test_two_thousand_seeds() -> None:
    for seed in range(2000):
        dice = random.Random(seed)
        faults = {dice.randrange(40): dice.choice(list(Fault)) for _ in range(dice.randrange(6))}
        world = World(
            faults=faults, rounds_to_converge=dice.randrange(5), calls_until_arrival=dice.choice([0, 0, 2, 7])
        )
        try:
            check(world, run_move(world))
        except AssertionError as broken:
            raise AssertionError(f"seed {seed}, faults {faults}") from broken


def test_a_destination_that_is_slow_to_take_the_memory_in_is_waited_for() -> None:
    for calls in range(12):
        world = World(calls_until_arrival=calls)
        report = run_move(world)
        assert (report.phase, report.error) == (MovePhase.CLEANED, "")
        check(world, report)


def test_memory_that_the_migration_loses_is_found_and_brought_after() -> None:
    for at in range(40):
        for fault in (None, Fault.CRASH_BEFORE, Fault.CRASH_AFTER, Fault.REQUEST_LOST, Fault.ANSWER_LOST):
            world = World(lost_writes=1, faults={at: fault} if fault else {})
            report = run_move(world)
            assert fault or report.phase is MovePhase.CLEANED
            check(world, report)


def test_without_faults_the_phases_come_in_order() -> None:
    world = World()
    report = run_move(world)
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
