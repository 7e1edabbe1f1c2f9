"""What a source has delivered so far, on disk. Samples and cursor are one file: they cannot disagree after a crash."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar, cast

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import BadUsageData, ShardwrightError, StateInUse
from forecasting.connectors.base import Batch

MOST_PARTS = 32
MOST_LISTINGS = 20
"""A reader lists the parts anew when one of them is gone, so many times; a writer sweeps less often than that."""
_CURSOR, _REPLACES = b"shardwright.cursor", b"shardwright.replaces"
T = TypeVar("T")


class KeptHistory:
    """``<folder>/part-N.parquet``, a batch each, written whole or not at all; the last one's cursor counts.

    One writer at a time, see ``writing``. A part that ``replaces`` makes those before it void, also while they still
    lie there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def cursor(self) -> str | None:
        """None when nothing was kept. Raises BadUsageData where the newest part is damaged."""
        return self._undisturbed(self._cursor)

    def rows(self) -> pd.DataFrame | None:
        """Every sample, the newest delivery of each moment last; None when nothing was kept."""
        return self._undisturbed(self._rows)

    def _undisturbed(self, read: Callable[[], T]) -> T:
        """A writer may sweep parts away between a reader's listing them and reading them."""
        for _ in range(MOST_LISTINGS):
            try:
                return read()
            except FileNotFoundError:
                continue
        raise _damaged(self._folder / "part-*.parquet", "each time it is read, a part is gone")

    def _cursor(self) -> str | None:
        parts = self._parts()
        return _metadata(parts[-1])[_CURSOR].decode() if parts else None

    def _rows(self) -> pd.DataFrame | None:
        parts = self._valid()
        if not parts:
            return None
        tables = [_read(part) for part in parts]
        if len(tables) == 1:
            return tables[0]
        rows = pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)
        return rows.drop_duplicates(["series_id", "timestamp"], keep="last", ignore_index=True)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Held from reading the cursor to the last ``append``. Raises StateInUse while another process holds it."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            lock = (self._folder / "lock").open("ab")
        except OSError as problem:
            raise _unwritable(self._folder, problem) from problem
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StateInUse("another process is bringing it up to date", why=f"it holds {lock.name}") from None
            yield

    def append(self, batch: Batch) -> None:
        """Afterwards the batch and its cursor are kept. Raises ShardwrightError where that cannot be written."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._write(batch)
            if len(self._parts()) > MOST_PARTS:
                rows = self.rows()
                assert rows is not None
                self._write(Batch(rows, batch.cursor, replaces=True))
            self._sweep()
        except OSError as problem:
            raise _unwritable(self._folder, problem) from problem

    def _write(self, batch: Batch) -> None:
        parts = self._parts()
        number = int(parts[-1].stem.removeprefix("part-")) + 1 if parts else 1
        table = pa.Table.from_pandas(batch.rows, preserve_index=False)
        kept = {
            **(table.schema.metadata or {}),
            _CURSOR: batch.cursor.encode(),
            _REPLACES: b"1" if batch.replaces else b"0",
        }
        path = self._folder / f"part-{number:08}.parquet"
        draft = path.with_suffix(".draft")
        try:
            pq.write_table(table.replace_schema_metadata(kept), draft, compression="zstd")
            _flush(draft)
            draft.replace(path)
            _flush(self._folder)
        except OSError:
            draft.unlink(missing_ok=True)
            raise

    def _sweep(self) -> None:
        valid = set(self._valid())
        for part in self._parts():
            if part not in valid:
                part.unlink(missing_ok=True)

    def _valid(self) -> list[Path]:
        """From the last part that replaces those before it."""
        valid: list[Path] = []
        for part in reversed(self._parts()):
            valid.insert(0, part)
            if _metadata(part)[_REPLACES] == b"1":
                break
        return valid

    def _parts(self) -> list[Path]:
        return sorted(self._folder.glob("part-*.parquet"))


def _flush(path: Path) -> None:
    """A power cut would leave an empty part, whose older ones are swept already."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _metadata(part: Path) -> dict[bytes, bytes]:
    try:
        found = cast(dict[bytes, bytes] | None, pq.read_schema(part).metadata) or {}
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as problem:
        raise _damaged(part, str(problem)) from problem
    if _CURSOR not in found or _REPLACES not in found:
        raise _damaged(part, "it holds no cursor")
    return found


def _read(part: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(part)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError) as problem:
        raise _damaged(part, str(problem)) from problem


def _unwritable(folder: Path, problem: OSError) -> ShardwrightError:
    return ShardwrightError(
        f"the usage history cannot be kept in {folder}",
        why=problem.strerror or str(problem),
        next_step=f"make room in {folder}, and let this user write there",
    )


def _damaged(part: Path, why: str) -> BadUsageData:
    return BadUsageData(
        f"the kept usage history {part} cannot be read",
        why=why.splitlines()[0] if why else "it is damaged",
        next_step=f"remove the folder {part.parent}; the history is then fetched anew",
    )
