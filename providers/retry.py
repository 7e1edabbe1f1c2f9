"""Bounded retries with full jitter, for calls to machines that are not ours.

Full jitter: the wait before attempt n+1 is uniform in [0, min(cap, base * 2**(n-1))], so that many callers that failed
together do not come back together. A Retry-After from the other side is a floor under that wait. Clock and random
source are handed in: no test waits on real time.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from random import Random
from typing import TypeVar

from engine.clock import Clock

T = TypeVar("T")

RetryOn = tuple[type[Exception], ...] | Callable[[Exception], bool]
"""Exception types, or a predicate, that say a failure may pass."""


def call_with_retries(
    fn: Callable[[], T],
    *,
    attempts: int = 4,
    clock: Clock,
    rng: Random,
    retry_on: RetryOn,
    base_seconds: float = 0.2,
    cap_seconds: float = 5.0,
    budget_seconds: float | None = None,
    retry_after: Callable[[Exception], float | None] | None = None,
) -> T:
    """Call ``fn`` up to ``attempts`` times (>= 1); the last failure is raised as it came.

    ``retry_after`` reads the seconds the other side asked to be left alone out of a failure (see
    ``retry_after_seconds``); where it asks for more than ``cap_seconds`` the failure is raised at once, since waiting
    less would break its wish. ``budget_seconds`` bounds the whole: no wait is begun that would end beyond it.
    """
    if attempts < 1:
        raise ValueError(f"attempts must be at least 1, not {attempts}")
    started = clock.now()
    for attempt in range(1, attempts + 1):
        try:
            return fn()
        except Exception as failure:
            if attempt == attempts or not _may_pass(failure, retry_on):
                raise
            wait = _wait_seconds(attempt, rng, base_seconds, cap_seconds)
            asked = retry_after(failure) if retry_after else None
            if asked is not None:
                if asked > cap_seconds:
                    raise
                wait = max(wait, asked)
            spent = (clock.now() - started).total_seconds()
            if budget_seconds is not None and spent + wait > budget_seconds:
                raise
            clock.sleep(wait)
    raise AssertionError("unreachable: the last attempt returns or raises")


def retry_after_seconds(headers: Mapping[str, str], now: datetime) -> float | None:
    """Retry-After in seconds (RFC 9110: delta-seconds or an HTTP date); None where absent or unreadable."""
    text = next((value for name, value in headers.items() if name.lower() == "retry-after"), "").strip()
    if not text:
        return None
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return max(0.0, (at - now).total_seconds())


def _may_pass(failure: Exception, retry_on: RetryOn) -> bool:
    if isinstance(retry_on, tuple):
        return isinstance(failure, retry_on)
    return retry_on(failure)


def _wait_seconds(attempt: int, rng: Random, base_seconds: float, cap_seconds: float) -> float:
    return rng.uniform(0.0, min(cap_seconds, base_seconds * 2.0 ** (attempt - 1)))
