"""The fallback ladder of a pre-copy that does not converge. Pure: samples in, one piece of advice out.

1. pre-copy with QEMU's downtime limit at 100 ms
2. stalled: the limit is raised to what the rest would take, up to the policy's maximum
3. auto-converge, where it is allowed: the guest is slowed down (KVM only: under emulation it helps nobody)
4. post-copy, where it is allowed: without a deadline, or with far more time than the copy takes, over a healthy link
5. the deadline comes so near that a copy of the stopped guest would only just be in time: stop it and copy the rest
6. not even that fits: the memory is given up, and the shard boots on the destination from its disk
7. nothing helps: give up, and the guest runs on. Without a deadline after the time that pre-copy may take, else when
   even the copy of the stopped guest stands still
"""

from collections.abc import Sequence
from enum import StrEnum

from engine.migration.base import MoveLimits
from engine.model.value import Value

_EWMA_WEIGHT = 0.3
_RAISE_FACTOR = 1.3
_STOP_FACTOR = 1.5
_POST_COPY_FACTOR = 3.0
"""So many times what the rest takes must be left to a deadline: the source must live until all is there."""
_MEASURED = 3
"""Looks at a copy before its speed is believed in: it begins slowly, and while other disks are still mirrored."""
_KNOWN_AFTER = 1 / 3
"""Of the time to a deadline: as long must have been looked. What is sent meanwhile is all that is lost by waiting."""
_UNSURE_SECONDS = 2.0
"""With less there is no time to find out."""
_FALL_SECONDS = 1.5
"""Over so long it is looked how fast the rest becomes less. Zeros lie together, so it must not be long."""
_HOPELESS_FACTOR = 3.0
"""A copy that seems to need so many times what is left is given up at once. Another one is at the last moment: most of
what remains may be empty, and others may leave the link."""
_LAST_SECOND = 1.0
"""A copy that needs no longer is waited for, deadline or not."""
_FLOOR_BYTES_PER_SECOND = 1e6
"""Until bandwidth has been measured, assume little."""


class Sample(Value):
    """One look at a running pre-copy; ``at`` in seconds since it began."""

    at: float
    remaining_bytes: int
    bytes_per_second: float


class Verb(StrEnum):
    KEEP_ON = "keep_on"
    RAISE_DOWNTIME = "raise_downtime"
    THROTTLE = "throttle"
    POST_COPY = "post_copy"
    STOP_GUEST = "stop_guest"
    GIVE_UP_MEMORY = "give_up_memory"
    GIVE_UP = "give_up"


class Advice(Value):
    verb: Verb
    downtime_limit_ms: int | None = None
    reason: str = ""


KEEP_ON = Advice(verb=Verb.KEEP_ON)


def bandwidth(samples: Sequence[Sample]) -> float:
    """Bytes per second, exponentially weighted towards the newest sample."""
    estimate = 0.0
    for sample in samples:
        if sample.bytes_per_second > 0:
            newest = sample.bytes_per_second
            estimate = newest if estimate == 0 else estimate + _EWMA_WEIGHT * (newest - estimate)
    return max(estimate, _FLOOR_BYTES_PER_SECOND)


def this_round(samples: Sequence[Sample]) -> Sequence[Sample]:
    """Those since the rest has last become more: QEMU had looked what the guest wrote, and began to send that."""
    rest = [sample.remaining_bytes for sample in samples]
    return samples[next((at for at in range(len(rest) - 1, 0, -1) if rest[at] > rest[at - 1]), 0) :]


def speed(samples: Sequence[Sample]) -> float:
    """Bytes per second by which the rest becomes less: those of the link, or more where pages of zeros are among them.

    QEMU counts a page of zeros as a whole one that remains, and sends nine bytes for it.
    """
    now, round_ = samples[-1], this_round(samples)
    before = next((one for one in reversed(round_) if now.at - one.at >= _FALL_SECONDS), round_[0])
    fell = before.remaining_bytes - now.remaining_bytes
    return max(bandwidth(samples), fell / (now.at - before.at) if now.at > before.at else 0.0)


