import pytest

from engine.migration.base import MoveLimits
from engine.migration.strategies import Advice, Sample, Verb, advise, bandwidth, healthy_for, seconds_stalled, speed

LIMITS = MoveLimits(stall=10, precopy=60, max_downtime_ms=2000, deadline_reserve=5)
MB = 1_000_000


def sample(at: float, remaining_mb: float, mb_per_second: float = 25) -> Sample:
    return Sample(at=at, remaining_bytes=int(remaining_mb * MB), bytes_per_second=mb_per_second * MB)


def ask(*samples: Sample, left: float | None = None, limit_ms: int = 100) -> Advice:
    return advise(samples, seconds_left=left, downtime_limit_ms=limit_ms, limits=LIMITS)


def test_a_move_that_converges_is_left_alone() -> None:
    assert ask(sample(0, 100), sample(1, 60), sample(2, 20)).verb is Verb.KEEP_ON
    assert ask().verb is Verb.KEEP_ON


def test_a_saw_tooth_that_still_finds_new_minima_does_not_stall() -> None:
    teeth = [sample(float(at), 40 + (10 if at % 2 else -at / 10)) for at in range(20)]
    assert seconds_stalled(teeth) <= 1
    assert ask(*teeth).verb is Verb.KEEP_ON


def test_a_stalled_move_may_pause_for_what_is_left() -> None:
    advice = ask(sample(0, 40), sample(11, 40))
    assert advice.verb is Verb.RAISE_DOWNTIME
    assert advice.downtime_limit_ms == 2000  # 40 MB at 25 MB/s x 1.3, capped
    assert ask(sample(0, 10), sample(11, 10)).downtime_limit_ms == 520


def test_a_stalled_move_at_the_limit_waits_until_its_time_is_up() -> None:
    assert ask(sample(0, 40), sample(50, 40), limit_ms=2000).verb is Verb.KEEP_ON
    assert ask(sample(0, 40), sample(61, 40), limit_ms=2000).verb is Verb.GIVE_UP


def test_before_a_deadline_the_guest_is_stopped_in_time() -> None:
    copy = (sample(0, 150), sample(1, 125), sample(2, 100))
    enough, short = 5 + 100 / 25 * 1.5 + 0.1, 5 + 100 / 25 * 1.5 - 0.1
    assert ask(*copy, left=enough).verb is Verb.KEEP_ON
    assert ask(*copy, left=short).verb is Verb.STOP_GUEST


def test_what_was_sent_may_have_been_written_anew() -> None:
    copy = [sample(at, 250 - 25 * at) for at in range(10)]  # one second is left of it, nine it has taken
    assert ask(*copy, left=5 + 10.1).verb is Verb.KEEP_ON
    assert ask(*copy, left=5 + 9.9).verb is Verb.STOP_GUEST
    again = (*copy, sample(10, 50))  # QEMU has looked: that was all
    assert ask(*again, left=5 + 3.1).verb is Verb.KEEP_ON
    assert ask(*again, left=5 + 2.9).verb is Verb.STOP_GUEST


def test_a_copy_that_has_just_begun_says_little_about_its_speed() -> None:
    """The other guest's disk is still mirrored over the same link."""
    slow = [sample(0.5, 114, 3), sample(1.0, 112, 3), sample(1.5, 110, 3), sample(2.0, 109, 3)]
    assert all(ask(*slow[:looks], left=20).verb is Verb.KEEP_ON for looks in range(5))
    later = sample(4.0, 103, 3)
    assert ask(*slow, later, left=5 + 12.1).verb is Verb.KEEP_ON
    assert ask(*slow, later, left=5 + 11.9).verb is Verb.STOP_GUEST, "a quarter of the time has shown nothing else"
    assert ask(*slow[:1], left=5 + 1.9).verb is Verb.STOP_GUEST, "there is no time to find out"


def test_pages_of_zeros_count_as_what_they_cost() -> None:
    """Samples of a guest of 128 MB in an evacuation, over half a link of 25 MB/s: 54 MB of it were sent in the end."""
    guest = [sample(*one) for one in ((0.5, 113.4, 8.9), (1.1, 104.9, 11.3), (1.6, 91.8, 12.3), (2.2, 53.1, 8.8))]
    assert speed(guest) == pytest.approx((113.4 - 53.1) / 1.7 * MB, rel=0.01)
    assert all(ask(*guest[: count + 1], left=20.7 - guest[count].at).verb is Verb.KEEP_ON for count in range(4))
    assert speed([*guest, sample(2.7, 60, 10)]) == bandwidth([*guest, sample(2.7, 60, 10)]), "a new round has begun"


