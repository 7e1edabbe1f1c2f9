import numpy as np
import pytest
from scipy.special import ndtr

from engine.errors import UsageError
from forecasting.base import History, until
from forecasting.baselines.seasonal_naive import SeasonalNaive
from forecasting.losses import geometric_mean, quantile_loss
from forecasting.rnn.trained import TrainedRnn
from forecasting.synthetic import red_noise, synthetic_fleet, synthetic_history, true_mean


def test_it_beats_seasonal_naive_where_the_cycle_is_known(trained: TrainedRnn, fleet: list[History]) -> None:
    ratios = []
    for back in (48, 36, 24, 12):
        past = [History(h.series_id, h.start, h.freq, h.values[:-back]) for h in fleet]
        truth = [h.values[len(h.values) - back :][:12] for h in fleet]
        own = sum(quantile_loss(y, f) for y, f in zip(truth, trained.forecast(past, 12), strict=True))
        naive = sum(quantile_loss(y, SeasonalNaive().fit(h).predict(12)) for y, h in zip(truth, past, strict=True))
        ratios.append(own / naive)
    assert geometric_mean(ratios) < 0.95


def test_coverage_on_series_that_it_never_saw(trained: TrainedRnn) -> None:
    unseen = synthetic_fleet(40, seed=99, days=30)
    past = [History(h.series_id, h.start, h.freq, h.values[:-12]) for h in unseen]
    made = trained.forecast(past, 12)
    inside = [
        np.mean((h.values[-12:] >= f.quantile(0.1)) & (h.values[-12:] <= f.quantile(0.9)))
        for h, f in zip(unseen, made, strict=True)
    ]
    assert 0.7 < np.mean(inside) < 0.93


def test_its_quantiles_are_the_true_ones_where_those_are_known(trained: TrainedRnn) -> None:
    """Demand is mean x (1 + noise x e) with e normal and 0.7 correlated from step to step: so given the last e, the
    true distribution of every step ahead is known, and with it what share of it lies below each quantile."""
    levels, noise, level, memory = (0.1, 0.3, 0.5, 0.7, 0.9), 0.1, 20.0, 0.7
    steps = np.arange(1, 13)
    below: dict[float, list[float]] = {q: [] for q in levels}
    for seed in range(60):
        history = synthetic_history(seed=9000 + seed, series_id=f"known-{seed}", days=30, noise=noise, level=level)
        past = until(history, len(history.values) - 12)
        mean = true_mean(history.start, history.freq, len(history.values), level=level)
        last = red_noise(len(history.values), 9000 + seed)[-13]
        made = trained.forecast([past], 12)[0]
        for q in levels:
            e = (made.quantile(q) / mean[-12:] - 1) / noise
            below[q] += list(ndtr((e - last * memory**steps) / np.sqrt(1 - memory ** (2 * steps))))
    assert {q: round(float(np.mean(x)), 2) for q, x in below.items()} == pytest.approx({q: q for q in levels}, abs=0.08)


def test_a_longer_horizon_or_another_step_is_refused(trained: TrainedRnn, fleet: list[History]) -> None:
    with pytest.raises(UsageError, match="12 steps, not 13"):
        trained.forecast(fleet, 13)
    other = History("x", fleet[0].start, fleet[0].freq / 2, fleet[0].values)
    with pytest.raises(UsageError, match="'x' has steps"):
        trained.forecast([other], 12)


def test_a_shorter_horizon_is_the_beginning_of_the_same_forecast(trained: TrainedRnn, fleet: list[History]) -> None:
    short, full = (trained.forecast(fleet, horizon)[0].quantile(0.5) for horizon in (3, 12))
    assert np.allclose(short, full[:3], rtol=0.05)
