from datetime import timedelta

import numpy as np
import pytest

from engine.clock import ManualClock
from forecasting.base import History
from forecasting.comparison import side_by_side, training_part
from forecasting.pretrained import pretrained
from forecasting.rnn.train import TrainingPlan
from forecasting.rnn.trained import TrainedRnn, train_rnn
from tests.contract.forecaster_contract import hourly


def test_networks_are_ranked_on_an_end_that_training_does_not_see(
    fleet: list[History], trained: TrainedRnn, plan: TrainingPlan, still: ManualClock
) -> None:
    few = fleet[:4]
    parts = [training_part(history, 12) for history in few]
    assert all(len(part.values) == len(whole.values) - 126 for part, whole in zip(parts, few, strict=True))
    poor = train_rnn(parts, plan.model_copy(update={"steps": 1}), clock=still)
    shipped = pretrained(timedelta(hours=1), 12)
    assert shipped is not None
    found = side_by_side([shipped, trained, poor, shipped], few, 12)
    assert (found.series, found.origins) == (4, 48)
    assert found.ratios[0] == found.ratios[3]
    assert found.ratios[0] < found.ratios[2]
    assert found.ratios[1] < found.ratios[2]
    assert 0.1 < found.ratios[0] < 1.1


@pytest.mark.parametrize("values", [np.arange(5.0), np.zeros(500), np.full(500, np.nan)], ids=["short", "zero", "none"])
def test_without_anything_to_lose_there_is_nothing_to_compare(
    values: "np.ndarray[tuple[int], np.dtype[np.float64]]", trained: TrainedRnn
) -> None:
    found = side_by_side([trained], [hourly(values)], 12)
    assert (found.series, found.origins) == (0, 0)
