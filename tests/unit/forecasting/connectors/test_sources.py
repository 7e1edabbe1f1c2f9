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


class Given:
    """These moments, and no more."""

    def __init__(self, series_id: str, *hours: float) -> None:
        self.series_id, self.hours = series_id, hours

    def batches(self, cursor: str | None, until: datetime) -> Iterator[Batch]:
        times = [NOW - 24 * HOUR + hour * HOUR for hour in self.hours]
        yield Batch(frame([(self.series_id, times, [1.0] * len(times))]), "there", replaces=True)


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


def test_sources_of_different_steps_meet_at_the_longest(tmp_path: Path) -> None:
    given = [Source("fine", Given("a", *(i / 12 for i in range(100))), "1"), Source("coarse", Given("b", 1, 2, 3), "1")]
    usage = Sources(given, tmp_path, least=HOUR).read(NOW).usage
    assert usage.freq == HOUR
    assert [(history.series_id, len(history.values)) for history in usage.histories] == [("a", 9), ("b", 3)]


def test_samples_that_name_no_series_are_left_out_and_told(tmp_path: Path) -> None:
    read = Sources([Source("s0", Given("", 1, 2), "1"), Source("s1", Given("b", 1, 2), "1")], tmp_path).read(NOW)
    assert [history.series_id for history in read.usage.histories] == ["b"]
    assert [state.samples for state in read.sources] == [0, 2]
    assert "2 samples without a series_id are left out" in read.sources[0].sentence()


def test_a_damaged_part_costs_its_source_alone_and_says_what_to_do(tmp_path: Path) -> None:
    held = sources(tmp_path, Scripted("a"), Scripted("b"))
    held.refresh(NOW)
    next(iter((tmp_path / "s0-1").glob("part-*"))).write_bytes(b"")
    read = held.read(NOW)
    assert [history.series_id for history in read.usage.histories] == ["b"]
    assert read.sources[0].kind == "BadUsageData"
    assert "remove the folder" in read.sources[0].failure


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
