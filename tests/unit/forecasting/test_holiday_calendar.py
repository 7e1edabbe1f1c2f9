from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from engine.errors import UsageError
from forecasting.holiday_calendar import holidays_of, write_events

YEAR = (date(2026, 1, 1), date(2026, 12, 31))


def days(region: str, first: date, last: date, zone: str = "UTC") -> list[date]:
    return [holiday.start.date() for holiday in holidays_of(region, zone, first, last)]


def test_a_day_begins_at_its_own_midnight() -> None:
    found = holidays_of("DE", "Europe/Berlin", date(2026, 12, 24), date(2026, 12, 31))
    assert [holiday.start for holiday in found] == [
        datetime(2026, 12, 24, 23, tzinfo=UTC),
        datetime(2026, 12, 25, 23, tzinfo=UTC),
    ]
    assert all(holiday.end - holiday.start == timedelta(days=1) for holiday in found)
    assert found[0].name == "Christmas Day"


def test_a_holiday_on_which_the_clocks_change_has_its_own_length() -> None:
    """Easter Sunday is a holiday in Brandenburg; in 2024 the clocks went forward on it."""
    (easter,) = holidays_of("DE-BB", "Europe/Berlin", date(2024, 3, 31), date(2024, 3, 31))
    assert easter.end - easter.start == timedelta(hours=23)


def test_parts_of_a_country_have_their_own() -> None:
    epiphany = date(2026, 1, 6)
    assert epiphany in days("DE-BY", *YEAR)
    assert epiphany not in days("DE-BE", *YEAR)


def test_both_ends_of_the_span_count_and_years_may_change_in_it() -> None:
    assert days("DE", date(2025, 12, 26), date(2026, 1, 1)) == [date(2025, 12, 26), date(2026, 1, 1)]


def test_the_events_file(tmp_path: Path) -> None:
    write_events(tmp_path / "e.csv", holidays_of("DE", "Europe/Berlin", date(2026, 5, 1), date(2026, 5, 1)))
    text = "kind,start,end,name\nholiday,2026-04-30T22:00:00Z,2026-05-01T22:00:00Z,Labor Day\n"
    assert (tmp_path / "e.csv").read_text() == text
    with pytest.raises(UsageError, match="cannot be written"):
        write_events(tmp_path / "none" / "e.csv", ())


@pytest.mark.parametrize(
    ("region", "zone", "says"),
    [
        ("de", "UTC", "did you mean 'DE'"),
        ("ZZZ", "UTC", "no holidays are known of the country 'ZZZ'"),
        ("DE-XX", "UTC", "part of DE 'XX'"),
        ("DE", "Europe/Nowhere", "no time zone 'Europe/Nowhere'"),
        ("DE", "../etc", "no time zone"),
    ],
)
def test_what_is_not_known_is_refused(region: str, zone: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        holidays_of(region, zone, *YEAR)
    assert caught.value.next_step


@pytest.mark.parametrize("last", [date(2025, 12, 31), date(2300, 1, 1)])
def test_a_span_without_sense_is_refused(last: date) -> None:
    with pytest.raises(UsageError, match="no calendar"):
        holidays_of("DE", "UTC", YEAR[0], last)