def must_stop(samples: Sequence[Sample], seconds_left: float) -> bool:
    """Whether the guest must stand still now for its copy to be done in ``seconds_left``, with some to spare.

    The rest is to be sent, and what this round has sent may have been written anew: that takes as long as it took.
    Until then the guest may as well run, since a copy is no faster for its standing still.
    """
    now, round_ = samples[-1], this_round(samples)
    rest = now.remaining_bytes / speed(samples)
    lasted = now.at - (round_[0].at if len(round_) < len(samples) else 0.0)
    needed = rest + max(lasted, rest * (_STOP_FACTOR - 1))
    known = len(samples) >= _MEASURED and now.at >= seconds_left * _KNOWN_AFTER
    return seconds_left <= (needed if known else min(needed, _UNSURE_SECONDS))


def seconds_stalled(samples: Sequence[Sample]) -> float:
    """Since the last new minimum of remaining bytes (a saw tooth: only minima tell)."""
    if not samples:
        return 0.0
    lowest = min(samples, key=lambda sample: (sample.remaining_bytes, sample.at))
    return samples[-1].at - lowest.at


def healthy_for(samples: Sequence[Sample]) -> float:
    """Seconds, until now, in which every look found that something was sent."""
    if not samples:
        return 0.0
    idle = [sample.at for sample in samples if sample.bytes_per_second <= 0]
    return samples[-1].at - max(idle, default=samples[0].at)


def advise(
    samples: Sequence[Sample],
    *,
    seconds_left: float | None,
    downtime_limit_ms: int,
    stopped: bool = False,
    throttle: bool = False,
    post_copy: bool = False,
    limits: MoveLimits,
) -> Advice:
    """What to do now. ``seconds_left`` until the source is gone, None for a voluntary move.

    ``stopped``: the guest waits already, and all samples are from after that. ``throttle`` and ``post_copy``: may still
    be tried, by policy and by what both ends can do.
    """
    if not samples:
        return KEEP_ON
    now = samples[-1]
    # In the last second nothing is hoped for any more: what remains is taken to be full.
    hopes = seconds_left is None or seconds_left > _LAST_SECOND
    rest = now.remaining_bytes / (speed(samples) if hopes else bandwidth(samples))
    stalled = seconds_stalled(samples) >= limits.stall
    if stopped:
        if seconds_left is not None and len(samples) >= _MEASURED and rest > max(seconds_left, _LAST_SECOND):
            late = seconds_left <= limits.deadline_reserve or rest > seconds_left * _HOPELESS_FACTOR
            reason = f"{rest:.1f} s of copying left, {seconds_left:.1f} s to go"
            return Advice(verb=Verb.GIVE_UP_MEMORY, reason=reason) if late else KEEP_ON
        # What stands still dirties nothing: without a new minimum the link is dead, and the guest waits for nothing.
        return Advice(verb=Verb.GIVE_UP, reason="the copy of a stopped guest stands still") if stalled else KEEP_ON
    if seconds_left is not None and must_stop(samples, seconds_left - limits.deadline_reserve):
        return Advice(
            verb=Verb.STOP_GUEST, reason=f"{rest:.1f} s of copying left, {seconds_left:.1f} s to the deadline"
        )
    if stalled and downtime_limit_ms < limits.max_downtime_ms:
        wanted = min(limits.max_downtime_ms, max(downtime_limit_ms * 2, int(rest * 1000 * _RAISE_FACTOR)))
        return Advice(verb=Verb.RAISE_DOWNTIME, downtime_limit_ms=wanted, reason="no new minimum of remaining bytes")
    if stalled and throttle:
        return Advice(verb=Verb.THROTTLE, reason="the longest downtime that is allowed does not help")
    enough = seconds_left is None or seconds_left > rest * _POST_COPY_FACTOR
    if stalled and post_copy and enough and healthy_for(samples) >= limits.healthy:
        return Advice(verb=Verb.POST_COPY, reason=f"{rest:.1f} s of copying left, and it does not become less")
    if seconds_left is None and now.at > limits.precopy:
        return Advice(verb=Verb.GIVE_UP, reason=f"not converged within {limits.precopy:g} s")
    return KEEP_ON
