from datetime import UTC, datetime, timedelta

import pytest

from engine.clock import ManualClock
from providers.sandbox.contract import InstanceState
from providers.sandbox.machines import Machine, Machines

START = datetime(2026, 11, 23, 1, 30, tzinfo=UTC)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def machines(clock: ManualClock) -> Machines:
    return Machines(clock, boot=timedelta(seconds=1))


def started(machines: Machines, instance_id: str = "i-1") -> Machine:
    tags = {"shardwright-node": "n1"}
    return machines.start(instance_id, name="n1", zone="z", region="r", instance_type="t", spot=True, tags=tags)


def test_a_machine_boots_runs_and_stops(machines: Machines, clock: ManualClock) -> None:
    machine = started(machines)
    assert (machines.state(machine), machine.node) == (InstanceState.PENDING, "n1")
    clock.advance(timedelta(seconds=1))
    assert machines.state(machine) is InstanceState.RUNNING
    machines.stop("i-1")
    assert machines.state(machine) is InstanceState.TERMINATED
    assert machine.ended_at(clock.now()) == clock.now()


def test_stopping_twice_keeps_the_first_end(machines: Machines, clock: ManualClock) -> None:
    machine = started(machines)
    machines.stop("i-1")
    clock.advance(timedelta(seconds=5))
    machines.stop("i-1")
    assert machine.ended_at(clock.now()) == START


def test_a_reclaim_ends_the_machine_when_its_notice_is_over(machines: Machines, clock: ManualClock) -> None:
    machine = started(machines)
    clock.advance(timedelta(seconds=2))
    machines.reclaim("i-1", timedelta(seconds=30), "preempted")
    machines.reclaim("i-1", timedelta(seconds=3000), "a second notice changes nothing")
    (noticed, reclaim), *rest = machines.noticed()
    assert (noticed, reclaim.seen_at, rest) == (machine, clock.now(), [])
    assert machines.state(machine) is InstanceState.RUNNING
    clock.advance(timedelta(seconds=30))
    assert machines.state(machine) is InstanceState.TERMINATED
    assert machines.live() == []


def test_an_ended_machine_is_shown_for_a_minute(machines: Machines, clock: ManualClock) -> None:
    machine = started(machines)
    machines.stop("i-1")
    clock.advance(timedelta(seconds=59))
    assert machines.shown() == [machine]
    clock.advance(timedelta(seconds=1))
    assert machines.shown() == []
    assert list(machines.all()) == [machine], "the meter still reads it"


def test_what_was_never_started_cannot_be_reclaimed(machines: Machines) -> None:
    with pytest.raises(KeyError):
        machines.reclaim("i-9", timedelta(0))
