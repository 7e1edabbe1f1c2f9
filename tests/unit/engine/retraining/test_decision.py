from datetime import timedelta

import pytest

from engine.retraining.base import Cause, Retraining
from engine.retraining.decision import FEWEST_VALUES, Known, RetrainingTerms, decide
from tests.retraining_cases import DAY, NOW, record

TERMS = RetrainingTerms(every=7 * DAY, min_new=DAY, drift=1.0)


def known(last: Retraining | None = None, **changed: object) -> Known:
    plain = Known(fingerprint="new", values=3000, measured_end=NOW, synthetic=False, last=last)
    return plain.model_copy(update=changed)


def test_usage_that_was_never_trained_on_is() -> None:
    verdict = decide(known(), TERMS, NOW)
    assert verdict.cause is Cause.FIRST
    assert "3000 values" in verdict.why


def test_the_schedule_counts_from_the_last_training() -> None:
    assert decide(known(record(age=7 * DAY)), TERMS, NOW).cause is Cause.SCHEDULE
    verdict = decide(known(record(age=6 * DAY)), TERMS, NOW)
    assert verdict.cause is None
    assert verdict.why == "the last training is 6 days ago (every 7 days)"


def test_one_that_was_not_promoted_counts_as_a_training_too() -> None:
    assert decide(known(record(age=2 * DAY, promoted=False)), TERMS, NOW).cause is None


def test_drift_does_not_wait_for_the_schedule() -> None:
    verdict = decide(known(record(age=2 * DAY), drift=1.01), TERMS, NOW)
    assert verdict.cause is Cause.DRIFT
    assert "1.01 times what seasonal naive does" in verdict.why
    assert decide(known(record(age=2 * DAY), drift=1.0), TERMS, NOW).cause is None
    strict = TERMS.model_copy(update={"drift": 0.8})
    assert decide(known(record(age=2 * DAY), drift=0.9), strict, NOW).cause is Cause.DRIFT


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"synthetic": True}, "made up"),
        ({"values": FEWEST_VALUES - 1}, "at least 500"),
        ({"last": record(age=timedelta(hours=23)), "drift": 2.0}, "0.958 days of new usage"),
        ({"last": record(age=-2 * DAY), "drift": 2.0}, "0 days of new usage"),
    ],
)
def test_what_cannot_be_worth_it_is_not_tried_but_on_demand(changed: dict[str, object], says: str) -> None:
    verdict = decide(known(**changed), TERMS, NOW)
    assert verdict.cause is None
    assert says in verdict.why
    assert decide(known(**changed), TERMS, NOW, asked=True).cause is Cause.ASKED


def test_the_same_usage_is_never_trained_on_twice() -> None:
    same = known(record(version=4, fingerprint="new", age=30 * DAY), drift=3.0)
    for asked in (False, True):
        verdict = decide(same, TERMS, NOW, asked=asked)
        assert verdict.cause is None
        assert verdict.why == "retraining 4 was made from exactly this usage"
