"""A CSV or Parquet file that something else writes. Read again only when it has changed."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from engine.errors import BadUsageData
from forecasting.connectors.base import Batch
from forecasting.usage import usage_of, usage_rows


class FileConnector:
    """The cursor is the file's size and time of change. A file that cannot be used yields nothing but its error."""

    def __init__(self, path: Path, *, metric: str | None = None) -> None:
        self._path, self._metric = path, metric

    def batches(self, cursor: str | None, until: datetime) -> Iterator[Batch]:
        try:
            found = self._path.stat()
        except OSError as problem:
            raise BadUsageData(
                f"there is no usage file {self._path}", why=problem.strerror or str(problem), next_step="check its path"
            ) from problem
        stamp = f"{found.st_size}-{found.st_mtime_ns}"
        if stamp == cursor:
            return
        rows, _ = usage_rows(self._path, metric=self._metric)
        usage_of(rows, str(self._path))  # refused here, it does not take the place of what was kept
        yield Batch(rows.assign(series_id=rows["series_id"].astype("str")), stamp, replaces=True)
