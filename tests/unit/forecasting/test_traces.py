from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from engine.errors import BadUsageData
from forecasting.splits import held_out
from forecasting.traces import FOLDS, HOUR, HOURLY, Trace, judged_from, training_part
from tests.contract.forecaster_contract import hourly


def test_neither_held_out_series_nor_the_end_of_others_is_trained_on() -> None:
    given = [hourly(np.arange(100.0), f"vm-{i}:cpu_cores") for i in range(50)]
    kept = training_part(given)
    assert not any(held_out(history.series_id) for history in kept)
    assert all(len(history.values) == 80 == judged_from(given[0]) for history in kept)


def test_every_source_but_the_business_vms_is_left_out_once() -> None:
    sources = {trace.source for trace in HOURLY}
    assert FOLDS[0] | FOLDS[1] == sources - {"bitbrains"}
    assert not FOLDS[0] & FOLDS[1]


def test_hours_less_than_half_measured_are_gaps(tmp_path: Path) -> None:
    times = pd.date_range("2026-01-05", periods=36, freq="5min", tz="UTC")
    table = pd.DataFrame({"series_id": "a", "timestamp": times, "requests": 2.0})
    table.loc[12:20, "requests"] = np.nan  # the second hour keeps 3 of 12
    (tmp_path / "traces").mkdir()
    table.to_parquet(tmp_path / "traces" / "made.parquet")
    (history,) = Trace("made", "made.parquet", "requests", adds_up=True).histories(tmp_path, HOUR)
    assert (history.series_id, history.start) == ("a:requests", datetime(2026, 1, 5, tzinfo=UTC))
    assert np.array_equal(history.values, [24.0, np.nan, 24.0], equal_nan=True)


def test_an_absent_trace_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadUsageData, match=r"no trace .*absent"):
        Trace("s", "absent.parquet", "requests").histories(tmp_path, HOUR)
