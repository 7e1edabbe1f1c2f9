"""The data-quality report of a usage history: per series what there is, what was mended, what was only noticed."""

from datetime import datetime, timedelta

import numpy as np

from engine.model.value import Utc, Value
from forecasting.base import History
from forecasting.findings import Finding, findings, similar_ids
from forecasting.usage import UsageFile
from forecasting.usage_repairs import Repair

MOST_TOLD = 20
"""Findings of one kind per series that are listed one by one; ``more`` counts the others."""


class SeriesQuality(Value):
    """One series. ``end``: the first moment after it; ``measured`` of ``steps`` hold a value."""

    series_id: str
    start: Utc
    end: Utc
    steps: int
    measured: int
    repairs: tuple[Repair, ...]
    findings: tuple[Finding, ...]
    more: int = 0
    """Findings that are not listed, since there are many of their kind."""

    @property
    def clean(self) -> bool:
        return not self.repairs and not self.findings


class QualityReport(Value):
    metric: str
    step: timedelta
    series: tuple[SeriesQuality, ...]


def quality_report(file: UsageFile, *, now: datetime) -> QualityReport:
    """In the order of the file's histories."""
    newest = max((history.measured_end for history in file.histories), default=now)
    alike = similar_ids([history.series_id for history in file.histories])
    mended: dict[str, list[Repair]] = {}
    for repair in file.repairs:
        mended.setdefault(repair.series_id, []).append(repair)
    series = [_series(history, file.metric, mended, alike, newest, now) for history in file.histories]
    kept = {one.series_id for one in series}
    series += [_only_repairs(name, repairs, newest) for name, repairs in mended.items() if name not in kept]
    return QualityReport(metric=file.metric, step=file.freq, series=tuple(series))


def _series(
    history: History,
    metric: str,
    mended: dict[str, list[Repair]],
    alike: tuple[Finding, ...],
    newest: datetime,
    now: datetime,
) -> SeriesQuality:
    seen = [one for one in alike if one.series_id == history.series_id]
    seen += findings(history, metric, newest=newest, now=now)
    told: list[Finding] = []
    counts: dict[str, int] = {}
    for one in seen:
        counts[one.observation] = counts.get(one.observation, 0) + 1
        if counts[one.observation] <= MOST_TOLD:
            told.append(one)
    return SeriesQuality(
        series_id=history.series_id,
        start=history.start,
        end=history.end,
        steps=len(history.values),
        measured=int(np.count_nonzero(np.isfinite(history.values))),
        repairs=tuple(mended.get(history.series_id, ())),
        findings=tuple(told),
        more=len(seen) - len(told),
    )


def _only_repairs(series_id: str, repairs: list[Repair], moment: datetime) -> SeriesQuality:
    """A series of which no sample could be placed in time."""
    return SeriesQuality(
        series_id=series_id, start=moment, end=moment, steps=0, measured=0, repairs=tuple(repairs), findings=()
    )
