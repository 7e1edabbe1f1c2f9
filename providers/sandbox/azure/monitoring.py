"""The sandbox's Azure Monitor: metrics of resources, written and read as with the real API.

Custom metrics are written to ``RESOURCE/metrics`` (the real host is regional) and read at
``RESOURCE/providers/Microsoft.Insights/metrics``. Unlike the real one it takes values of any age.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from providers.sandbox.azure.wire import ArmError, Body, Document, checked, id_key, timestamp

_AGGREGATIONS = ("average", "total", "maximum", "minimum", "count")
_INTERVALS: Mapping[str, timedelta] = {
    **{f"PT{m}M": timedelta(minutes=m) for m in (1, 5, 15, 30)},
    **{f"PT{h}H": timedelta(hours=h) for h in (1, 6, 12)},
    "P1D": timedelta(days=1),
}


class _Bundle(Body):
    min: float
    max: float
    sum: float
    count: int = Field(ge=1)


class _BaseData(Body):
    metric: str
    namespace: str
    series: list[_Bundle] = Field(min_length=1, max_length=1)


class _Data(Body):
    base_data: _BaseData


class _Written(Body):
    time: str
    data: _Data


@dataclass
class _Metric:
    name: str
    namespace: str
    values: list[tuple[datetime, _Bundle]]


class Monitoring:
    def __init__(self) -> None:
        self._metrics: dict[str, dict[str, _Metric]] = defaultdict(dict)

    def routes(self) -> list[Route]:
        return [
            Route("/{resource:path}/providers/Microsoft.Insights/metrics", self._list, methods=["GET"]),
            Route("/subscriptions/{resource:path}/metrics", self._write, methods=["POST"]),
        ]

    async def _write(self, request: Request) -> Response:
        try:
            document = await request.json()
        except ValueError:
            document = None
        body = checked(_Written, document)
        found = body.data.base_data
        resource = id_key(f"subscriptions/{request.path_params['resource']}")
        metric = self._metrics[resource].setdefault(found.metric.lower(), _Metric(found.metric, found.namespace, []))
        metric.values.append((_moment(body.time), found.series[0]))
        return Response(status_code=200)

    async def _list(self, request: Request) -> Response:
        resource, asked = request.path_params["resource"], request.query_params
        metrics = self._metrics.get(id_key(resource))
        if metrics is None:
            raise ArmError(404, "ResourceNotFound", f"The Resource '{resource}' was not found.")
        start, end = _timespan(asked.get("timespan", ""))
        step = _INTERVALS.get(asked.get("interval", "PT1M"))
        if step is None:
            raise ArmError(400, "BadRequest", f"Detected invalid time grain input: {asked['interval']}")
        wanted = [one.strip().lower() for one in asked.get("aggregation", "Average").split(",")]
        if not set(wanted) <= set(_AGGREGATIONS):
            raise ArmError(400, "BadRequest", f"Invalid aggregation {asked['aggregation']}")
        names = [name.strip() for name in asked.get("metricnames", "").split(",") if name.strip()]
        unknown = [name for name in names if name.lower() not in metrics]
        if unknown or not names:
            known = ",".join(metric.name for metric in metrics.values())
            raise ArmError(
                400, "BadRequest", f"Failed to find metric configuration for {unknown}. Valid metrics: {known}"
            )
        values = [_document(resource, metrics[name.lower()], start, end, step, wanted) for name in names]
        span = f"{timestamp(start)}/{timestamp(end)}"
        return JSONResponse({"cost": 0, "timespan": span, "interval": asked.get("interval", "PT1M"), "value": values})


def _document(
    resource: str, metric: _Metric, start: datetime, end: datetime, step: timedelta, wanted: list[str]
) -> Document:
    """Every step of the span; one without values has its time stamp alone."""
    places: dict[int, list[_Bundle]] = defaultdict(list)
    for at, bundle in metric.values:
        if start <= at < end:
            places[(at - start) // step].append(bundle)
    data = []
    for place in range(-((start - end) // step)):
        found = places.get(place, [])
        point: Document = {"timeStamp": timestamp(start + place * step)}
        if found:
            numbers = _aggregated(found)
            point |= {name: numbers[name] for name in wanted}
        data.append(point)
    path = f"/{resource.strip('/')}/providers/Microsoft.Insights/metrics/{metric.name}"
    return {
        "id": path,
        "type": "Microsoft.Insights/metrics",
        "name": {"value": metric.name, "localizedValue": metric.name},
        "unit": "Unspecified",
        "timeseries": [{"metadatavalues": [], "data": data}],
        "errorCode": "Success",
    }


def _aggregated(bundles: list[_Bundle]) -> dict[str, float]:
    total, count = sum(bundle.sum for bundle in bundles), sum(bundle.count for bundle in bundles)
    return {
        "average": total / count,
        "total": total,
        "count": count,
        "maximum": max(bundle.max for bundle in bundles),
        "minimum": min(bundle.min for bundle in bundles),
    }


def _timespan(text: str) -> tuple[datetime, datetime]:
    parts = re.fullmatch(r"([^/]+)/([^/]+)", text)
    if parts is None:
        raise ArmError(400, "BadRequest", f"Invalid timespan {text!r}: it is START/END")
    start, end = _moment(parts[1]), _moment(parts[2])
    if start >= end:
        raise ArmError(400, "BadRequest", "The timespan is empty.")
    return start, end


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ArmError(400, "BadRequest", f"{text!r} is not an ISO 8601 time.") from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
