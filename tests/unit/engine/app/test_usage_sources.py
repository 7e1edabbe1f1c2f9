from datetime import UTC, datetime, timedelta
from pathlib import Path

from engine.app.usage_sources import open_sources
from engine.clock import ManualClock
from engine.config import SourceTable, StateTable
from tests.contract.connector_contract import provider_configuration

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


def test_usage_of_several_sources_has_the_longest_step_that_one_is_asked_in(tmp_path: Path) -> None:
    """A file is read as it is; the monitoring system is down, and its step counts all the same."""
    moments = [NOW - timedelta(minutes=5 * i) for i in range(100, 0, -1)]
    lines = [f"a,{moment:%Y-%m-%dT%H:%M:%SZ},1" for moment in moments]
    (tmp_path / "usage.csv").write_text("\n".join(["series_id,timestamp,value", *lines]))
    sources = (
        SourceTable.model_validate({"name": "file", "kind": "file", "path": tmp_path / "usage.csv", "step": "1d"}),
        SourceTable(name="prom", kind="prometheus", url="http://127.0.0.1:1", query="q", step="15m"),
    )
    configuration = provider_configuration("aws")
    configuration = configuration.model_copy(
        update={
            "forecast": configuration.forecast.model_copy(update={"sources": sources}),
            "state": StateTable(directory=tmp_path / "state"),
        }
    )
    read = open_sources(configuration, ManualClock(NOW)).read(NOW)
    assert (read.usage.freq, read.sources[1].kind) == (timedelta(minutes=15), "ProviderUnavailable")
