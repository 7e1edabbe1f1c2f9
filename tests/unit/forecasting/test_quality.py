"""Every defect of a usage history, each in a file of its own, and what becomes of it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from engine.errors import BadUsageData
from forecasting.quality import QualityReport, quality_report
from forecasting.usage import read_usage

NOW = datetime(2026, 11, 24, tzinfo=UTC)
HOURS = 28 * 24


def frame(series_id: str = "a", *, start: str = "2026-03-02", scale: float = 1.0) -> pd.DataFrame:
    values = 10 + 4 * np.sin(np.arange(HOURS) * 2 * np.pi / 24) + np.random.default_rng(5).normal(0, 0.3, HOURS)
    times = pd.date_range(start, periods=HOURS, freq="h", tz="UTC")
    return pd.DataFrame({"series_id": series_id, "timestamp": times, "value": values * scale})


def text(table: pd.DataFrame, form: str = "%Y-%m-%dT%H:%M:%SZ") -> pd.DataFrame:
    return table.assign(timestamp=table["timestamp"].dt.strftime(form))


def with_value(at: int, value: float, length: int = 1) -> pd.DataFrame:
    table = frame()
    table.loc[at : at + length - 1, "value"] = value
    return table


def in_berlin() -> pd.DataFrame:
    local = frame()["timestamp"].dt.tz_convert("Europe/Berlin")
    return frame().assign(timestamp=[moment.isoformat() for moment in local])


def scaled_from(at: int, factor: float) -> pd.DataFrame:
    table = frame()
    table.loc[at:, "value"] *= factor
    return table


def report(table: pd.DataFrame, folder: Path) -> QualityReport:
    path = folder / "usage.csv"
    (text(table) if pd.api.types.is_datetime64_any_dtype(table["timestamp"]) else table).to_csv(path, index=False)
    return quality_report(read_usage(path), now=NOW)


def named(made: QualityReport) -> set[str]:
    defects = {repair.defect for series in made.series for repair in series.repairs}
    return defects | {finding.observation for series in made.series for finding in series.findings}


CASES: dict[str, tuple[Callable[[], pd.DataFrame], set[str]]] = {
    "clean": (frame, set()),
    "gap": (lambda: frame().drop(index=[100, 101]), {"gap"}),
    "long gap": (lambda: frame().drop(index=range(100, 130)), {"gap", "long_gap"}),
    "duplicate": (lambda: pd.concat([frame(), frame().tail(2)]), {"duplicate", "unsorted"}),
    "unsorted": (lambda: frame().sample(frac=1, random_state=1), {"unsorted"}),
    "naive": (lambda: text(frame(), "%Y-%m-%d %H:%M:%S"), {"naive_timestamp"}),
    "time-zone change": (in_berlin, {"other_time_zone", "time_zone_change"}),
    "negative": (lambda: with_value(40, -1.0), {"negative"}),
    "NaN": (lambda: with_value(40, np.nan), {"missing_value"}),
    "infinite": (lambda: with_value(40, np.inf), {"infinite"}),
    "minus infinite": (lambda: with_value(40, -np.inf), {"infinite"}),
    "constant": (lambda: frame().assign(value=4.0), {"constant"}),
    "all zero": (lambda: frame().assign(value=0.0), {"all_zero"}),
    "level shift": (lambda: scaled_from(14 * 24, 2.0), {"level_shift"}),
    "outage": (lambda: with_value(100, 0.0, 6), {"outage"}),
    "another unit": (lambda: scaled_from(14 * 24, 1000.0), {"unit_change"}),
    "unit that does not fit": (lambda: frame(scale=20).rename(columns={"value": "cpu_util"}), {"unit_does_not_fit"}),
    "ended long ago": (lambda: pd.concat([frame(), frame("b", start="2025-03-02")]), {"ended_early"}),
    "future": (lambda: frame(start="2026-11-20"), {"future"}),
    "scale 1e12": (lambda: frame(scale=1e12), set()),
    "scale 1e-12": (lambda: frame(scale=1e-12), set()),
    "ten points": (lambda: frame().head(10), {"too_short"}),
    "alike ids": (lambda: pd.concat([frame("api"), frame("API")]), {"similar_id"}),
}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_each_defect_is_named_and_nothing_else(case: str, tmp_path: Path) -> None:
    table, expected = CASES[case]
    assert named(report(table(), tmp_path)) == expected


def test_every_action_and_finding_says_what_became_of_it(tmp_path: Path) -> None:
    for table, _ in CASES.values():
        for series in report(table(), tmp_path).series:
            assert all(repair.action and repair.count > 0 for repair in series.repairs)
            assert all(finding.text for finding in series.findings)


def test_samples_are_kept_or_counted(tmp_path: Path) -> None:
    table = pd.concat([with_value(40, -1.0), frame().tail(3)]).drop(index=[100])
    (series,) = report(table, tmp_path).series
    assert (series.steps, series.measured) == (HOURS, HOURS - 2)
    assert {r.defect: r.count for r in series.repairs} == {"duplicate": 3, "negative": 1, "unsorted": 1, "gap": 1}


def test_a_series_without_any_time_is_in_the_report(tmp_path: Path) -> None:
    nowhere = text(frame("b").head(3)).assign(timestamp="")
    made = report(pd.concat([text(frame()), nowhere]), tmp_path)
    last = made.series[-1]
    assert (last.series_id, last.steps, [(r.defect, r.count) for r in last.repairs]) == ("b", 0, [("no_timestamp", 3)])


def test_many_findings_of_a_kind_are_counted(tmp_path: Path) -> None:
    table = frame()
    for at in range(10, 610, 24):
        table.loc[at : at + 2, "value"] = 0.0
    (series,) = report(table, tmp_path).series
    assert (len(series.findings), series.more) == (20, 5)


def test_one_point_is_refused_without_a_step_and_read_with_one(tmp_path: Path) -> None:
    path = tmp_path / "usage.csv"
    text(frame().head(1)).to_csv(path, index=False)
    with pytest.raises(BadUsageData, match=r"step .* cannot be told"):
        read_usage(path)
    made = quality_report(read_usage(path, freq=timedelta(hours=1)), now=NOW)
    assert named(made) == {"too_short"}


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"value": "yes"}, "row 1 .* does not hold a number in 'value'"),
        ({"value": True}, "does not hold numbers"),
        ({"value": [[1.0]] * HOURS}, "row 1 .* does not hold a number"),
        ({"value": pd.Timedelta("1h")}, "does not hold numbers"),
        ({"timestamp": range(HOURS)}, "row 1 .* holds a number as its timestamp"),
        ({"timestamp": True}, "row 1 .* holds no timestamp"),
        ({"series_id": None}, "row 1 .* has no series_id"),
    ],
)
def test_parquet_with_wrong_types_is_refused(columns: dict[str, object], says: str, tmp_path: Path) -> None:
    frame().assign(**columns).to_parquet(tmp_path / "u.parquet")
    with pytest.raises(BadUsageData, match=says):
        read_usage(tmp_path / "u.parquet", metric="value")


@pytest.mark.parametrize(
    "columns",
    [
        {"series_id": 7},
        {"series_id": pd.Categorical(["a"] * HOURS)},
        {"value": frame()["value"].astype(str)},
        {"value": frame()["value"].astype("float32")},
        {"value": range(HOURS)},
        {"timestamp": frame()["timestamp"].dt.tz_convert("Asia/Tokyo")},
        {"timestamp": frame()["timestamp"].dt.as_unit("ns")},
    ],
    ids=["number as id", "categories", "text as value", "float32", "integers", "Tokyo", "nanoseconds"],
)
def test_parquet_with_other_types_of_the_same_meaning_is_read(columns: dict[str, object], tmp_path: Path) -> None:
    frame().assign(**columns).to_parquet(tmp_path / "u.parquet")
    (history,) = read_usage(tmp_path / "u.parquet", metric="value").histories
    assert (history.start, len(history.values)) == (datetime(2026, 3, 2, tzinfo=UTC), HOURS)
