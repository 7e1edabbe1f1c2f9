"""From a usage history to every pool's capacity target, with the sentences that say it and the naive ones beside."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np

from engine.clock import Clock
from engine.errors import BadUsageData, ConfigurationError
from engine.model.capacity import CapacityTarget, Pool
from engine.model.value import Value
from forecasting.base import Forecast, History
from forecasting.champion import Champions, champions, chosen
from forecasting.connectors.sources import Refreshed, Sources
from forecasting.drift import Drift, drift_of
from forecasting.durations import roughly
from forecasting.lateness import Lead, forecast_from_now, lead_of
from forecasting.promotions import Promotions
from forecasting.synthetic import synthetic_history
from forecasting.target import PATHS, Need, capacity_target, need_for, sentence, shards_for, telling_need
from forecasting.usage import read_usage, with_values

SEASONAL_NAIVE = "seasonal_naive"
STALE_STEPS = 2
"""A history is told to be old when its newest value is older than this many steps."""
MOST_SHARDS = 100_000
"""Of a pool. More is a wrong unit."""
SYNTHETIC_DAYS = 56 + 8 / 24
"""Eight weeks, ending on a Monday morning when demand rises."""


class PoolSource(Value):
    """Which series drives a pool, and how much of it one shard serves.

    Without a stated amount, the history's peak (its 99th percentile) is what ``peak_shards`` serve.
    """

    pool: Pool
    series: str | None = None
    per_shard: float | None = None
    peak_shards: int = 6


@dataclass(frozen=True)
class Histories:
    """What there is to forecast from, and how each source of it fared (none: a file, or synthetic)."""

    histories: tuple[History, ...]
    metric: str
    sources: tuple[Refreshed, ...] = ()


@dataclass(frozen=True)
class Expected:
    """One demand per pool, the usage it was made from, and how the network fared on that lately (None: unknown).
    ``left_out``: series without any value, which drive no pool."""

    pools: tuple["PoolDemand", ...]
    usage: Histories
    drift: Drift | None
    left_out: tuple[str, ...] = ()


class PoolDemand(Value):
    """What is expected of one pool, in numbers and in words."""

    target: CapacityTarget
    series_id: str
    metric: str
    synthetic: bool
    per_shard: float
    need: Need
    sentence: str
    naive_need: Need
    """The same question, asked of seasonal naive."""
    naive_sentence: str
    forecaster: str
    why: str
    wql: float | None
    """Weighted quantile loss on recent origins, and seasonal naive's beside it."""
    naive_wql: float | None
    trained_seconds: float | None
    loaded: bool
    """The network came from the registry; nothing was trained."""
    network: str = ""
    """Which network it was: shipped, trained here, or the version that a retraining promoted."""

    lead: Lead = Lead()
    """How far the forecast reaches ahead of the history before it begins."""

    @property
    def history(self) -> str:
        """``its history ends 3 hours before …``; empty for a synthetic history and for one that is up to date."""
        age = self.target.history_age
        if age is None or age <= STALE_STEPS * self.target.step:
            return ""
        told = f"its history ends {roughly(age)} before the forecast was made"
        if self.lead.beyond:
            bridged, skipped = (roughly(n * self.target.step) for n in (self.lead.steps, self.lead.beyond))
            told += (
                f": {bridged} of that are bridged, {skipped} skipped, and it is {self.lead.widening:.2g} times as wide"
            )
        return told


