from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from engine.errors import UsageError
from forecasting.forecast_file import SCHEMA, quantile_points, write_forecasts
from forecasting.sample_forecast import SampleForecast

START, HOUR = datetime(2026, 3, 2, tzinfo=UTC), timedelta(hours=1)


def forecasts() -> list[SampleForecast]:
    rng = np.random.default_rng(1)
    return [SampleForecast(name, START, HOUR, rng.random((50, 3)), "by-hand") for name in ("a", "b")]


def test_every_point_is_there_and_quantiles_rise(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    assert write_forecasts(path, forecasts(), [0.9, 0.1, 0.5]) == 2 * 3 * 3
    table = pq.read_table(path)
    assert table.schema.equals(SCHEMA)
    frame = table.to_pandas()
    wide = frame.pivot(index=["series_id", "timestamp"], columns="quantile", values="value")
    assert wide.shape == (6, 3)
    assert (np.diff(wide.to_numpy(), axis=1) >= 0).all()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.parquet"]


def test_rows_say_the_same_as_points(tmp_path: Path) -> None:
    write_forecasts(tmp_path / "out.parquet", forecasts(), [0.1, 0.9])
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert rows == [point.model_dump() for point in quantile_points(forecasts(), [0.1, 0.9])]


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        write_forecasts(tmp_path / "absent" / "out.parquet", forecasts(), [0.5])
