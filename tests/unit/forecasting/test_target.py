from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from engine.errors import UsageError
from engine.model.capacity import Pool, Resources, RiskClass, ShardType
from engine.model.ids import PoolId
from forecasting.sample_forecast import SampleForecast
from forecasting.target import capacity_target, need_at, need_for, sentence, shards_for, telling_need

START, HOUR = datetime(2026, 3, 2, tzinfo=UTC), timedelta(hours=1)
POOL = Pool(
    id=PoolId("web"),
    shard_type=ShardType(name="cpu.small", resources=Resources(vcpus=2, memory_gib=4)),
    risk_class=RiskClass(name="gold", rank=0, quantile=0.9, max_shortfall=0.01),
)


def of(paths: object) -> SampleForecast:
    return SampleForecast("s", START, HOUR, np.asarray(paths, dtype=np.float64), "by-hand")


TEN = of([[10.0, 10.0 + 2 * i] for i in range(10)])
"""Ten futures: the second hour needs 5 … 14 shards of 2 units."""


def test_usage_becomes_whole_shards() -> None:
    assert shards_for(np.array([0.0, 0.1, 2.0, 2.0000000001, 2.1, -1.0]), 2.0).tolist() == [0, 1, 1, 1, 2, 0]
    with pytest.raises(UsageError):
        shards_for(np.array([1.0]), 0.0)


def test_the_target_covers_the_quantile_of_path_maxima() -> None:
    target = capacity_target(TEN, POOL, 2.0, 5, START, paths=10)
    peaks = sorted(max(path) for path in target.demand_paths)
    assert peaks == list(range(5, 15))
    assert target.desired == 13
    assert sum(peak <= target.desired for peak in peaks) / len(peaks) >= POOL.risk_class.quantile
    assert [step.start for step in target.steps] == [START, START + HOUR]
    assert (target.current, target.forecaster, target.made_at) == (5, "by-hand", START)


def test_quantiles_of_each_step_rise() -> None:
    for step in capacity_target(TEN, POOL, 2.0, 5, START).steps:
        shards = [count for _, count in step.shards_by_quantile]
        assert shards == sorted(shards)


def test_need_for_a_number_of_shards() -> None:
    assert need_for(TEN, 2.0, 5, 2 * HOUR, 2).probability == pytest.approx(0.8)
    assert need_for(TEN, 2.0, 5, HOUR, 1).probability == 0.0


def test_need_at_a_probability_is_the_most_that_reaches_it() -> None:
    need = need_at(TEN, 2.0, 5, 2 * HOUR, 0.75)
    assert (need.additional, need.probability) == (2, pytest.approx(0.8))
    assert need_at(TEN, 2.0, 50, 2 * HOUR, 0.5).additional == 0


def test_the_telling_need_is_nearest_to_four_in_five() -> None:
    assert telling_need(TEN, 2.0, 5, 2 * HOUR).additional == 2
    assert telling_need(TEN, 2.0, 500, 2 * HOUR).probability == 0.0


def test_the_telling_need_of_very_many_shards_is_found_at_once() -> None:
    many = of([[10.0**12 * (1 + i)] for i in range(10)])
    need = telling_need(many, 1.0, 0, HOUR)
    assert (need.additional, need.probability) == (2 * 10**12 + 1, 0.8)
    assert telling_need(of([[6.0], [6.0]]), 1.0, 1, HOUR).additional == 1  # the fewest of those that are as likely


def test_more_shards_than_an_integer_holds_stay_many() -> None:
    assert shards_for(np.array([1e300, np.inf]), 1e-6).min() > 10**18


def test_the_sentence() -> None:
    need = need_for(TEN, 2.0, 5, 2 * HOUR, 2)
    text = sentence(need.model_copy(update={"within": HOUR}), "cpu.small")
    assert text == "80 % probability of needing 2 more cpu.small shards within the next hour"
    one = need_for(TEN, 2.0, 5, 2 * HOUR, 1)
    assert sentence(one, "cpu.small") == "90 % probability of needing 1 more cpu.small shard within the next 2 hours"
    assert sentence(need_at(TEN, 2.0, 50, HOUR, 0.5), "x.y") == "no more x.y shards needed within the next hour"
    rare = need.model_copy(update={"probability": 0.004})
    assert sentence(rare, "x.y").startswith("under 1 %")


def test_a_window_beyond_the_forecast_is_refused() -> None:
    with pytest.raises(UsageError, match="reaches"):
        need_for(TEN, 2.0, 5, 3 * HOUR, 1)
