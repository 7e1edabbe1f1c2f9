"""The forecaster as the source of a round's targets, telling what it expects in words."""

from pathlib import Path

from engine.app.usage_sources import open_sources
from engine.clock import Clock
from engine.config import Configuration
from engine.events import Event, Observe
from engine.model.capacity import CapacityTarget
from engine.model.ids import PoolId
from forecasting.demand import Expected, Histories, PoolSource, UsageDemand


def models_folder(configuration: Configuration) -> Path:
    """The registry of trained networks."""
    return configuration.state.directory / "models"


class ForecastDemand:
    """``engine.steps.Demand``."""

    def __init__(self, configuration: Configuration, clock: Clock, observe: Observe) -> None:
        table = configuration.forecast
        by_id = {pool.id: pool for pool in configuration.pool_values()}
        sources = [
            PoolSource(
                pool=by_id[PoolId(pool.id)],
                series=pool.series,
                per_shard=pool.per_shard,
                peak_shards=pool.peak_shards,
            )
            for pool in configuration.pools
            if not by_id[PoolId(pool.id)].shard_type.is_storage
        ]
        self._observe = observe
        self._seen: Expected | None = None
        self._demand = UsageDemand(
            sources,
            usage=table.usage,
            metric=table.metric,
            connected=open_sources(configuration, clock) if table.sources else None,
            horizon=table.horizon_steps,
            budget_seconds=table.budget_seconds,
            paths=table.paths,
            seed=table.seed,
            registry=models_folder(configuration),
            clock=clock,
            replay=table.replay,
        )

    def targets(self) -> tuple[CapacityTarget, ...]:
        found = self._seen = self._demand.demand()
        for source in found.usage.sources:
            self._observe(Event(step="forecast", text=source.sentence(), facts=source.model_dump(mode="json")))
        for name in found.left_out:
            self._observe(Event(step="forecast", text=f"{name} holds no value and is left out"))
        for one in found.pools:
            text = f"{one.target.pool.id}: {one.sentence} (seasonal naive says: {one.naive_sentence})"
            text += f"; {one.history}" if one.history else ""
            facts = one.model_dump(mode="json", exclude={"target"})
            facts |= {"pool": one.target.pool.id, "desired": one.target.desired, "current": one.target.current}
            self._observe(Event(step="forecast", text=text, facts=facts))
        return tuple(one.target for one in found.pools)

    def last_seen(self) -> Expected | None:
        """What the last targets were made from; None: none were made yet."""
        return self._seen

    def usage(self) -> Histories:
        """As it is now. Raises BadUsageData."""
        return self._demand.usage()
