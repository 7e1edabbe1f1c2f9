from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest

from engine.errors import BadUsageData
from forecasting.usage_repairs import mended

NOW = datetime(2026, 1, 5, 2, 30, tzinfo=UTC)


def table(*rows: tuple[str, str, float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["series_id", "timestamp", "value"])


def hours(name: str, *values: float) -> list[tuple[str, str, float]]:
    return [(name, f"2026-01-05T{hour:02}:00:00Z", value) for hour, value in enumerate(values)]


def test_a_repair_names_the_row_where_it_is_first_met() -> None:
    _, repairs = mended(table(*hours("a", 1, 2), *hours("b", 1, -2, -3)), "f", now=None)
    (repair,) = repairs
    assert (repair.series_id, repair.defect, repair.count, repair.first_row) == ("b", "negative", 2, 4)


def test_each_series_has_its_own_first_row() -> None:
    rows = [row for pair in zip(hours("b", 1, -2, -3), hours("a", -4, 5, -6), strict=True) for row in pair]
    _, repairs = mended(table(*rows), "f", now=None)
    assert [(r.series_id, r.count, r.first_row) for r in repairs] == [("b", 2, 3), ("a", 2, 2)]


def test_samples_from_the_future_are_left_out_where_now_is_told() -> None:
    rows = table(*hours("a", 1, 2, 3, 4, 5))
    kept, repairs = mended(rows, "f", now=NOW)
    assert kept.values.tolist() == [1, 2, 3]
    assert [(r.defect, r.count, r.first_row) for r in repairs] == [("future", 2, 4)]
    everything, none = mended(rows, "f", now=None)
    assert (len(everything.values), none) == (5, [])


def test_nothing_but_future_is_refused() -> None:
    with pytest.raises(BadUsageData, match="no usable rows") as caught:
        mended(table(("a", "2027-01-01T00:00:00Z", 1)), "f", now=NOW)
    assert "future" in caught.value.why


def test_an_id_that_names_two_series_is_refused_with_its_rows() -> None:
    with pytest.raises(BadUsageData, match="'a' of f names two series") as caught:
        mended(table(*hours("a", 1, 2, 3, 4), *hours("a", 10, 20, 30, 40)), "f", now=None)
    assert "rows 1 and 5" in caught.value.why


def test_a_file_written_twice_is_no_second_series() -> None:
    kept, repairs = mended(table(*hours("a", 1, 2, 3, 4), *hours("a", 1, 2, 3, 4)), "f", now=None)
    assert kept.values.tolist() == [1, 2, 3, 4]
    assert {r.defect: r.count for r in repairs} == {"unsorted": 1, "duplicate": 4}


def test_series_that_alternate_in_the_file_are_sorted_already() -> None:
    rows = [row for pair in zip(hours("b", 1, 2, 3), hours("a", 4, 5, 6), strict=True) for row in pair]
    kept, repairs = mended(table(*rows), "f", now=None)
    assert (kept.names, kept.values.tolist(), repairs) == (("b", "a"), [1, 2, 3, 4, 5, 6], [])


def test_every_offset_of_a_series_counts_by_itself() -> None:
    rows = table(
        ("a", "2026-03-29T01:00:00+01:00", 1),
        ("a", "2026-03-29T03:00:00+02:00", 2),
        ("a", "2026-03-29T04:00:00+02:00", 3),
    )
    kept, repairs = mended(rows, "f", now=None)
    assert (np.diff(kept.micros) == 3_600_000_000).all()
    assert {r.defect: r.count for r in repairs} == {"other_time_zone": 3, "time_zone_change": 1}
