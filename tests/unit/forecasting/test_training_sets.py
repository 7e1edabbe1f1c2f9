from pathlib import Path

import numpy as np
import pytest

from engine.errors import BadUsageData
from forecasting.base import History
from forecasting.registry import usage_fingerprint
from forecasting.training_sets import TrainingSets
from tests.contract.forecaster_contract import hourly


def test_what_is_put_aside_comes_back_value_for_value(tmp_path: Path, fleet: list[History]) -> None:
    sets = TrainingSets(tmp_path / "sets")
    histories = [*fleet[:2], hourly(np.array([1.0, np.nan, 1e-12]), "gaps")]
    sets.save("k", "cpu_cores", histories)
    found = sets.load("k")
    assert found.metric == "cpu_cores"
    assert usage_fingerprint(found.histories, "m") == usage_fingerprint(histories, "m")
    assert [h.synthetic for h in found.histories] == [True, True, False]
    sets.drop("k")
    sets.drop("k")
    with pytest.raises(BadUsageData, match="cannot be read"):
        sets.load("k")


def test_a_damaged_one_is_refused(tmp_path: Path) -> None:
    sets = TrainingSets(tmp_path)
    sets.save("k", "cpu_cores", [hourly(np.arange(30.0))])
    path = tmp_path / "k.npz"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(BadUsageData, match="cannot be read"):
        sets.load("k")
