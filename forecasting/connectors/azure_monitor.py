"""Azure Monitor: one metric of some resources, in whole steps."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from urllib.parse import quote

from pydantic import Field

from engine.errors import ConfigurationError, ProviderAnswerInvalid
from forecasting.connectors.base import Batch, Get, Span, Wire, frame, require_unique, spans, written

API_VERSION = "2023-10-01"
MOST_STEPS = 1440
AGGREGATIONS = ("Average", "Total", "Maximum", "Minimum", "Count")
_INTERVALS = {1: "PT1M", 5: "PT5M", 15: "PT15M", 30: "PT30M", 60: "PT1H", 360: "PT6H", 720: "PT12H", 1440: "P1D"}
"""Steps that the API knows, by minutes."""


class _Point(Wire):
    time_stamp: str = Field(alias="timeStamp")
    average: float | int | None = None
    total: float | int | None = None
    maximum: float | int | None = None
    minimum: float | int | None = None
    count: float | int | None = None


class _Series(Wire):
    data: tuple[_Point, ...] = ()


class _Metric(Wire):
    timeseries: tuple[_Series, ...] = ()


class _Answer(Wire):
    value: tuple[_Metric, ...]


class AzureMonitorConnector:
    """The series id is the resource's name. Raises ConfigurationError for a step or statistic that the API lacks."""

    def __init__(
        self,
        get: Get,
        *,
        name: str,
        resources: Sequence[str],
        metric_name: str,
        namespace: str | None = None,
        aggregation: str = "Average",
        step: timedelta,
        back: timedelta,
    ) -> None:
        minutes = step / timedelta(minutes=1)
        if minutes not in _INTERVALS:
            known = ", ".join(f"{m} min" for m in _INTERVALS)
            raise ConfigurationError(f"{name}: Azure Monitor has no step of {step}", why=f"it has {known}")
        if aggregation.lower() not in map(str.lower, AGGREGATIONS):
            known = ", ".join(AGGREGATIONS)
            raise ConfigurationError(f"{name}: Azure Monitor has no statistic {aggregation!r}", why=f"it has {known}")
        self._get, self._name, self._resources = get, name, tuple(resources)
        self._metric, self._namespace, self._aggregation = metric_name, namespace, aggregation
        self._step, self._back, self._interval = step, back, _INTERVALS[int(minutes)]
        require_unique(
            map(_id, resources), source=name, remedy="use a source of its own for resources of the same name"
        )

    def batches(self, cursor: str | None, until: datetime) -> Iterator[Batch]:
        for span in spans(cursor, until, step=self._step, back=self._back, most_steps=MOST_STEPS):
            rows = [(_id(resource), *self._points(resource, span)) for resource in self._resources]
            yield Batch(frame(rows), written(span.end))

    def _points(self, resource: str, span: Span) -> tuple[list[datetime], list[float]]:
        params = {
            "api-version": API_VERSION,
            "metricnames": self._metric,
            "timespan": f"{written(span.start)}/{written(span.end)}",
            "interval": self._interval,
            "aggregation": self._aggregation,
            **({"metricnamespace": self._namespace} if self._namespace else {}),
        }
        path = f"/{quote(resource.strip('/'))}/providers/Microsoft.Insights/metrics"
        answer = self._get(_Answer, path, params)
        points = [point for metric in answer.value for series in metric.timeseries for point in series.data]
        measured = [(point.time_stamp, getattr(point, self._aggregation.lower())) for point in points]
        try:
            times = [datetime.fromisoformat(time) for time, value in measured if value is not None]
        except ValueError as problem:
            raise ProviderAnswerInvalid(f"{self._name}: a point has no time", why=str(problem)) from None
        return times, [float(value) for _, value in measured if value is not None]


def _id(resource: str) -> str:
    return resource.rstrip("/").rpartition("/")[2]
