"""A policy under a stop watch answers as it does without one."""

from lab.host import play
from lab.policies.registry import policy_of
from lab.timed_policy import TimedPolicy
from tests.unit.lab.generated import generated


def test_it_changes_no_answer_and_times_each() -> None:
    case = generated()
    timed = TimedPolicy(policy_of("greedy-spot"))
    assert play(case, timed, name="greedy-spot") == play(case, policy_of("greedy-spot"), name="greedy-spot")
    assert len(timed.answer_seconds) == case.steps
    assert timed.init_seconds > 0
    assert min(timed.answer_seconds) > 0
