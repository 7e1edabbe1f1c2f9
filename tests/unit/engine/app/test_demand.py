import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from engine.app.demand import ForecastDemand
from engine.app.embedded import with_usage
from engine.clock import ManualClock
from engine.config import Configuration, parse_configuration
from engine.events import Event
from tests.small_configuration import GOOD

START = datetime(2026, 3, 2, tzinfo=UTC)
HOURS = 96


@pytest.fixture
def usage(tmp_path: Path) -> Path:
    path = tmp_path / "usage.csv"
    moments = (START + timedelta(hours=hour) for hour in range(HOURS))
    rows = [f"api,{moment:%Y-%m-%dT%H:%M:%SZ},{10 + moment.hour}" for moment in moments]
    path.write_text("series_id,timestamp,cpu_cores\n" + "\n".join(rows))
    return path


@pytest.fixture
def configuration(usage: Path, tmp_path: Path) -> Configuration:
    source = {"name": "daily", "kind": "file", "path": str(usage)}
    forecast = {"sources": [source], "metric": "cpu_cores", "horizon_steps": 2, "budget_seconds": 0.1, "paths": 20}
    raw = {**tomllib.loads(GOOD), "forecast": forecast, "state": {"directory": str(tmp_path / "state")}}
    return parse_configuration(raw, origin="f")


def test_a_round_is_told_which_sources_failed_and_how_old_the_history_is(
    configuration: Configuration, usage: Path
) -> None:
    clock, events = ManualClock(START + timedelta(hours=HOURS)), list[Event]()
    demand = ForecastDemand(configuration, clock, events.append)
    (target,) = demand.targets()
    assert target.history_end == START + timedelta(hours=HOURS)
    assert [event.text for event in events if "daily" in event.text] == [
        "daily: 96 samples, 96 of them new, the newest 1 hour old"
    ]
    usage.unlink()
    clock.advance(timedelta(hours=30))
    events.clear()
    (target,) = demand.targets()
    assert target.history_age == timedelta(hours=30)
    source, pool = events
    assert "daily: 96 samples, the newest 1.3 days old; not brought up to date: there is no usage file" in source.text
    assert pool.text.endswith("its history ends 1.2 days before the forecast was made")
    assert pool.facts["pool"] == "web"


def test_a_file_on_the_command_line_takes_the_place_of_the_sources(configuration: Configuration, usage: Path) -> None:
    changed = with_usage(configuration, usage, None).forecast
    assert (changed.usage, changed.sources) == (usage, ())
    kept = with_usage(configuration, None, "cpu_cores").forecast
    assert (kept.usage, len(kept.sources)) == (None, 1)
