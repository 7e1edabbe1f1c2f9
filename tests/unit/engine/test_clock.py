from datetime import timedelta

from engine.clock import ManualClock, wait_until


def test_waiting_ends_when_it_is_ready(clock: ManualClock) -> None:
    start = clock.now()
    assert wait_until(lambda: clock.now() - start >= timedelta(seconds=3), clock, timeout_seconds=10, every_seconds=1)
    assert clock.now() - start == timedelta(seconds=3)


def test_waiting_ends_when_the_time_is_up(clock: ManualClock) -> None:
    start = clock.now()
    assert not wait_until(lambda: False, clock, timeout_seconds=2, every_seconds=0.5)
    assert clock.now() - start >= timedelta(seconds=2)
