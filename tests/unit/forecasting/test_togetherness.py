import numpy as np
import pytest

from forecasting.base import History
from forecasting.champion import chosen
from forecasting.network import Network
from forecasting.pretrained import pretrained
from forecasting.synthetic import red_noise, synthetic_history, true_mean
from forecasting.togetherness import arranged, togetherness
from tests.contract.forecaster_contract import HOUR


def test_shared_errors_are_seen_and_own_ones_are_not() -> None:
    rng = np.random.default_rng(1)
    moments = np.repeat(np.arange(200), 3)
    shared = np.repeat(rng.standard_normal(200), 3)
    own = rng.standard_normal(600)
    assert togetherness(shared, moments) == pytest.approx(0.95, abs=0.03)
    assert togetherness(0.7**0.5 * shared + 0.3**0.5 * own, moments) == pytest.approx(0.7, abs=0.1)
    assert togetherness(own, moments) < 0.1


def test_where_nothing_can_be_seen_there_is_none() -> None:
    assert togetherness(np.array([1.0, 2.0]), np.array([1, 2])) == 0.0
    assert togetherness(np.full(4, np.nan), np.zeros(4, dtype=np.int64)) == 0.0
    assert togetherness(np.ones(4), np.zeros(4, dtype=np.int64)) == 0.0


@pytest.mark.parametrize("together", [0.0, 0.5, 0.9])
def test_paths_keep_their_values_and_move_together_as_much_as_asked(together: float) -> None:
    rng = np.random.default_rng(2)
    first, second = rng.normal(0, 1, (2000, 1)) + np.zeros((1, 4)), rng.normal(5, 3, (2000, 1)) + np.zeros((1, 4))
    made = [arranged(paths, together, common_seed=0, own_seed=seed) for seed, paths in ((1, first), (2, second))]
    assert np.array_equal(np.sort(made[0], axis=0), np.sort(first, axis=0))
    assert np.corrcoef(made[0].mean(axis=1), made[1].mean(axis=1))[0, 1] == pytest.approx(together, abs=0.06)


@pytest.mark.parametrize(("shared", "low", "high"), [(True, 0.3, 1.0), (False, -0.25, 0.25)])
def test_pools_whose_surprises_come_together_get_paths_that_do(shared: bool, low: float, high: float) -> None:
    base = synthetic_history(seed=1, days=42)
    mean = true_mean(base.start, HOUR, len(base.values), level=10.0)
    pools = [
        History(f"pool-{i}", base.start, HOUR, mean * (1 + 0.15 * red_noise(len(mean), 5 if shared else 50 + i, 0.95)))
        for i in range(4)
    ]
    shipped = pretrained(HOUR, 24)
    assert shipped is not None
    field = chosen(Network(shipped, loaded=True, origin="shipped"), pools, 24)
    totals = [made.sample_paths(400).mean(axis=1) for made in field.forecast(pools, 24)]
    assert low <= np.corrcoef(totals)[0, 1] <= high