class UsageDemand:
    """Reads the history anew on every call; the network is trained once per history and loaded from then on."""

    def __init__(
        self,
        sources: Sequence[PoolSource],
        *,
        usage: Path | None,
        metric: str | None,
        connected: Sources | None = None,
        horizon: int,
        budget_seconds: float,
        paths: int,
        seed: int,
        registry: Path,
        clock: Clock,
        replay: bool = False,
    ) -> None:
        self._sources, self._usage, self._metric = tuple(sources), usage, metric
        self._replay = replay
        self._horizon, self._budget, self._paths, self._seed = horizon, budget_seconds, paths, seed
        self._promotions, self._clock, self._connected = Promotions(registry), clock, connected

    def demand(self) -> Expected:
        """One per pool. Raises BadUsageData, or ConfigurationError where a pool's series is not in the history."""
        found = self.usage()
        histories, metric = found.histories, found.metric
        measured, left_out = with_values(histories)
        if not measured:
            raise BadUsageData(
                "no series of the usage history holds a value",
                why=", ".join(left_out[:8]),
                next_step="shardwright forecast check --usage FILE",
            )
        field = self._field(measured, metric)
        pools = tuple(
            self._pool_demand(source, self._series_of(position, source, histories), metric, field)
            for position, source in enumerate(self._sources)
        )
        return Expected(pools, found, drift_of(field.choices), left_out)

    def _field(self, histories: Sequence[History], metric: str) -> Champions:
        """On the network that the last retraining promoted; before there was one, trained here within the budget."""
        standing = self._promotions.standing(metric, histories[0].freq, self._horizon)
        if standing is not None:
            return chosen(standing, histories, self._horizon)
        found = champions(
            histories,
            self._horizon,
            budget_seconds=self._budget,
            seed=self._seed,
            registry=self._promotions.registry,
            clock=self._clock,
        )
        self._promotions.sweep(self._clock.now())
        return found

    def usage(self) -> Histories:
        """As it is now; sources are brought up to date. Raises BadUsageData."""
        if self._connected is not None:
            pulled = self._connected.read(self._clock.now())
            return Histories(pulled.usage.histories, pulled.usage.metric, pulled.sources)
        if self._usage is None:
            made = [
                synthetic_history(seed=self._seed + i, series_id=f"synthetic-{i + 1}", days=SYNTHETIC_DAYS)
                for i in range(len(self._sources))
            ]
            return Histories(tuple(made), "cpu_cores")
        read = read_usage(self._usage, metric=self._metric, now=None if self._replay else self._clock.now())
        return Histories(read.histories, read.metric)

    def _series_of(self, position: int, source: PoolSource, histories: Sequence[History]) -> History:
        if source.series is None:
            return histories[position % len(histories)]
        found = next((history for history in histories if history.series_id == source.series), None)
        if found is None:
            known = ", ".join(history.series_id for history in histories[:8])
            raise ConfigurationError(
                f"pools.{source.pool.id}.series: the usage history has no series {source.series!r}",
                why=f"it has {known}",
            )
        return found

    def _lead(self, history: History, field: Champions) -> Lead:
        """None for a recording, which is forecast from its end as though that were now."""
        if history.synthetic or self._replay:
            return Lead()
        return lead_of(history, self._clock.now(), field.rnn.plan.horizon if field.rnn else self._horizon)

    def _pool_demand(self, source: PoolSource, history: History, metric: str, field: Champions) -> PoolDemand:
        if not np.isfinite(history.values).any():
            raise BadUsageData(
                f"series {history.series_id!r}, which drives pool {source.pool.id!r}, holds no value",
                why="without usage there is no telling what the pool needs",
                next_step=f"mend it, or name another with pools.{source.pool.id}.series",
            )
        per_shard = source.per_shard or _per_shard(history, source.peak_shards)
        current = _current(history, per_shard)
        lead = self._lead(history, field)
        forecast = forecast_from_now(field, history, lead, self._horizon)
        _refuse_too_many(source.pool, history, forecast, per_shard)
        naive = forecast_from_now(field, history, lead, self._horizon, by=SEASONAL_NAIVE)
        within = _within(forecast)
        need = telling_need(forecast, per_shard, current, within)
        naive_need = need_for(naive, per_shard, current, within, need.additional)
        shard_type = source.pool.shard_type.name
        choice = field.choice_of(history.series_id)
        return PoolDemand(
            target=capacity_target(
                forecast,
                source.pool,
                per_shard,
                current,
                self._clock.now(),
                paths=self._paths,
                network=field.network.origin,
                history_end=None if history.synthetic else history.measured_end,
            ),
            lead=lead,
            series_id=history.series_id,
            metric=metric,
            synthetic=history.synthetic,
            per_shard=per_shard,
            need=need,
            sentence=sentence(need, shard_type),
            naive_need=naive_need,
            naive_sentence=sentence(naive_need, shard_type),
            forecaster=forecast.forecaster,
            why=choice.why if choice else field.rnn_missing,
            wql=choice.wql_of(forecast.forecaster) if choice else None,
            naive_wql=choice.wql_of(SEASONAL_NAIVE) if choice else None,
            trained_seconds=None if field.loaded or field.training is None else field.training.seconds,
            loaded=field.loaded,
            network=field.network.origin,
        )


def _within(forecast: Forecast) -> timedelta:
    """The next hour, or the next step where steps are longer; no more than is forecast."""
    return min(max(timedelta(hours=1), forecast.freq), forecast.horizon * forecast.freq)


def _per_shard(history: History, peak_shards: int) -> float:
    measured = history.values[~np.isnan(history.values)]
    peak = float(np.quantile(measured, 0.99))
    return peak / peak_shards if peak > 0 else 1.0


def _refuse_too_many(pool: Pool, history: History, forecast: Forecast, per_shard: float) -> None:
    """Before a plan is made for a fleet that nobody means."""
    peaks = forecast.sample_paths(PATHS).max(axis=1)
    last = history.values[np.isfinite(history.values)][-1]
    highest = max(float(np.quantile(peaks, pool.risk_class.quantile)), float(last))
    if highest > MOST_SHARDS * per_shard:
        raise BadUsageData(
            f"pool {pool.id!r} would need {highest / per_shard:.3g} shards",
            why=f"series {history.series_id!r} is at {highest:g}, and one shard serves {per_shard:g}",
            next_step=f"give pools.{pool.id}.per_shard in the units of the metric",
        )


def _current(history: History, per_shard: float) -> int:
    """Shards that the last measured value needs."""
    measured = history.values[~np.isnan(history.values)]
    return int(shards_for(measured[-1:], per_shard)[0]) if len(measured) else 0
