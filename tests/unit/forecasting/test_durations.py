from datetime import timedelta

import pytest

from engine.errors import UsageError
from forecasting.durations import in_words, parse_duration, roughly


@pytest.mark.parametrize(
    ("text", "minutes"), [("5min", 5), ("5m", 5), ("1h", 60), ("h", 60), ("1.5h", 90), ("2d", 2880), (" 1H ", 60)]
)
def test_durations(text: str, minutes: float) -> None:
    assert parse_duration(text) == timedelta(minutes=minutes)


@pytest.mark.parametrize("text", ["", "1", "0h", "-1h", "1 fortnight", "1h30"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a duration"):
        parse_duration(text)


def test_in_words() -> None:
    spans = [timedelta(hours=1), timedelta(hours=3), timedelta(minutes=30), timedelta(days=1), timedelta(seconds=90)]
    assert [in_words(span) for span in spans] == ["hour", "3 hours", "30 minutes", "day", "90 seconds"]


@pytest.mark.parametrize(
    ("seconds", "says"),
    [
        (0, "0 seconds"),
        (59, "59 seconds"),
        (60, "1 minute"),
        (5400, "1.5 hours"),
        (11 * 3600, "11 hours"),
        (9e5, "10 days"),
    ],
)
def test_an_age_in_about_two_digits(seconds: float, says: str) -> None:
    assert roughly(timedelta(seconds=seconds)) == says
