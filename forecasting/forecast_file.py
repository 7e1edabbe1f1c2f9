"""Forecasts out: Parquet, long, ``series_id, timestamp, quantile, value``."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.model.value import Utc, Value
from engine.output_file import drafted
from forecasting.base import Array, Forecast

SCHEMA = pa.schema(
    [
        ("series_id", pa.string()),
        ("timestamp", pa.timestamp("us", tz="UTC")),
        ("quantile", pa.float64()),
        ("value", pa.float64()),
    ]
)


class QuantilePoint(Value):
    """One row of the file; ``timestamp`` is where the step starts, ``value`` in the metric's units."""

    series_id: str
    timestamp: Utc
    quantile: float
    value: float


def quantile_points(forecasts: Sequence[Forecast], quantiles: Sequence[float]) -> Iterator[QuantilePoint]:
    """Every series, step and quantile, in that order."""
    for forecast in forecasts:
        values = _by_quantile(forecast, quantiles)
        for step in range(forecast.horizon):
            moment = forecast.start + step * forecast.freq
            for q, row in zip(sorted(quantiles), values, strict=True):
                yield QuantilePoint(series_id=forecast.series_id, timestamp=moment, quantile=q, value=float(row[step]))


def write_forecasts(path: Path, forecasts: Sequence[Forecast], quantiles: Sequence[float]) -> int:
    """Write the file whole or not at all; returns its number of rows. UsageError when its folder does not exist."""
    table = pa.concat_tables([_table(forecast, quantiles) for forecast in forecasts])
    with drafted(path) as draft:
        pq.write_table(table, draft, compression="zstd")
    return int(table.num_rows)


def _by_quantile(forecast: Forecast, quantiles: Sequence[float]) -> Array:
    """(quantiles in rising order, horizon); never crossing, whatever the forecast does."""
    values = np.stack([forecast.quantile(q) for q in sorted(quantiles)])
    return np.asarray(np.maximum.accumulate(values, axis=0), dtype=np.float64)


def _table(forecast: Forecast, quantiles: Sequence[float]) -> pa.Table:
    values = _by_quantile(forecast, quantiles)
    moments = [forecast.start + step * forecast.freq for step in range(forecast.horizon)]
    columns = [
        [forecast.series_id] * values.size,
        [moment for moment in moments for _ in quantiles],
        sorted(quantiles) * forecast.horizon,
        values.T.ravel(),
    ]
    return pa.table([pa.array(column, type=field.type) for column, field in zip(columns, SCHEMA, strict=True)], SCHEMA)
