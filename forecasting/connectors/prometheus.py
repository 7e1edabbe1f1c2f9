"""Prometheus (and what speaks its API: Thanos, Mimir, VictoriaMetrics): range queries in whole steps."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal

from pydantic import Field

from forecasting.connectors.base import Batch, Get, Span, Wire, frame, require_unique, spans, written

MOST_STEPS = 10_000
"""Of one request; Prometheus refuses more than 11,000 points per series."""


class _Series(Wire):
    metric: dict[str, str]
    values: tuple[tuple[float | int, str], ...]


class _Matrix(Wire):
    result_type: Literal["matrix"] = Field(alias="resultType")
    result: tuple[_Series, ...]


class _Answer(Wire):
    status: Literal["success"]
    data: _Matrix


class PrometheusConnector:
    """``query`` as one would graph it; a point at t stands for the step that begins at t.

    ``labels`` make the series id, joined by ``/``; without them all labels do, as ``name=value``.
    """

    def __init__(
        self, get: Get, *, name: str, query: str, step: timedelta, back: timedelta, labels: Sequence[str] = ()
    ) -> None:
        self._get, self._name, self._query = get, name, query
        self._step, self._back, self._labels = step, back, tuple(labels)

    def batches(self, cursor: str | None, until: datetime) -> Iterator[Batch]:
        for span in spans(cursor, until, step=self._step, back=self._back, most_steps=MOST_STEPS):
            found = self._ask(span)
            ids = [self._id(one.metric) for one in found]
            require_unique(
                ids, source=self._name, remedy="name more labels in series_labels, or sum by (…) in the query"
            )
            series = (
                (series_id, [time for time, _ in one.values], [float(value) for _, value in one.values])
                for series_id, one in zip(ids, found, strict=True)
            )
            yield Batch(frame(series), written(span.end))

    def _ask(self, span: Span) -> tuple[_Series, ...]:
        params = {
            "query": self._query,
            "start": written(span.start),
            "end": written(span.end - self._step),  # both ends are part of the answer
            "step": f"{self._step.total_seconds():g}",
        }
        return self._get(_Answer, "/api/v1/query_range", params).data.result

    def _id(self, labels: Mapping[str, str]) -> str:
        if self._labels:
            return "/".join(labels.get(name, "") for name in self._labels)
        named = [f"{name}={value}" for name, value in sorted(labels.items()) if name != "__name__"]
        return ",".join(named) or labels.get("__name__", "") or self._name