def test_with_a_deadline_a_move_is_never_given_up() -> None:
    assert ask(sample(0, 40), sample(300, 40), left=100, limit_ms=2000).verb is Verb.KEEP_ON


def test_a_stopped_guest_waits_for_a_copy_that_goes_on_only() -> None:
    def stopped(*samples: Sample) -> Verb:
        return advise(samples, seconds_left=-5.0, downtime_limit_ms=100, stopped=True, limits=LIMITS).verb

    assert stopped(sample(0, 100), sample(9, 100)) is Verb.KEEP_ON
    assert stopped(sample(0, 100), sample(9, 90), sample(15, 20)) is Verb.KEEP_ON
    assert stopped(sample(0, 100), sample(10, 100)) is Verb.GIVE_UP


def test_memory_that_does_not_fit_into_the_time_left_is_given_up_once_its_bandwidth_is_known() -> None:
    def stopped(left: float, *samples: Sample) -> Verb:
        return advise(samples, seconds_left=left, downtime_limit_ms=100, stopped=True, limits=LIMITS).verb

    copy = (sample(0, 100), sample(1, 75), sample(2, 50))  # two seconds are left of it
    assert stopped(3, *copy) is Verb.KEEP_ON
    assert stopped(1, *copy) is Verb.GIVE_UP_MEMORY
    assert stopped(1, *copy[:2]) is Verb.KEEP_ON
    assert stopped(-5, *copy, sample(3, 20)) is Verb.KEEP_ON, "less than a second is waited for"


def test_memory_is_given_up_at_the_last_moment_unless_it_is_hopeless() -> None:
    def stopped(left: float, rate: float) -> Verb:
        copy = [sample(at, 100, rate) for at in (0, 1, 2)]
        return advise(copy, seconds_left=left, downtime_limit_ms=100, stopped=True, limits=LIMITS).verb

    assert stopped(20, 4) is Verb.KEEP_ON, "25 seconds, but most of it may be empty"
    assert stopped(4.9, 4) is Verb.GIVE_UP_MEMORY
    assert stopped(20, 1.6) is Verb.GIVE_UP_MEMORY


def test_in_the_last_second_nobody_hopes_for_zeros() -> None:
    def stopped(left: float) -> Verb:
        copy = [sample(0, 110, 12), sample(0.5, 80, 12), sample(1, 50, 12), sample(1.5, 20, 12)]
        return advise(copy, seconds_left=left, downtime_limit_ms=100, stopped=True, limits=LIMITS).verb

    assert stopped(1.1) is Verb.KEEP_ON
    assert stopped(0.9) is Verb.GIVE_UP_MEMORY


def further(*samples: Sample, left: float | None = None, throttle: bool = False, post_copy: bool = True) -> Verb:
    return advise(
        samples, seconds_left=left, downtime_limit_ms=2000, throttle=throttle, post_copy=post_copy, limits=LIMITS
    ).verb


def test_the_guest_is_slowed_down_before_post_copy_is_tried_and_both_only_where_they_may_be() -> None:
    stalled = (sample(0, 40), sample(11, 40))
    assert further(*stalled, throttle=True) is Verb.THROTTLE
    assert further(*stalled) is Verb.POST_COPY
    assert further(*stalled, post_copy=False) is Verb.KEEP_ON
    assert further(sample(0, 40), sample(11, 30)) is Verb.KEEP_ON, "it converges"
    assert ask(*stalled).verb is Verb.RAISE_DOWNTIME, "that comes first"


def test_post_copy_needs_a_source_that_lives_long_enough_and_a_link_that_works() -> None:
    stalled = (sample(0, 1000), sample(11, 1000))  # 40 s of copying
    assert further(*stalled, left=3 * 40 + 1) is Verb.POST_COPY
    assert further(*stalled, left=3 * 40 - 1) is not Verb.POST_COPY
    assert further(sample(0, 40), sample(5, 40, 0.0), sample(11, 40)) is Verb.KEEP_ON, "it stood still six seconds ago"
    assert healthy_for([]) == 0.0


@pytest.mark.parametrize("rates", [[25.0], [0.0, 25.0], [50.0, 0.0]])
def test_a_sample_without_a_rate_does_not_count(rates: list[float]) -> None:
    measured = [rate for rate in rates if rate]
    assert bandwidth([sample(0, 1, rate) for rate in rates]) == measured[0] * MB


def test_until_it_is_measured_bandwidth_is_taken_to_be_low() -> None:
    assert bandwidth([]) == MB


def test_bandwidth_follows_the_newest_samples() -> None:
    falling = bandwidth([sample(0, 1, 100), sample(1, 1, 10), sample(2, 1, 10), sample(3, 1, 10)])
    assert 10 * MB < falling < 50 * MB
