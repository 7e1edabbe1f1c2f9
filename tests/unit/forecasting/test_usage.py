from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from engine.errors import BadUsageData
from forecasting.usage import UsageFile, read_usage

HOUR = timedelta(hours=1)


def csv(folder: Path, text: str) -> Path:
    path = folder / "usage.csv"
    path.write_text(text)
    return path


def rows(*lines: str) -> str:
    return "\n".join(["series_id,timestamp,value", *lines]) + "\n"


def defects(file: UsageFile) -> dict[str, int]:
    return {repair.defect: repair.count for repair in file.repairs}


SECONDS = [f"b,2026-01-05T00:00:{s:02}Z,1" for s in range(4)]
CLEAN = [f"a,2026-01-05T{h:02}:00:00Z,{h}" for h in range(6)]


def test_a_clean_file_needs_no_repair(tmp_path: Path) -> None:
    file = read_usage(csv(tmp_path, rows(*CLEAN)))
    (history,) = file.histories
    assert (file.repairs, file.metric, file.freq) == ((), "value", HOUR)
    assert (history.series_id, history.start) == ("a", datetime(2026, 1, 5, tzinfo=UTC))
    assert history.values.tolist() == [0, 1, 2, 3, 4, 5]


def test_parquet_with_typed_times_and_a_named_metric(tmp_path: Path) -> None:
    times = pd.date_range("2026-01-05", periods=8, freq="30min", tz="UTC")
    table = pd.DataFrame({"series_id": "a", "timestamp": times, "metric": "text", "requests": np.float32(3)})
    table.to_parquet(tmp_path / "usage.parquet")
    file = read_usage(tmp_path / "usage.parquet")
    assert (file.metric, file.freq, len(file.histories[0].values)) == ("requests", HOUR / 2, 8)
    assert file.repairs == ()


def test_series_come_apart_and_gaps_are_named(tmp_path: Path) -> None:
    file = read_usage(csv(tmp_path, rows(*CLEAN[:2], CLEAN[4], "b,2026-01-05T02:00:00Z,7", "b,2026-01-05T03:00:00Z,8")))
    first, second = file.histories
    assert np.array_equal(first.values, [0, 1, np.nan, np.nan, 4], equal_nan=True)
    assert second.start == datetime(2026, 1, 5, 2, tzinfo=UTC)
    assert defects(file) == {"gap": 2}


@pytest.mark.parametrize(
    ("line", "defect", "value"),
    [
        ("a,2026-01-05T05:00:00Z,-3", "negative", np.nan),
        ("a,2026-01-05T05:00:00Z,inf", "infinite", np.nan),
        ("a,2026-01-05T05:00:00Z,", "missing_value", np.nan),
        ("a,2026-01-05T05:00:00Z,NaN", "missing_value", np.nan),
        ("a,2026-01-05 05:00:00,9", "naive_timestamp", 9),
        ("a,2026-01-05T05:07:00Z,9", "off_grid", 9),
    ],
)
def test_each_defect_is_mended_and_named(tmp_path: Path, line: str, defect: str, value: float) -> None:
    file = read_usage(csv(tmp_path, rows(*CLEAN[:5], line)))
    assert defects(file) == {defect: 1}
    assert np.array_equal(file.histories[0].values, [0, 1, 2, 3, 4, value], equal_nan=True)


def test_a_change_of_zone_moves_nothing(tmp_path: Path) -> None:
    summer = "a,2026-01-05T06:00:00+01:00,9"
    file = read_usage(csv(tmp_path, rows(*CLEAN[:5], summer)))
    assert defects(file) == {"other_time_zone": 1, "time_zone_change": 1}
    assert file.histories[0].values.tolist() == [0, 1, 2, 3, 4, 9]


def test_unsorted_and_doubled_rows(tmp_path: Path) -> None:
    file = read_usage(csv(tmp_path, rows(CLEAN[1], CLEAN[0], *CLEAN[2:], "a,2026-01-05T05:00:00Z,50")))
    assert defects(file) == {"unsorted": 1, "duplicate": 1}
    assert file.histories[0].values.tolist() == [0, 1, 2, 3, 4, 50]


def test_a_row_without_a_time_is_left_out_by_name(tmp_path: Path) -> None:
    file = read_usage(csv(tmp_path, rows(*CLEAN, "a,,9")))
    assert defects(file) == {"no_timestamp": 1}
    assert len(file.histories[0].values) == 6


