from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from engine.errors import BadUsageData, ShardwrightError, StateInUse
from forecasting.connectors.base import Batch, frame
from forecasting.connectors.kept import MOST_PARTS, KeptHistory

START = datetime(2026, 3, 2, tzinfo=UTC).timestamp()


def batch(first: int, *values: float, cursor: str = "c", replaces: bool = False) -> Batch:
    times = [START + 3600 * (first + i) for i in range(len(values))]
    return Batch(frame([("a", times, values)]), cursor, replaces)


def held(kept: KeptHistory) -> list[float]:
    rows = kept.rows()
    return [] if rows is None else rows.sort_values("timestamp")["value"].tolist()


def test_nothing_is_kept_at_first(tmp_path: Path) -> None:
    kept = KeptHistory(tmp_path / "new")
    assert (kept.cursor(), kept.rows()) == (None, None)


def test_batches_add_up_and_the_newest_answer_counts(tmp_path: Path) -> None:
    kept = KeptHistory(tmp_path)
    kept.append(batch(0, 1, 2, 3, cursor="one"))
    kept.append(batch(2, 30, 4, cursor="two"))
    assert (held(kept), kept.cursor()) == ([1, 2, 30, 4], "two")
    assert held(KeptHistory(tmp_path)) == [1, 2, 30, 4]


def test_many_parts_are_merged_without_a_change(tmp_path: Path) -> None:
    kept = KeptHistory(tmp_path)
    for hour in range(3 * MOST_PARTS):
        kept.append(batch(hour, float(hour), cursor=str(hour)))
        assert len(list(tmp_path.glob("part-*"))) <= MOST_PARTS
    assert (held(kept), kept.cursor()) == ([float(h) for h in range(3 * MOST_PARTS)], str(3 * MOST_PARTS - 1))


def test_a_part_that_replaces_makes_older_ones_void_even_when_they_are_still_there(tmp_path: Path) -> None:
    kept = KeptHistory(tmp_path)
    kept.append(batch(0, 1, 2))
    older = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    kept.append(batch(0, 7, cursor="new", replaces=True))
    for name, content in older.items():  # killed before it swept
        (tmp_path / name).write_bytes(content)
    assert (held(kept), kept.cursor()) == ([7], "new")
    kept.append(batch(1, 8))
    assert held(kept) == [7, 8]
    assert not [name for name in older if (tmp_path / name).exists()]


def test_a_draft_of_a_killed_writer_counts_for_nothing(tmp_path: Path) -> None:
    kept = KeptHistory(tmp_path)
    kept.append(batch(0, 1, cursor="one"))
    (tmp_path / "part-00000002.draft").write_bytes(b"PAR1 half")
    assert (held(kept), kept.cursor()) == ([1], "one")
    kept.append(batch(1, 2, cursor="two"))
    assert held(kept) == [1, 2]


def test_an_empty_batch_moves_the_cursor(tmp_path: Path) -> None:
    kept = KeptHistory(tmp_path)
    kept.append(batch(0, 1, cursor="one"))
    kept.append(batch(1, cursor="two"))
    assert (held(kept), kept.cursor()) == ([1], "two")


def test_a_part_is_on_the_disk_before_it_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[list[str]] = []

    def flush(handle: int) -> None:
        flushed.append(sorted(path.suffix for path in tmp_path.glob("part-*")))

    monkeypatch.setattr("forecasting.connectors.kept.os.fsync", flush)
    KeptHistory(tmp_path).append(batch(0, 1))
    assert flushed == [[".draft"], [".parquet"]]  # the part, then the folder that names it


@pytest.mark.parametrize("read", ["read_schema", "read_parquet"])
def test_a_part_that_a_writer_sweeps_under_a_reader_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: str
) -> None:
    kept, module = KeptHistory(tmp_path), "pq" if read == "read_schema" else "pd"
    kept.append(batch(0, 1, cursor="old"))
    path = f"forecasting.connectors.kept.{module}.{read}"
    real = {"read_schema": pq.read_schema, "read_parquet": pd.read_parquet}[read]

    def swept(part: Path) -> object:
        monkeypatch.setattr(path, real)
        KeptHistory(tmp_path).append(batch(0, 7, cursor="new", replaces=True))
        return real(part)

    monkeypatch.setattr(path, swept)
    assert (held(kept), kept.cursor()) == ([7], "new")


@pytest.mark.parametrize("content", [b"", b"PAR1 rubbish PAR1"])
def test_a_damaged_part_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "part-00000001.parquet").write_bytes(content)
    with pytest.raises(BadUsageData, match=r"part-00000001.parquet cannot be read") as caught:
        KeptHistory(tmp_path).cursor()
    assert str(tmp_path) in caught.value.next_step


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with KeptHistory(tmp_path).writing(), pytest.raises(StateInUse), KeptHistory(tmp_path).writing():
        pass
    with KeptHistory(tmp_path).writing():
        pass


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "usage").write_text("a file where a folder belongs")
    kept = KeptHistory(tmp_path / "usage")
    with pytest.raises(ShardwrightError, match="cannot be kept"):
        kept.append(batch(0, 1))
    with pytest.raises(ShardwrightError, match="cannot be kept"), kept.writing():
        pass


def test_a_full_disk_leaves_what_was_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = KeptHistory(tmp_path)
    kept.append(batch(0, 1, cursor="one"))

    def full(*_: object, **__: object) -> None:
        (tmp_path / "part-00000002.draft").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("forecasting.connectors.kept.pq.write_table", full)
    with pytest.raises(ShardwrightError, match="cannot be kept") as caught:
        kept.append(batch(1, 2, cursor="two"))
    assert caught.value.why == "No space left on device"
    assert (held(kept), kept.cursor(), list(tmp_path.glob("*.draft"))) == ([1], "one", [])
