"""The recipe on made-up traces: the files' shape, what is kept out, and what comes of it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from forecasting.registry import ModelRegistry
from forecasting.splits import held_out
from forecasting.synthetic import synthetic_history
from forecasting.traces import Trace
from forecasting.train import HOURLY_RECIPE, RARE, Recipe, train, training_set


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Eight virtual machines and one request count, five weeks hourly."""
    (tmp_path / "traces").mkdir()
    for file, names, metric in (("vms", [f"vm-{i}" for i in range(8)], "cpu_cores"), ("web", ["web"], "requests")):
        parts = []
        for seed, name in enumerate(names):
            history = synthetic_history(seed=seed, days=35)
            times = pd.date_range(history.start, periods=len(history.values), freq="h")
            parts.append(pd.DataFrame({"series_id": name, "timestamp": times, metric: history.values}))
        pd.concat(parts).to_parquet(tmp_path / "traces" / f"{file}.parquet")
    return tmp_path


@pytest.fixture
def recipe() -> Recipe:
    traces = (Trace("bitbrains", "vms.parquet", "cpu_cores"), Trace("web", "web.parquet", "requests", adds_up=True))
    return replace(HOURLY_RECIPE, traces=traces, varied=3, varied_days=30, steps=3)


def test_held_out_series_and_the_end_of_all_others_stay_out(data: Path, recipe: Recipe) -> None:
    histories, shares = training_set(recipe, data, frozenset(), seed=0)
    taken = [h for h in histories if not h.series_id.startswith("varied")]
    assert {h.series_id for h in taken} == {
        name for name in [*(f"vm-{i}:cpu_cores" for i in range(8)), "web:requests"] if not held_out(name)
    }
    assert all(len(h.values) == int(0.8 * 35 * 24) for h in taken)
    assert len(shares) == len(histories)
    assert set(shares[: len(taken)]) <= {1.0, RARE}
    assert np.isclose(shares[len(taken) :].sum(), 0.5 * shares[: len(taken)].sum())


def test_a_source_can_be_left_out(data: Path, recipe: Recipe) -> None:
    histories, _ = training_set(recipe, data, frozenset({"bitbrains"}), seed=0)
    assert not any(h.series_id.startswith("vm-") for h in histories)


def test_what_comes_of_it_is_a_network_that_knows_no_series_by_name(data: Path, recipe: Recipe, tmp_path: Path) -> None:
    card = train(recipe, data, tmp_path / "out", budget=60, seed=0, left_out=frozenset())
    found = ModelRegistry(tmp_path / "out").find(recipe.name)
    assert found is not None
    assert card.report.steps == 3
    assert card.calibration_spreads == {}
    assert found.forecast([synthetic_history(seed=1, days=20)], 24)[0].horizon == 24
