from datetime import timedelta

import numpy as np
import pytest
import torch

from engine.errors import BadUsageData
from forecasting.base import History
from forecasting.rnn.windows import LAG_DAYS, Panel
from forecasting.synthetic import synthetic_history
from tests.contract.forecaster_contract import HOUR, START, hourly

NONE = np.zeros(1, dtype=np.int64)


def test_the_target_is_the_scaled_future() -> None:
    history = synthetic_history(seed=1, days=28)
    batch = Panel([history], context=24, horizon=24).gather(NONE, NONE + 400)
    back = batch.target.double().numpy() * batch.scale[:, None] + batch.loc[:, None]
    assert np.allclose(back[0], history.values[400:424], rtol=1e-5)


def test_nothing_of_the_future_reaches_the_inputs() -> None:
    history = synthetic_history(seed=1, days=28)
    changed = history.values.copy()
    changed[400:] *= 3
    before, after = (
        Panel([hourly(values / np.max(changed))], context=24, horizon=48).gather(NONE, NONE + 400)
        for values in (history.values, changed)
    )
    for name in ("encoder", "decoder", "anchors", "known"):
        assert torch.allclose(getattr(before, name).float(), getattr(after, name).float(), atol=1e-4), name


def test_lags_are_the_same_hour_of_the_days_before_and_masked_where_unknown() -> None:
    history = synthetic_history(seed=1, days=28, noise=0.0)
    batch = Panel([history], context=24, horizon=30).gather(NONE, NONE + 3 * 24)
    known = batch.known[0, :, :LAG_DAYS]
    assert known[0].tolist() == [True] * 3 + [False] * (LAG_DAYS - 3)
    assert known[24, 0].item() is False  # one day before step 24 is step 0: not yet known
    lag = batch.anchors[0, 0, 0].item() * batch.scale[0] + batch.loc[0]
    assert np.abs(batch.anchors.numpy()).max() < 20  # nothing is cut
    assert lag == pytest.approx(history.values[2 * 24], rel=1e-4)


@pytest.mark.parametrize("values", [np.zeros(200), np.full(200, np.nan), np.full(200, 1e12), np.full(200, 1e-12)])
def test_flat_and_empty_windows_stay_finite(values: np.ndarray) -> None:
    batch = Panel([hourly(values)], context=24, horizon=4).gather(NONE, NONE + 150)
    assert torch.isfinite(batch.encoder).all()
    assert torch.isfinite(batch.decoder).all()
    assert torch.isfinite(batch.anchors).all()
    assert (batch.scale > 0).all()


def test_series_of_very_different_size_do_not_disturb_each_other() -> None:
    small, large = hourly(np.sin(np.arange(400)) + 2), hourly((np.sin(np.arange(400)) + 2) * 1e12)
    panel = Panel([large, small], context=24, horizon=4)
    batch = panel.gather(np.array([0, 1]), np.array([300, 300]))
    assert torch.allclose(batch.encoder[0], batch.encoder[1], atol=1e-4)


def test_a_long_outage_keeps_the_last_known_level() -> None:
    values = np.concatenate([np.full(300, 1000.0), np.full(400, np.nan)])
    batch = Panel([hourly(values)], context=24, horizon=4).gather(NONE, NONE + 690)
    assert batch.loc[0] == pytest.approx(1000.0)


def test_mixed_steps_and_steps_that_do_not_divide_a_day_are_refused() -> None:
    with pytest.raises(BadUsageData, match="different steps"):
        Panel([hourly(np.ones(9)), History("b", START, HOUR / 2, np.ones(9))], context=2, horizon=1)
    with pytest.raises(BadUsageData, match="divide a day"):
        Panel([History("b", START, timedelta(minutes=7), np.ones(9))], context=2, horizon=1)
