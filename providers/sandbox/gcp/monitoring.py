"""The sandbox's Cloud Monitoring: time series that are written and read as with the real API (v3, JSON).

Unlike the real one it takes points of any age, so that a history can be written at once.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import ceil
from statistics import fmean

from pydantic import AwareDatetime, Field, TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from providers.sandbox.gcp.wire import Body, Document, GoogleError, checked, matches, timestamp

_MOST_SERIES = 200
_MOMENT: TypeAdapter[datetime] = TypeAdapter(AwareDatetime)
_ALIGNERS: Mapping[str, Callable[[Sequence[float]], float]] = {
    "ALIGN_MEAN": fmean,
    "ALIGN_SUM": sum,
    "ALIGN_MAX": max,
    "ALIGN_MIN": min,
    "ALIGN_COUNT": len,
}


class _Labelled(Body):
    type: str
    labels: dict[str, str] = Field(default_factory=dict)


class _Interval(Body):
    end_time: str


class _Value(Body):
    double_value: float | None = None
    int64_value: str | None = None


class _Point(Body):
    interval: _Interval
    value: _Value


class _TimeSeries(Body):
    metric: _Labelled
    resource: _Labelled
    points: list[_Point] = Field(min_length=1, max_length=1)


class _Written(Body):
    time_series: list[_TimeSeries] = Field(min_length=1, max_length=_MOST_SERIES)


@dataclass
class _Kept:
    document: Document
    """metric and resource, as a filter sees them."""
    points: list[tuple[datetime, float]] = field(default_factory=list)
    """In the order of time."""


class Monitoring:
    def __init__(self, project: str) -> None:
        self._project = project
        self._kept: dict[str, _Kept] = {}

    def routes(self) -> list[Route]:
        path = "/v3/projects/{project}/timeSeries"
        return [Route(path, self._create, methods=["POST"]), Route(path, self._list, methods=["GET"])]

    async def _create(self, request: Request) -> Response:
        self._require_project(request)
        for one in checked(_Written, await _json(request)).time_series:
            document = {
                "metric": {"type": one.metric.type, "labels": one.metric.labels},
                "resource": {"type": one.resource.type, "labels": one.resource.labels},
            }
            kept = self._kept.setdefault(str(document), _Kept(document))
            end, value = _moment(one.points[0].interval.end_time, "endTime"), one.points[0].value
            if kept.points and end <= kept.points[-1][0]:
                raise GoogleError(400, "One or more points were written more out of order than is allowed.")
            number = value.double_value if value.double_value is not None else value.int64_value
            if number is None:
                raise GoogleError(400, "Field timeSeries[0].points[0].value had an invalid value: it is empty")
            kept.points.append((end, float(number)))
        return JSONResponse({})

    async def _list(self, request: Request) -> Response:
        self._require_project(request)
        asked = request.query_params
        expression = asked.get("filter", "")
        if "metric.type" not in expression:
            raise GoogleError(400, "Field filter had an invalid value: must specify a metric.type")
        end = _moment(asked.get("interval.endTime", ""), "interval.endTime")
        start = _moment(asked.get("interval.startTime", timestamp(end)), "interval.startTime")
        period, aligner = asked.get("aggregation.alignmentPeriod"), asked.get("aggregation.perSeriesAligner")
        points = [
            (kept.document, point)
            for kept in self._kept.values()
            if matches(kept.document, expression)
            for point in _aligned([one for one in kept.points if start < one[0] <= end], end, period, aligner)
        ]
        size, first = int(asked.get("pageSize") or 100_000), int(asked.get("pageToken") or 0)
        following = str(first + size) if first + size < len(points) else ""
        return JSONResponse({"timeSeries": _grouped(points[first : first + size]), "nextPageToken": following})

    def _require_project(self, request: Request) -> None:
        if request.path_params["project"] != self._project:
            raise GoogleError(404, f"Requested entity was not found: {request.path_params['project']}")


_Placed = tuple[datetime, datetime, float]
"""Start and end of the alignment period, and its value."""


def _aligned(
    points: Sequence[tuple[datetime, float]], end: datetime, period: str | None, aligner: str | None
) -> list[_Placed]:
    """Newest first; periods end at ``end`` and whole periods before it."""
    if aligner in (None, "ALIGN_NONE"):
        return [(at, at, value) for at, value in reversed(points)]
    seconds = re.fullmatch(r"(\d+)s", period or "")
    if seconds is None or int(seconds[1]) < 60:
        raise GoogleError(400, "Field aggregation.alignmentPeriod had an invalid value: must be at least 60 seconds")
    if aligner not in _ALIGNERS:
        raise GoogleError(400, f"Field aggregation.perSeriesAligner had an invalid value: {aligner}")
    step = timedelta(seconds=int(seconds[1]))
    periods: dict[int, list[float]] = {}
    for at, value in points:
        periods.setdefault(ceil((at - end) / step), []).append(value)
    return [
        (end + (place - 1) * step, end + place * step, float(_ALIGNERS[aligner](values)))
        for place, values in sorted(periods.items(), reverse=True)
    ]


def _grouped(points: Sequence[tuple[Document, _Placed]]) -> list[Document]:
    """A page may end within a series."""
    found: list[Document] = []
    for document, (start, end, value) in points:
        if not found or found[-1]["metric"] != document["metric"] or found[-1]["resource"] != document["resource"]:
            found.append({**document, "metricKind": "GAUGE", "valueType": "DOUBLE", "points": []})
        interval = {"startTime": timestamp(start), "endTime": timestamp(end)}
        found[-1]["points"].append({"interval": interval, "value": {"doubleValue": value}})
    return found


async def _json(request: Request) -> Document:
    try:
        found = await request.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise GoogleError(400, "Invalid JSON payload received.")
    return found


def _moment(text: str, name: str) -> datetime:
    try:
        return _MOMENT.validate_python(text)
    except ValidationError:
        raise GoogleError(400, f"Field {name} had an invalid value: {text!r} is not a RFC 3339 timestamp") from None
