"""Amazon CloudWatch: one metric of a namespace, a series per set of dimensions."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

from pydantic import Field

from engine.errors import AuthenticationFailed, ProviderError, ProviderUnavailable
from forecasting.connectors.base import AskAws, Batch, Span, Wire, frame, require_unique, spans, stop_paging, written

MOST_QUERIES = 100
"""Of one request (the API takes 500)."""
MOST_POINTS = 100_000
"""Of one request (the API takes 100,800)."""
_MOST_PAGES = 200
_FAILED: Mapping[str, type[ProviderError] | type[AuthenticationFailed]] = {
    "InternalError": ProviderUnavailable,
    "Forbidden": AuthenticationFailed,
}
"""By the status of a single result; the request itself has succeeded."""


class _Dimension(Wire):
    name: str = Field(alias="Name")
    value: str = Field(alias="Value")


class _Metric(Wire):
    dimensions: tuple[_Dimension, ...] = Field(alias="Dimensions", default=(), strict=False)


class _Listed(Wire):
    metrics: tuple[_Metric, ...] = Field(alias="Metrics", strict=False)
    next_token: str = Field(alias="NextToken", default="")


class _Message(Wire):
    value: str = Field(alias="Value", default="")


class _Result(Wire):
    id: str = Field(alias="Id")
    status: str = Field(alias="StatusCode", default="Complete")
    messages: tuple[_Message, ...] = Field(alias="Messages", default=(), strict=False)
    timestamps: tuple[datetime, ...] = Field(alias="Timestamps", default=(), strict=False)
    values: tuple[float, ...] = Field(alias="Values", default=(), strict=False)


class _Results(Wire):
    results: tuple[_Result, ...] = Field(alias="MetricDataResults", strict=False)
    next_token: str = Field(alias="NextToken", default="")


P = TypeVar("P", _Listed, _Results)


class CloudWatchConnector:
    """The series id is the values of the dimensions, joined by ``/``. ``dimensions`` narrow the choice."""

    def __init__(
        self,
        ask: AskAws,
        *,
        name: str,
        region: str,
        namespace: str,
        metric_name: str,
        statistic: str = "Average",
        step: timedelta,
        back: timedelta,
        dimensions: Mapping[str, str] | None = None,
    ) -> None:
        self._ask, self._name, self._region = ask, name, region
        self._namespace, self._metric, self._statistic = namespace, metric_name, statistic
        self._step, self._back, self._dimensions = step, back, dict(dimensions or {})

    def batches(self, cursor: str | None, until: datetime) -> Iterator[Batch]:
        wanted = self._listed()
        most_steps = MOST_POINTS // MOST_QUERIES
        for span in spans(cursor, until, step=self._step, back=self._back, most_steps=most_steps):
            found = [one for part in _in_parts(wanted, MOST_QUERIES) for one in self._data(part, span)]
            yield Batch(frame(found), written(span.end))

    def _listed(self) -> list[_Metric]:
        filters = [{"Name": name, "Value": value} for name, value in self._dimensions.items()]
        arguments: dict[str, Any] = {"Namespace": self._namespace, "MetricName": self._metric, "Dimensions": filters}
        found = [one for page in self._pages(_Listed, "list_metrics", arguments) for one in page.metrics]
        remedy = "narrow the choice with dimensions"
        require_unique(map(_id, found), source=self._name, remedy=remedy)
        return found

    def _data(self, metrics: Sequence[_Metric], span: Span) -> Iterator[tuple[str, list[datetime], list[float]]]:
        queries = [
            {
                "Id": f"m{position}",
                "MetricStat": {
                    "Metric": {
                        "Namespace": self._namespace,
                        "MetricName": self._metric,
                        "Dimensions": [one.model_dump(by_alias=True) for one in metric.dimensions],
                    },
                    "Period": int(self._step.total_seconds()),
                    "Stat": self._statistic,
                },
            }
            for position, metric in enumerate(metrics)
        ]
        arguments: dict[str, Any] = {
            "MetricDataQueries": queries,
            "StartTime": span.start,
            "EndTime": span.end,
            "ScanBy": "TimestampAscending",
        }
        for page in self._pages(_Results, "get_metric_data", arguments):
            for result in page.results:
                series_id = _id(metrics[int(result.id.removeprefix("m"))])
                self._require_whole(series_id, result)
                yield series_id, list(result.timestamps), list(result.values)

    def _require_whole(self, series_id: str, result: _Result) -> None:
        """What is missing here would not be asked for again. "PartialData" goes on with the next page."""
        if result.status not in _FAILED:
            return
        why = "; ".join(message.value for message in result.messages) or result.status
        raise _FAILED[result.status](f"{self._name}: CloudWatch did not give {series_id!r}", why=why)

    def _pages(self, answer: type[P], operation: str, arguments: dict[str, Any]) -> Iterator[P]:
        following: dict[str, str] = {}
        for _ in range(_MOST_PAGES):
            page = self._ask(answer, "cloudwatch", self._region, operation, **arguments, **following)
            yield page
            if not page.next_token:
                return
            following = {"NextToken": page.next_token}
        raise stop_paging(self._name)


def _id(metric: _Metric) -> str:
    return "/".join(one.value for one in metric.dimensions) or "all"


def _in_parts(metrics: Sequence[_Metric], size: int) -> Iterator[Sequence[_Metric]]:
    for start in range(0, len(metrics), size):
        yield metrics[start : start + size]
