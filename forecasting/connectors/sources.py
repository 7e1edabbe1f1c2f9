"""Several sources as one usage history: each brought up to date, and kept as it last was where that fails."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pandas as pd

from engine.errors import BadUsageData, ShardwrightError
from engine.model.value import Utc, Value
from forecasting.connectors.base import Connector
from forecasting.connectors.kept import KeptHistory
from forecasting.durations import roughly
from forecasting.usage import UsageFile, usage_of


@dataclass(frozen=True)
class Source:
    """``identity`` changes with whatever makes other samples (query, metric, step …): it is then another history."""

    name: str
    connector: Connector
    identity: str


class Refreshed(Value):
    """One source after it was asked. ``newest``: its newest sample; ``failure``: why it could not be asked."""

    source: str
    samples: int
    added: int
    newest: Utc | None
    age: timedelta | None
    failure: str = ""
    kind: str = ""
    """Name of the failure's class, as in a market's absent providers."""
    unnamed: int = 0
    """Samples that are left out since they name no series."""

    def sentence(self) -> str:
        """``prometheus: 1200 samples, the newest 2 hours old; not brought up to date: …``"""
        held = f"{self.samples} samples, {self.added} of them new" if self.added else f"{self.samples} samples"
        aged = f", the newest {roughly(self.age)} old" if self.age is not None else ""
        failed = f"not brought up to date: {self.failure}" if self.failure else ""
        return "; ".join(part for part in (f"{self.source}: {held}{aged}", self.left_out, failed) if part)

    @property
    def left_out(self) -> str:
        return f"{self.unnamed} samples without a series_id are left out" if self.unnamed else ""


@dataclass(frozen=True)
class SourcedUsage:
    usage: UsageFile
    sources: tuple[Refreshed, ...]


class Sources:
    """Histories are kept in ``<root>/<name>-<identity>/``. ``least``: the longest step that a source is asked in."""

    def __init__(
        self, sources: Sequence[Source], root: Path, *, metric: str | None = None, least: timedelta | None = None
    ) -> None:
        self._sources, self._root, self._metric, self._least = tuple(sources), root, metric or "value", least

    def refresh(self, now: datetime) -> tuple[Refreshed, ...]:
        """Asks every source. A failure is told, not raised; what was kept before stays."""
        return tuple(refreshed(source, self._kept(source), now)[0] for source in self._sources)

    def read(self, now: datetime) -> SourcedUsage:
        """Refreshes, then reads what is kept. Raises BadUsageData where nothing was ever kept, or ids clash."""
        states: list[Refreshed] = []
        tables: list[pd.DataFrame] = []
        owners: dict[str, str] = {}
        for source in self._sources:
            state, rows = refreshed(source, self._kept(source), now)
            states.append(state)
            if rows is None:
                continue
            for series_id in map(str, rows["series_id"].unique()):
                if owners.setdefault(series_id, source.name) != source.name:
                    raise _clash(series_id, owners[series_id], source.name)
            tables.append(rows.rename(columns={"value": self._metric}))
        if not tables:
            raise BadUsageData(
                "no source of usage holds a sample",
                why="; ".join(state.sentence() for state in states),
                next_step="shardwright forecast fetch",
            )
        usage = usage_of(pd.concat(tables, ignore_index=True), "the sources of usage", metric=self._metric,
                         least=self._least, now=now)  # fmt: skip
        return SourcedUsage(usage, tuple(states))

    def _kept(self, source: Source) -> KeptHistory:
        return KeptHistory(self._root / f"{source.name}-{source.identity}")


def refreshed(source: Source, kept: KeptHistory, now: datetime) -> tuple[Refreshed, pd.DataFrame | None]:
    """With what is kept now (None: nothing).

    Every batch is kept before the next is asked for: a pull that breaks off goes on from there the next time.
    """
    before, rows, failure, kind = _brought(source, kept, now)
    rows, unnamed = _named(rows)
    newest = None
    if rows is not None:
        newest = pd.to_datetime(rows["timestamp"], utc=True, errors="coerce", format="ISO8601").max().to_pydatetime()
    samples = 0 if rows is None else len(rows)
    state = Refreshed(
        source=source.name,
        samples=samples,
        added=max(samples + unnamed - before, 0),
        newest=newest,
        age=now - newest if newest else None,
        failure=failure,
        kind=kind,
        unnamed=unnamed,
    )
    return state, rows


def _brought(source: Source, kept: KeptHistory, now: datetime) -> tuple[int, pd.DataFrame | None, str, str]:
    """(samples before, rows now, what failed, of which kind); a failure costs what it keeps from being read."""
    before, delivered = 0, False
    rows: pd.DataFrame | None = None
    try:
        rows = kept.rows()
        before = 0 if rows is None else len(rows)
        try:
            with kept.writing():
                for batch in source.connector.batches(kept.cursor(), now):
                    kept.append(batch)
                    delivered = True
        finally:
            rows = kept.rows() if delivered else rows
    except ShardwrightError as problem:
        why = f"{problem.what} ({problem.why})" if problem.why else problem.what
        return before, rows, "; ".join(part for part in (why, problem.next_step) if part), type(problem).__name__
    return before, rows, "", ""


def _named(rows: pd.DataFrame | None) -> tuple[pd.DataFrame | None, int]:
    """Those whose series has a name (None: no sample has), and how many others there are."""
    if rows is None:
        return None, 0
    blank = [name for name in rows["series_id"].unique() if not str(name).strip()]
    named = rows[~rows["series_id"].isin(blank)] if blank else rows
    return named if len(named) else None, len(rows) - len(named)


def _clash(series_id: str, one: str, other: str) -> BadUsageData:
    return BadUsageData(
        f"the series {series_id!r} comes from two sources",
        why=f"{one} and {other} both deliver it",
        next_step="give them ids that differ (series_labels), or leave one of the sources out",
    )
