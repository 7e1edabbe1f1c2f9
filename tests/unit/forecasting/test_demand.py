from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from engine.clock import ManualClock
from engine.errors import BadUsageData, ProviderUnavailable
from engine.model.capacity import Placement, Pool, Resources, RiskClass, ShardType
from engine.model.ids import PoolId
from forecasting.connectors.base import Batch, frame
from forecasting.connectors.sources import Source, Sources
from forecasting.demand import PoolSource, UsageDemand
from forecasting.lateness import Lead
from forecasting.promotions import Promotions
from forecasting.registry import NEWEST_KEPT
from forecasting.rnn.trained import TrainedRnn
from tests.retraining_cases import record

HOUR = timedelta(hours=1)
NOW = datetime(2026, 3, 10, tzinfo=UTC)
POOL = Pool(
    id=PoolId("web"),
    shard_type=ShardType(name="cpu.small", resources=Resources(vcpus=1, memory_gib=2)),
    risk_class=RiskClass(name="gold", rank=0, quantile=0.95, max_shortfall=0.01),
    placement=Placement(),
)


class Once:
    """Four days until ``NOW``, and afterwards nothing but failures."""

    def batches(self, cursor: str | None, until: datetime) -> Iterator[Batch]:
        if cursor is not None:
            raise ProviderUnavailable("prom is down", why="no answer in 10 s")
        values = 10 + 5 * np.sin(np.arange(96) * 2 * np.pi / 24)
        yield Batch(frame([("api", [NOW + (hour - 96) * HOUR for hour in range(96)], values.tolist())]), "there")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


def demand(folder: Path, clock: ManualClock, connected: Sources | None) -> UsageDemand:
    return UsageDemand(
        [PoolSource(pool=POOL)],
        usage=None,
        metric=None,
        connected=connected,
        horizon=3,
        budget_seconds=0.1,
        paths=20,
        seed=1,
        registry=folder / "models",
        clock=clock,
    )


def test_a_round_goes_on_with_the_last_good_history_and_says_how_old_it_is(tmp_path: Path, clock: ManualClock) -> None:
    connected = Sources([Source("prom", Once(), "1")], tmp_path / "usage")
    fresh = demand(tmp_path, clock, connected).demand()
    assert (fresh.pools[0].series_id, fresh.pools[0].history, fresh.usage.sources[0].failure) == ("api", "", "")
    assert fresh.pools[0].target.history_end == NOW
    clock.advance(5 * HOUR)
    stale = demand(tmp_path, clock, connected).demand()
    assert stale.usage.sources[0].failure == "prom is down (no answer in 10 s)"
    assert stale.pools[0].target.history_age == 5 * HOUR
    assert stale.pools[0].history == "its history ends 5 hours before the forecast was made"
    assert stale.pools[0].target.steps[0].start == clock.now()  # not where the history ends
    assert stale.pools[0].lead == Lead(steps=5)
    clock.advance(timedelta(days=20))
    old = demand(tmp_path, clock, connected).demand().pools[0]
    assert "13 days of that are bridged, 7 days skipped, and it is 1.2 times as wide" in old.history


def test_a_round_stands_on_the_network_that_was_promoted(
    tmp_path: Path, clock: ManualClock, trained: TrainedRnn
) -> None:
    connected = Sources([Source("prom", Once(), "1")], tmp_path / "usage")
    promotions = Promotions(tmp_path / "models")
    promotions.registry.save("m", trained, series=10, now=NOW)
    other = record(0, fingerprint="other")
    promotions.add(other.model_copy(update={"metric": "memory_gib"}))
    assert not demand(tmp_path, clock, connected).demand().pools[0].network.startswith("version")
    promotions.add(record(0, fingerprint="own").model_copy(update={"metric": "value"}))
    before = len(promotions.registry.cards())
    found = demand(tmp_path, clock, connected).demand()
    assert found.pools[0].network == "version 2, 0.7 against 0.8"
    assert found.pools[0].target.network == found.pools[0].network
    assert (found.pools[0].loaded, found.pools[0].trained_seconds) == (True, None)
    assert len(promotions.registry.cards()) == before  # nothing is trained in a round any more
    assert found.usage.histories[0].series_id == "api"


