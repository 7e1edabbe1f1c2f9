from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from engine.errors import UsageError
from forecasting.holiday_calendar import holiday_shares

HOUR = timedelta(hours=1)


def test_a_day_begins_at_its_own_midnight() -> None:
    shares = holiday_shares("DE", "Europe/Berlin", datetime(2026, 12, 24, tzinfo=UTC), HOUR, 96)
    assert np.flatnonzero(shares == 1).tolist() == list(range(23, 71))  # 25 and 26 December
    assert not shares[:23].any()
    assert not shares[71:].any()


def test_a_step_over_midnight_counts_in_part() -> None:
    shares = holiday_shares("DE", "Europe/Berlin", datetime(2026, 12, 24, tzinfo=UTC), timedelta(days=1), 4)
    assert np.round(shares * 24).tolist() == [1, 24, 23, 0]


def test_a_holiday_on_which_the_clocks_change_has_its_own_length() -> None:
    """Easter Sunday is a holiday in Brandenburg; in 2024 the clocks went forward on it."""
    shares = holiday_shares("DE-BB", "Europe/Berlin", datetime(2024, 3, 30, tzinfo=UTC), HOUR, 46)
    assert shares.sum() == 23


def test_parts_of_a_country_have_their_own() -> None:
    epiphany = datetime(2026, 1, 6, tzinfo=UTC)
    assert holiday_shares("DE-BY", "UTC", epiphany, HOUR, 24).all()
    assert not holiday_shares("DE-BE", "UTC", epiphany, HOUR, 24).any()


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
        holiday_shares(region, zone, datetime(2026, 1, 1, tzinfo=UTC), HOUR, 3)
    assert caught.value.next_step
