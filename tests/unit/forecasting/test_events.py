from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from engine.errors import BadUsageData
from forecasting.events import ScheduledEvent, event_shares, read_events

HOUR = timedelta(hours=1)
START = datetime(2026, 11, 27, tzinfo=UTC)
SALE = "2026-11-27T02:00:00Z,2026-11-27T04:30:00Z,sale"


def read(folder: Path, *lines: str, header: str = "start,end,name,series,region") -> tuple[ScheduledEvent, ...]:
    path = folder / "events.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return read_events(path)


def shares(
    events: tuple[ScheduledEvent, ...], series: str = "api", region: str | None = None
) -> dict[str, list[float]]:
    found = event_shares(events, series, region, START, HOUR, 6)
    return {name: np.round(share, 6).tolist() for name, share in found.items()}


def test_an_event_covers_shares_of_steps(tmp_path: Path) -> None:
    events = read(tmp_path, f"{SALE},,")
    assert shares(events) == {"sale": [0, 0, 1, 1, 0.5, 0]}


def test_events_are_in_order_and_their_zones_are_kept(tmp_path: Path) -> None:
    match = "2026-11-27T02:00:00+01:00,2026-11-27T03:00:00+01:00,match,,"
    events = read(tmp_path, f"{SALE},,", match)
    assert [(event.name, event.start) for event in events] == [("match", START + HOUR), ("sale", START + 2 * HOUR)]


def test_series_and_regions_by_pattern(tmp_path: Path) -> None:
    events = read(tmp_path, f"{SALE},web-*; api,eu-*")
    assert set(shares(events, "web-1", "eu-west-1")) == {"sale"}
    assert shares(events, "db", "eu-west-1") == {}
    assert shares(events, "api", "us-east-1") == {}
    assert set(shares(events, "api", None)) == {"sale"}


def test_overlapping_events_of_one_name_cover_a_step_once(tmp_path: Path) -> None:
    events = read(tmp_path, f"{SALE},,", "2026-11-27T03:00:00Z,2026-11-27T05:00:00Z,sale,,")
    assert shares(events)["sale"] == [0, 0, 1, 1, 1, 0]


def test_series_and_region_may_be_missing_columns(tmp_path: Path) -> None:
    assert len(read(tmp_path, SALE, header="start,end,name")) == 1
    assert read(tmp_path, header="start,end,name") == ()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("soon,2026-11-27T04:00:00Z,sale,,", "its start 'soon' is not a time"),
        ("2026-11-27T02:00:00,2026-11-27T04:00:00Z,sale,,", "has no zone"),
        ("2026-11-27T02:00:00Z,2026-11-27T02:00:00Z,sale,,", "not after its start"),
        ("2026-11-27T02:00:00Z,2028-11-27T02:00:00Z,sale,,", "more than a year"),
        ("2026-11-27T02:00:00Z,2026-11-27T04:00:00Z, ,,", "it has no name"),
        ("2026-11-27T02:00:00Z,,sale", "its end '' is not a time"),
        (f"{SALE},,,surplus", "more cells"),
        (f"{SALE},,", "is there twice"),
    ],
)
def test_a_bad_row_is_refused_by_its_number(tmp_path: Path, line: str, says: str) -> None:
    with pytest.raises(BadUsageData, match="1 of 2 events") as caught:
        read(tmp_path, f"{SALE},,", line)
    assert caught.value.why.startswith("row 2: ")
    assert says in caught.value.why
    assert caught.value.next_step


def test_all_bad_rows_are_told_at_once_and_many_are_counted(tmp_path: Path) -> None:
    with pytest.raises(BadUsageData, match="12 of 12") as caught:
        read(tmp_path, *["x,y,z,,"] * 12)
    assert caught.value.why.count("row ") == 10
    assert caught.value.why.endswith("and 2 more")


@pytest.mark.parametrize(("header", "says"), [("start,name", "lacks end"), ("start,end,name,place", "'place'")])
def test_other_columns_are_refused(tmp_path: Path, header: str, says: str) -> None:
    with pytest.raises(BadUsageData, match="not a file of events") as caught:
        read(tmp_path, header=header)
    assert says in caught.value.why


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(BadUsageData, match="cannot be read"):
        read_events(tmp_path / "none.csv")
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    with pytest.raises(BadUsageData, match="cannot be read"):
        read_events(tmp_path / "binary")