def test_a_recording_is_forecast_from_its_end(tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "usage.csv"
    rows = [f"a,{NOW + (hour - 96) * HOUR:%Y-%m-%dT%H:%M:%SZ},{hour % 24}" for hour in range(96)]
    path.write_text("series_id,timestamp,value\n" + "\n".join(rows))
    clock.advance(timedelta(days=400))
    starts = [
        UsageDemand(
            [PoolSource(pool=POOL)], usage=path, metric=None, horizon=3, budget_seconds=0.1, paths=20, seed=1,
            registry=tmp_path / "models", clock=clock, replay=replay,
        ).demand().pools[0].target.steps[0].start
        for replay in (True, False)
    ]  # fmt: skip
    assert starts == [NOW, clock.now()]


def written(folder: Path, *values: float, step: timedelta = HOUR, end: datetime = NOW) -> Path:
    """One series that ends then."""
    path = folder / "usage.csv"
    moments = [end - (len(values) - i) * step for i in range(len(values))]
    rows = [f"a,{moment:%Y-%m-%dT%H:%M:%SZ},{value}" for moment, value in zip(moments, values, strict=True)]
    path.write_text("\n".join(["series_id,timestamp,value", *rows]))
    return path


def of_file(usage: Path, clock: ManualClock, *, per_shard: float | None = None, replay: bool = False) -> UsageDemand:
    return UsageDemand(
        [PoolSource(pool=POOL, per_shard=per_shard)], usage=usage, metric=None, horizon=3, budget_seconds=0.1, paths=20,
        seed=1, registry=usage.parent / "models", clock=clock, replay=replay,
    )  # fmt: skip


def test_a_round_of_short_steps_says_what_is_needed_as_far_as_it_forecasts(tmp_path: Path, clock: ManualClock) -> None:
    usage = written(tmp_path, *[5.0 + i % 3 for i in range(96)], step=timedelta(minutes=1))
    (pool,) = of_file(usage, clock).demand().pools
    assert pool.need.within == timedelta(minutes=3)
    assert pool.sentence.endswith("within the next 3 minutes")


def test_a_fleet_beyond_reason_is_refused_before_it_is_planned(tmp_path: Path, clock: ManualClock) -> None:
    usage = written(tmp_path, *[5e12 + i % 3 for i in range(96)])
    with pytest.raises(BadUsageData, match="pool 'web' would need 5e\\+12 shards") as caught:
        of_file(usage, clock, per_shard=1.0).demand()
    assert "pools.web.per_shard" in caught.value.next_step


def test_samples_of_a_file_from_the_future_are_left_out_unless_it_is_a_recording(
    tmp_path: Path, clock: ManualClock
) -> None:
    usage = written(tmp_path, *[5.0] * 96, end=NOW + 10 * HOUR)
    (history,) = of_file(usage, clock).usage().histories
    assert history.end == NOW + HOUR  # the step that begins now is under way
    (recorded,) = of_file(usage, clock, replay=True).usage().histories
    assert recorded.end == NOW + 10 * HOUR


def test_rounds_keep_a_few_networks_and_the_recorded_ones(
    tmp_path: Path, clock: ManualClock, trained: TrainedRnn
) -> None:
    promotions = Promotions(tmp_path / "models")
    for age in range(NEWEST_KEPT + 5):
        promotions.registry.save(f"n{age}", trained, series=1, now=NOW - (age + 1) * HOUR)
    oldest = f"n{NEWEST_KEPT + 4}"
    promotions.add(record(0).model_copy(update={"metric": "another", "model": oldest}))
    of_file(written(tmp_path, *[5.0] * 96), clock).demand()
    kept = {card.fingerprint for card in promotions.registry.cards()}
    assert {"n0", oldest} <= kept
    assert len(kept) <= NEWEST_KEPT + 1


def test_a_series_without_a_value_costs_only_the_pool_that_it_drives(tmp_path: Path, clock: ManualClock) -> None:
    moments = [f"{NOW - (96 - hour) * HOUR:%Y-%m-%dT%H:%M:%SZ}" for hour in range(96)]
    rows = [f"{name},{moment},{value}" for name, value in (("dead", ""), ("live", 5)) for moment in moments]
    path = tmp_path / "usage.csv"
    path.write_text("series_id,timestamp,value\n" + "\n".join(rows))

    def of(series: str) -> UsageDemand:
        return UsageDemand(
            [PoolSource(pool=POOL, series=series)], usage=path, metric=None, horizon=3, budget_seconds=0.1, paths=20,
            seed=1, registry=tmp_path / "models", clock=clock,
        )  # fmt: skip

    found = of("live").demand()
    assert (found.left_out, found.pools[0].series_id) == (("dead",), "live")
    with pytest.raises(BadUsageData, match="'dead', which drives pool 'web', holds no value"):
        of("dead").demand()
    path.write_text("series_id,timestamp,value\n" + "\n".join(rows[:96]))
    with pytest.raises(BadUsageData, match="no series of the usage history holds a value"):
        of("dead").demand()


def test_a_synthetic_history_has_no_age(tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forecasting.network.TUNING_STEPS", 5)  # a still clock ends no budget
    (pool,) = demand(tmp_path, clock, None).demand().pools
    assert (pool.synthetic, pool.target.history_age, pool.history) == (True, None, "")
