"""Google Cloud Monitoring: time series of one project by a filter, aligned to whole steps."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from pydantic import Field

from engine.errors import ProviderAnswerInvalid
from forecasting.connectors.base import (
    Batch,
    Get,
    Span,
    Wire,
    frame,
    in_halves,
    require_unique,
    series_id_of,
    spans,
    stop_paging,
    written,
)

MOST_STEPS = 10_000
_PAGE = 10_000
_MOST_PAGES = 200


class _Interval(Wire):
    end_time: str = Field(alias="endTime")


class _Value(Wire):
    double_value: float | int | str | None = Field(alias="doubleValue", default=None)
    """"NaN" and "Infinity" come as text."""
    int64_value: str | int | None = Field(alias="int64Value", default=None)

    def number(self) -> float | None:
        found = self.double_value if self.double_value is not None else self.int64_value
        return None if found is None else float(found)


class _Point(Wire):
    interval: _Interval
    value: _Value


class _Labelled(Wire):
    type: str
    labels: dict[str, str] = Field(default_factory=dict)


class _TimeSeries(Wire):
    metric: _Labelled
    resource: _Labelled
    points: tuple[_Point, ...] = ()


class _Page(Wire):
    time_series: tuple[_TimeSeries, ...] = Field(alias="timeSeries", default=())
    next_page_token: str = Field(alias="nextPageToken", default="")


class GoogleMonitoringConnector:
    """``labels`` (of the metric or the resource) make the series id, joined by ``/``; without them all labels do.

    A point whose alignment period ends at t stands for the step that ends at t.
    """

    def __init__(
        self,
        get: Get,
        *,
        name: str,
        project: str,
        filter: str,
        aligner: str = "ALIGN_MEAN",
        step: timedelta,
        back: timedelta,
        labels: Sequence[str] = (),
    ) -> None:
        self._get, self._name, self._project, self._filter = get, name, project, filter
        self._aligner, self._step, self._back, self._labels = aligner, step, back, tuple(labels)

    def batches(self, cursor: str | None, until: datetime) -> Iterator[Batch]:
        for span in spans(cursor, until, step=self._step, back=self._back, most_steps=MOST_STEPS):
            for part, found in in_halves(span, self._step, self._by_series):
                ids = [self._id(pieces[0]) for pieces in found]
                require_unique(ids, source=self._name, remedy="name more labels in series_labels, or narrow the filter")
                rows = [self._rows(series_id, pieces) for series_id, pieces in zip(ids, found, strict=True)]
                yield Batch(frame(rows), written(part.end))

    def _by_series(self, span: Span) -> list[list[_TimeSeries]]:
        """A page may end within a series."""
        found: dict[tuple[tuple[str, str], ...], list[_TimeSeries]] = {}
        for one in self._series(span):
            found.setdefault(_key(one), []).append(one)
        return list(found.values())

    def _series(self, span: Span) -> Iterator[_TimeSeries]:
        params: dict[str, str | int] = {
            "filter": self._filter,
            "interval.startTime": written(span.start),
            "interval.endTime": written(span.end),
            "aggregation.alignmentPeriod": f"{self._step.total_seconds():g}s",
            "aggregation.perSeriesAligner": self._aligner,
            "pageSize": _PAGE,
        }
        for _ in range(_MOST_PAGES):
            page = self._get(_Page, f"/v3/projects/{self._project}/timeSeries", params)
            yield from page.time_series
            if not page.next_page_token:
                return
            if page.next_page_token == params.get("pageToken"):  # less of it would have no end either
                raise ProviderAnswerInvalid(f"{self._name}: the answer names one page as the next of itself")
            params["pageToken"] = page.next_page_token
        raise stop_paging(self._name)

    def _rows(self, series_id: str, parts: Sequence[_TimeSeries]) -> tuple[str, list[datetime], list[float]]:
        try:
            points = [(point.interval.end_time, point.value.number()) for part in parts for point in part.points]
            times = [datetime.fromisoformat(end) - self._step for end, value in points if value is not None]
        except ValueError as problem:
            raise ProviderAnswerInvalid(f"{self._name}: a point lacks a time or a number", why=str(problem)) from None
        return series_id, times, [value for _, value in points if value is not None]

    def _id(self, series: _TimeSeries) -> str:
        labels = {**series.resource.labels, **series.metric.labels}
        return series_id_of(self._labels, labels, hidden="project_id", otherwise=series.metric.type)


def _key(series: _TimeSeries) -> tuple[tuple[str, str], ...]:
    metric = [("metric", series.metric.type), *sorted(series.metric.labels.items())]
    return (*metric, ("resource", series.resource.type), *sorted(series.resource.labels.items()))
