"""Prometheus (and what speaks its API: Thanos, Mimir, VictoriaMetrics): range queries in whole steps."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Literal

import pandas as pd
from pydantic import Field

from engine.errors import AnswerTooLarge, ProviderAnswerInvalid, ProviderError
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
    written,
)

MOST_STEPS = 10_000
"""Of one request; Prometheus refuses more than 11,000 points per series."""
_TOO_LARGE = ("too many samples", "maxsamples", "maximum resolution", "maxpoints", "number of chunks", "query length")
"""Parts of what Prometheus, VictoriaMetrics, Thanos and Mimir say of a query that is more than they answer at once."""


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
    """``query`` as one would graph it; a point at t stands for the step that ends at t, over which ``rate(…[step])``
    looks back.

    ``labels`` make the series id, joined by ``/``; without them all labels do, as ``name=value``.
    """

    def __init__(
        self, get: Get, *, name: str, query: str, step: timedelta, back: timedelta, labels: Sequence[str] = ()
    ) -> None:
        self._get, self._name, self._query = get, name, query
        self._step, self._back, self._labels = step, back, tuple(labels)

    def batches(self, cursor: str | None, until: datetime) -> Iterator[Batch]:
        for span in spans(cursor, until, step=self._step, back=self._back, most_steps=MOST_STEPS):
            for part, found in in_halves(span, self._step, self._ask):
                yield Batch(self._rows(found), written(part.end))

    def _ask(self, span: Span) -> tuple[_Series, ...]:
        params = {
            "query": self._query,
            "start": written(span.start + self._step),
            "end": written(span.end),  # both ends are part of the answer
            "step": f"{self._step.total_seconds():g}",
        }
        try:
            return self._get(_Answer, "/api/v1/query_range", params).data.result
        except ProviderError as problem:
            if any(sign in problem.why.lower() for sign in _TOO_LARGE):
                raise AnswerTooLarge(problem.what, why=problem.why) from problem
            raise

    def _rows(self, found: Sequence[_Series]) -> pd.DataFrame:
        ids = [self._id(one) for one in found]
        require_unique(ids, source=self._name, remedy="name more labels in series_labels, or sum by (…) in the query")
        back = self._step.total_seconds()
        try:
            series = [
                (series_id, [time - back for time, _ in one.values], [float(value) for _, value in one.values])
                for series_id, one in zip(ids, found, strict=True)
            ]
        except ValueError as problem:
            raise ProviderAnswerInvalid(f"{self._name}: a sample holds no number", why=str(problem)) from None
        return frame(series)

    def _id(self, series: _Series) -> str:
        named = series.metric.get("__name__") or self._name
        return series_id_of(self._labels, series.metric, hidden="__name__", otherwise=named)
