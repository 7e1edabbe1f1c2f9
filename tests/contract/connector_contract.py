"""What every connector of usage promises, run against a real server (or file) through the configuration.

A connector's test inherits ``ConnectorContract`` and gives ``source`` (its ``[[forecast.sources]]`` table),
``configuration`` and ``down``; its server holds ``SERIES`` from ``START``, hour by hour, for ``HOURS`` hours.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from engine.app.usage_sources import open_source
from engine.config import Configuration, SourceTable
from forecasting.connectors import base
from forecasting.connectors.kept import KeptHistory
from forecasting.connectors.sources import Source, Sources, refreshed
from tests.contract.provider_contract import RecordingClock

START = datetime(2026, 3, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)
HOURS = 72
SERIES = {"api": [10.0 + hour for hour in range(HOURS)], "db": [500.0 - hour for hour in range(HOURS)]}


def at(hour: float) -> datetime:
    return START + hour * HOUR


class ConnectorContract:
    whole = False
    """Whether a pull always brings everything there is (a file), not what came since."""

    @pytest.fixture
    def source_table(self) -> dict[str, Any]:
        raise NotImplementedError

    @pytest.fixture
    def configuration(self) -> Configuration:
        raise NotImplementedError

    def down(self) -> AbstractContextManager[object]:
        raise NotImplementedError

    @pytest.fixture
    def source(self, source_table: dict[str, Any], configuration: Configuration) -> Source:
        return self.opened(source_table, configuration)

    def opened(self, table: dict[str, Any], configuration: Configuration, **changed: object) -> Source:
        return open_source(SourceTable.model_validate({**table, **changed}), configuration, RecordingClock())

    @pytest.fixture
    def kept(self, tmp_path: Path) -> KeptHistory:
        return KeptHistory(tmp_path / "kept")

    def test_the_first_pull_brings_every_whole_step(self, source: Source, kept: KeptHistory) -> None:
        state, rows = refreshed(source, kept, at(HOURS) + timedelta(minutes=20))
        assert state.failure == ""
        assert rows is not None
        assert values(rows) == {
            (name, at(hour)): value for name, series in SERIES.items() for hour, value in enumerate(series)
        }
        assert (state.samples, state.added, state.newest) == (2 * HOURS, 2 * HOURS, at(HOURS - 1))
        assert state.age == timedelta(hours=1, minutes=20)

    def test_the_next_pull_asks_only_for_what_came_since(self, source: Source, kept: KeptHistory) -> None:
        first = list(source.connector.batches(None, at(48)))
        for batch in first:
            kept.append(batch)
        before = kept.rows()
        second = list(source.connector.batches(kept.cursor(), at(HOURS)))
        for batch in second:
            kept.append(batch)
        if self.whole:
            assert second == []
        else:
            assert before is not None
            assert len(before) == 2 * 48
            oldest = min(batch.rows["timestamp"].min() for batch in second)
            assert oldest == at(48 - base.OVERLAP_STEPS)
        rows = kept.rows()
        assert rows is not None
        assert len(values(rows)) == len(rows) == 2 * HOURS

    def test_nothing_new_brings_nothing(self, source: Source, kept: KeptHistory) -> None:
        refreshed(source, kept, at(HOURS))
        assert list(source.connector.batches(kept.cursor(), at(HOURS) + timedelta(minutes=59))) == []

    def test_a_pull_that_breaks_off_goes_on(
        self, source: Source, kept: KeptHistory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        narrow = base.spans
        for module in self.modules():
            monkeypatch.setattr(module, "spans", lambda *args, **given: narrow(*args, **{**given, "most_steps": 10}))
        batches = source.connector.batches(None, at(HOURS))
        for _ in range(1 if self.whole else 130):  # stopped within the 56 days it goes back
            kept.append(next(batches))
        batches.close()  # type: ignore[attr-defined]
        state, rows = refreshed(source, kept, at(HOURS))
        assert rows is not None
        assert (state.failure, len(values(rows)), len(rows)) == ("", 2 * HOURS, 2 * HOURS)

    def modules(self) -> Sequence[object]:
        return ()

    def test_a_failed_pull_keeps_the_last_good_history_and_tells_its_age(self, source: Source, tmp_path: Path) -> None:
        sources = Sources([source], tmp_path)
        sources.refresh(at(48))
        held = sources.read(at(48)).sources[0].samples
        with self.down():
            read = sources.read(at(HOURS))
        (state,) = read.sources
        assert state.failure
        assert (state.samples, state.added) == (held, 0)
        assert state.age == at(HOURS) - at(HOURS - 1 if self.whole else 47)
        assert [history.series_id for history in read.usage.histories] == ["api", "db"]
        assert "not brought up to date" in state.sentence()

    def test_it_comes_back(self, source: Source, tmp_path: Path) -> None:
        sources = Sources([source], tmp_path)
        with self.down():
            (state,) = sources.refresh(at(HOURS))
        assert (state.samples, bool(state.failure)) == (0, True)
        (state,) = sources.refresh(at(HOURS))
        assert (state.samples, state.failure) == (2 * HOURS, "")


class CredentialsContract(ConnectorContract):
    """For those that need credentials: what is missing or refused is told as that, at once."""

    @pytest.fixture
    def stranger(self) -> Configuration:
        """The configuration with credentials that the server does not know."""
        raise NotImplementedError

    def test_refused_credentials_are_told(
        self, source_table: dict[str, Any], stranger: Configuration, kept: KeptHistory
    ) -> None:
        state, rows = refreshed(self.opened(source_table, stranger), kept, at(HOURS))
        assert rows is None
        assert state.kind == "AuthenticationFailed"

    def test_missing_credentials_cost_this_source_alone(
        self, source_table: dict[str, Any], configuration: Configuration, kept: KeptHistory
    ) -> None:
        provider = configuration.providers[0]
        bare = provider.model_copy(update={"credentials": {}})
        without = configuration.model_copy(update={"providers": (bare,)})
        state, _ = refreshed(self.opened(source_table, without), kept, at(HOURS))
        assert (state.kind, "no credentials" in state.failure) == ("AuthenticationFailed", True)


def values(rows: pd.DataFrame) -> dict[tuple[str, datetime], float]:
    times = pd.to_datetime(rows["timestamp"], utc=True)
    return {
        (str(name), time.to_pydatetime()): float(value)
        for name, time, value in zip(rows["series_id"], times, rows["value"], strict=True)
    }


def samples() -> Iterator[tuple[str, int, float]]:
    """(series, hour, value) in the order of time."""
    for hour in range(HOURS):
        for name, series in SERIES.items():
            yield name, hour, series[hour]


def provider_configuration(kind: str, **provider: Any) -> Configuration:
    """The least configuration with one provider."""
    return Configuration.model_validate(
        {
            "risk_classes": [{"name": "gold", "rank": 0, "quantile": 0.95, "max_shortfall": 0.01}],
            "shard_types": [{"name": "cpu.small", "vcpus": 1, "memory_gib": 2}],
            "providers": [{"name": kind, "kind": kind, "account": "a", "regions": ["us-east-1"], **provider}],
            "pools": [{"id": "web", "shard_type": "cpu.small", "risk_class": "gold"}],
        }
    )
