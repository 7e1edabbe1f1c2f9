import numpy as np
import pandas as pd
import pytest

from forecasting.usage_times import moments

ONE = 1_767_571_200_000_000
"""2026-01-05T00:00:00Z"""


@pytest.mark.parametrize(
    ("text", "naive", "offset", "hours"),
    [
        ("2026-01-05T00:00:00Z", False, 0, 0),
        ("2026-01-05", True, 0, 0),
        ("2026-01-05 00:00", True, 0, 0),
        ("2026-01-05T00:00:00.000000+00:00", False, 0, 0),
        ("2026-01-05T05:30:00+0530", False, 330, 0),
        ("2026-01-04T19-05", False, -300, 0),
        (" 2026-01-05T02:00:00Z ", False, 0, 2),
    ],
)
def test_a_zone_is_told_from_a_date(text: str, naive: bool, offset: int, hours: int) -> None:
    found = moments(pd.Series([text]), "f")
    assert (bool(found.naive[0]), int(found.offset[0])) == (naive, offset)
    assert int(found.micros[0]) == ONE + hours * 3_600_000_000
    assert not found.absent[0]


def test_a_typed_column_in_a_zone_with_daylight_saving() -> None:
    times = pd.Series(pd.date_range("2026-03-28", periods=3, freq="D", tz="Europe/Berlin"))
    found = moments(times, "f")
    assert found.offset.tolist() == [60, 60, 120]
    assert np.diff(found.micros).tolist() == [86_400_000_000, 82_800_000_000]
    assert not found.naive.any()


def test_a_typed_column_without_a_zone_is_naive_where_it_holds_something() -> None:
    found = moments(pd.Series(pd.to_datetime(["2026-01-05", None])), "f")
    assert found.naive.tolist() == [True, False]
    assert found.absent.tolist() == [False, True]