def test_a_longer_step_adds_counts_up_and_averages_levels(tmp_path: Path) -> None:
    text = rows(*[f"a,2026-01-05T{h:02}:{m:02}:00Z,2" for h in range(3) for m in (0, 30)])
    level = read_usage(csv(tmp_path, text), freq=HOUR)
    count = read_usage(csv(tmp_path, text.replace("value", "requests")), freq=HOUR)
    assert level.histories[0].values.tolist() == [2, 2, 2]
    assert count.histories[0].values.tolist() == [4, 4, 4]
    assert defects(level) == {"resampled": 6}


def test_one_sparse_series_costs_the_others_nothing(tmp_path: Path) -> None:
    file = read_usage(csv(tmp_path, rows(*CLEAN, "b,2026-01-05T00:00:00Z,1", "b,2026-01-05T04:00:00Z,2")))
    assert (file.freq, [len(history.values) for history in file.histories]) == (HOUR, [6, 5])
    assert defects(file) == {"gap": 3}


def test_a_shorter_step_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadUsageData, match="coarser") as caught:
        read_usage(csv(tmp_path, rows(*CLEAN)), freq=HOUR / 12)
    assert "60min" in caught.value.next_step


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("series_id,timestamp,value\n", "holds no rows"),
        ("time,load\n1,2\n", "lacks the columns series_id, timestamp"),
        ("series_id,timestamp\na,2026-01-05T00:00:00Z\n", "lacks a column of numbers"),
        (rows(*CLEAN, "a,2026-01-05T06:00:00Z,many"), "row 7 .* does not hold a number"),
        (rows(*CLEAN, "a,yesterday,1"), "row 7 .* holds no timestamp"),
        (rows(*CLEAN, "a,1767571200,1"), "row 7 .* holds a number as its timestamp"),
        (rows(*CLEAN, ",2026-01-05T06:00:00Z,1"), "row 7 .* has no series_id"),
        (rows("a,,1"), "no usable rows"),
        (rows(CLEAN[0]), "step .* cannot be told"),
        (
            rows("a,0001-01-01T00:00:00Z,1", *[f"b,2026-01-05T00:00:{s:02}Z,1" for s in range(4)], "a,2026-01-01,1"),
            "spans",
        ),
        ('series_id,timestamp,value\na,"2026', "cannot be read as CSV"),
    ],
)
def test_what_cannot_be_mended_is_refused_with_its_place(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(BadUsageData, match=says) as caught:
        read_usage(csv(tmp_path, text))
    assert caught.value.why
    assert caught.value.next_step


def test_rubbish_and_absent_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "usage.parquet").write_bytes(b"PAR1 and then nothing of use")
    with pytest.raises(BadUsageData, match="cannot be read as Parquet"):
        read_usage(tmp_path / "usage.parquet")
    (tmp_path / "binary").write_bytes(bytes(range(128, 256)) * 4)
    with pytest.raises(BadUsageData, match="cannot be read as CSV"):
        read_usage(tmp_path / "binary")
    with pytest.raises(BadUsageData, match="no usage file"):
        read_usage(tmp_path / "absent.csv")


def test_a_metric_must_be_chosen_and_spelt(tmp_path: Path) -> None:
    text = "series_id,timestamp,cpu_cores,memory_gib\n" + "".join(f"a,2026-01-05T0{h}:00:00Z,{h},8\n" for h in range(4))
    path = csv(tmp_path, text)
    with pytest.raises(BadUsageData, match="several metrics") as several:
        read_usage(path)
    assert "--metric cpu_cores" in several.value.next_step
    with pytest.raises(BadUsageData, match="did you mean 'memory_gib'"):
        read_usage(path, metric="memory_gb")
    assert read_usage(path, metric="memory_gib").histories[0].values.tolist() == [8, 8, 8, 8]


def test_a_parquet_column_of_the_wrong_type_is_refused(tmp_path: Path) -> None:
    times = pd.date_range("2026-01-05", periods=4, freq="h", tz="UTC")
    pd.DataFrame({"series_id": "a", "timestamp": times, "value": times}).to_parquet(tmp_path / "u.parquet")
    with pytest.raises(BadUsageData, match="does not hold numbers"):
        read_usage(tmp_path / "u.parquet")
    pd.DataFrame({"series_id": "a", "timestamp": range(4), "value": 1.0}).to_parquet(tmp_path / "u.parquet")
    with pytest.raises(BadUsageData, match="number as its timestamp"):
        read_usage(tmp_path / "u.parquet")
