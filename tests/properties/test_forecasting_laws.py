"""What holds for every forecast, whatever the numbers."""

from datetime import UTC, datetime, timedelta

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from engine.model.capacity import Pool, Resources, RiskClass, ShardType
from engine.model.ids import PoolId
from forecasting.baselines.last_value import LastValue
from forecasting.sample_forecast import SampleForecast
from forecasting.target import capacity_target, need_at, need_for
from tests.contract.forecaster_contract import hourly

START, HOUR = datetime(2026, 3, 2, tzinfo=UTC), timedelta(hours=1)
AMOUNT = st.floats(0, 1e6, allow_subnormal=False)
PATHS = arrays(np.float64, st.tuples(st.integers(1, 30), st.integers(1, 6)), elements=AMOUNT)


def of(paths: np.ndarray) -> SampleForecast:
    return SampleForecast("s", START, HOUR, paths, "by-hand")


@given(PATHS, st.lists(st.floats(0, 1), min_size=2, max_size=6))
def test_quantiles_are_monotone_and_within_the_samples(paths: np.ndarray, levels: list[float]) -> None:
    rows = np.stack([of(paths).quantile(q) for q in sorted(levels)])
    assert (np.diff(rows, axis=0) >= 0).all()
    assert (rows >= paths.min(axis=0)).all()
    assert (rows <= paths.max(axis=0)).all()


@given(PATHS, st.integers(1, 80))
def test_sampled_paths_are_whole_paths(paths: np.ndarray, count: int) -> None:
    held = {tuple(row) for row in paths}
    drawn = of(paths).sample_paths(count)
    assert drawn.shape == (count, paths.shape[1])
    assert all(tuple(row) in held for row in drawn)


@given(PATHS, st.floats(0.5, 1e5), st.integers(0, 20), st.floats(0.05, 0.95))
def test_the_most_that_reaches_a_probability_does_reach_it(
    paths: np.ndarray, per_shard: float, current: int, probability: float
) -> None:
    within = paths.shape[1] * HOUR
    need = need_at(of(paths), per_shard, current, within, probability)
    assert need.additional == 0 or need.probability >= probability - 1e-9
    one_more = need_for(of(paths), per_shard, current, within, need.additional + 1)
    assert one_more.probability < probability + 2 / 1000 + 1e-9


@given(PATHS, st.floats(0.5, 1e5), st.floats(0.05, 0.99))
def test_desired_shards_cover_the_risk_class(paths: np.ndarray, per_shard: float, quantile: float) -> None:
    pool = Pool(
        id=PoolId("p"),
        shard_type=ShardType(name="cpu.small", resources=Resources(vcpus=1, memory_gib=1)),
        risk_class=RiskClass(name="r", rank=0, quantile=quantile, max_shortfall=0.1),
    )
    target = capacity_target(of(paths), pool, per_shard, 0, START, paths=50)
    covered = np.mean([max(path) <= target.desired for path in target.demand_paths])
    assert covered >= quantile - 1e-9
    assert all(path[i] * per_shard >= 0 for path in target.demand_paths for i in range(len(path)))


@given(arrays(np.float64, st.integers(1, 60), elements=st.one_of(AMOUNT, st.just(np.nan))), st.integers(1, 10))
def test_last_value_serves_whatever_was_measured(values: np.ndarray, horizon: int) -> None:
    if not np.isfinite(values).any():
        return
    made = LastValue().fit(hourly(values)).predict(horizon)
    assert made.sample_paths(5).shape == (5, horizon)
    assert made.quantile(0.01).min() >= 0
