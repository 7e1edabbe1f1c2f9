from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from engine.errors import BadUsageData, ProviderUnavailable
from forecasting.connectors.base import Batch, frame
from forecasting.connectors.kept import KeptHistory
from forecasting.connectors.sources import Refreshed, Source, Sources

HOUR = timedelta(hours=1)
NOW = datetime(2026, 3, 4, tzinfo=UTC)


class Scripted:
    """Two hourly batches a pull, as told; the ``breaks``-th batch is an error."""

    def __init__(self, series_id: str, *, breaks: int | None = None) -> None:
        self.series_id, self.breaks, self.cursors = series_id, breaks, list[str | None]()

    def batches(self, cursor: str | None, until: datetime) -> Iterator[Batch]:
        self.cursors.append(cursor)
        first = int(cursor or 0)
        for number in (first, first + 1):
            if self.breaks == number:
                raise ProviderUnavailable("the server is down", why="no answer")
            times = [NOW - (20 - number) * HOUR]
            yield Batch(frame([(self.series_id, times, [float(number)])]), str(number + 1))


def sources(folder: Path, *scripted: Scripted, metric: str | None = None) -> Sources:
    return Sources([Source(f"s{i}", one, "1") for i, one in enumerate(scripted)], folder, metric=metric)


def test_several_sources_are_one_history(tmp_path: Path) -> None:
    read = sources(tmp_path, Scripted("a"), Scripted("b"), metric="cpu_cores").read(NOW)
    assert [history.series_id for history in read.usage.histories] == ["a", "b"]
    assert (read.usage.metric, read.usage.freq) == ("cpu_cores", HOUR)
    assert [(state.source, state.added) for state in read.sources] == [("s0", 2), ("s1", 2)]


def test_what_came_before_the_failure_is_kept_and_gone_on_from(tmp_path: Path) -> None:
    script = Scripted("a", breaks=1)
    held = sources(tmp_path, script)
    (state,) = held.refresh(NOW)
    assert (state.samples, state.kind) == (1, "ProviderUnavailable")
    assert "not brought up to date: the server is down (no answer)" in state.sentence()
    script.breaks = None
    (state,) = held.refresh(NOW)
    assert (script.cursors, state.samples, state.failure) == ([None, "1"], 3, "")


def test_a_source_with_another_identity_starts_anew(tmp_path: Path) -> None:
    sources(tmp_path, Scripted("a")).refresh(NOW)
    other = Scripted("a")
    Sources([Source("s0", other, "2")], tmp_path).refresh(NOW)
    assert other.cursors == [None]


def test_one_id_from_two_sources_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadUsageData, match="'a' comes from two sources") as caught:
        sources(tmp_path, Scripted("a"), Scripted("a")).read(NOW)
    assert "s0 and s1" in caught.value.why


def test_no_history_at_all_is_an_error_that_says_why(tmp_path: Path) -> None:
    with pytest.raises(BadUsageData, match="no source of usage holds a sample") as caught:
        sources(tmp_path, Scripted("a", breaks=0)).read(NOW)
    assert "the server is down" in caught.value.why


def test_the_sentence_of_a_source() -> None:
    state = Refreshed(source="prom", samples=1200, added=24, newest=NOW - 2 * HOUR, age=2 * HOUR)
    assert state.sentence() == "prom: 1200 samples, 24 of them new, the newest 2 hours old"


def test_another_process_at_work_is_told_and_what_is_kept_is_used(tmp_path: Path) -> None:
    held = sources(tmp_path, Scripted("a"))
    held.refresh(NOW)
    with KeptHistory(tmp_path / "s0-1").writing():
        read = held.read(NOW)
    assert (read.sources[0].kind, read.sources[0].samples) == ("StateInUse", 2)
    assert [history.series_id for history in read.usage.histories] == ["a"]
