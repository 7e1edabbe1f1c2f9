from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from engine.clock import ManualClock
from providers.retry import call_with_retries, retry_after_seconds

START = datetime(2026, 1, 1, tzinfo=UTC)


class Flaky:
    """Fails a number of times, then answers."""

    def __init__(self, failures: int, error: Exception | None = None) -> None:
        self.left, self.calls, self.error = failures, 0, error or TimeoutError("slow")

    def __call__(self) -> str:
        self.calls += 1
        if self.left:
            self.left -= 1
            raise self.error
        return "answer"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


def test_answers_after_failures_that_pass(clock: ManualClock) -> None:
    fn = Flaky(2)
    assert call_with_retries(fn, attempts=3, clock=clock, rng=Random(1), retry_on=(TimeoutError,)) == "answer"
    assert fn.calls == 3
    assert timedelta(0) < clock.now() - START <= timedelta(seconds=0.2 + 0.4)


def test_raises_the_last_failure_when_attempts_are_used_up(clock: ManualClock) -> None:
    fn = Flaky(9)
    with pytest.raises(TimeoutError, match="slow"):
        call_with_retries(fn, attempts=3, clock=clock, rng=Random(1), retry_on=(TimeoutError,))
    assert fn.calls == 3


def test_does_not_repeat_what_cannot_pass(clock: ManualClock) -> None:
    fn = Flaky(1, ValueError("wrong"))
    with pytest.raises(ValueError, match="wrong"):
        call_with_retries(fn, clock=clock, rng=Random(1), retry_on=lambda e: isinstance(e, TimeoutError))
    assert fn.calls == 1
    assert clock.now() == START


def test_waits_at_least_as_long_as_it_was_asked_to(clock: ManualClock) -> None:
    call_with_retries(Flaky(1), clock=clock, rng=Random(1), retry_on=(TimeoutError,), retry_after=lambda _: 3.0)
    assert clock.now() - START >= timedelta(seconds=3)


def test_gives_up_when_asked_to_stay_away_longer_than_the_cap(clock: ManualClock) -> None:
    fn = Flaky(1)
    with pytest.raises(TimeoutError):
        call_with_retries(fn, clock=clock, rng=Random(1), retry_on=(TimeoutError,), retry_after=lambda _: 60.0)
    assert fn.calls == 1


def test_budget_bounds_the_whole(clock: ManualClock) -> None:
    def slow() -> str:
        clock.advance(timedelta(seconds=2))
        raise TimeoutError

    with pytest.raises(TimeoutError):
        call_with_retries(slow, attempts=9, clock=clock, rng=Random(1), retry_on=(TimeoutError,), budget_seconds=5)
    assert clock.now() - START <= timedelta(seconds=7)


def test_refuses_zero_attempts(clock: ManualClock) -> None:
    with pytest.raises(ValueError, match="attempts"):
        call_with_retries(lambda: 1, attempts=0, clock=clock, rng=Random(1), retry_on=(TimeoutError,))


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after": " 0 "}, 0.0),
        ({"Retry-After": "Thu, 01 Jan 2026 00:00:30 GMT"}, 30.0),
        ({"Retry-After": "Wed, 31 Dec 2025 00:00:00 GMT"}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({}, None),
    ],
)
def test_reads_retry_after(header: dict[str, str], seconds: float | None) -> None:
    assert retry_after_seconds(header, START) == seconds
