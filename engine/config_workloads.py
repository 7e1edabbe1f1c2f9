"""Workloads and their components in shardwright.toml: who is served from which pool, and how its replicas are kept."""

from datetime import timedelta
from typing import Annotated, Self

from pydantic import Field, model_validator

from engine.config_table import Name, Share, Table
from engine.model.composite import SERVICE_PORT, CompositeRule, HealthCheck


class HealthTable(Table):
    """Asking for it turns checks on; see engine.model.composite.HealthCheck."""

    port: Annotated[int, Field(ge=1, le=65535)] = SERVICE_PORT
    interval_seconds: Annotated[float, Field(ge=1, le=300)] = 5.0
    timeout_seconds: Annotated[float, Field(gt=0, le=60)] = 1.0
    rise: Annotated[int, Field(ge=1, le=20)] = 2
    fall: Annotated[int, Field(ge=1, le=20)] = 3
    replace_after_seconds: Annotated[float, Field(ge=10, le=86_400)] | None = None

    @model_validator(mode="after")
    def _answers_before_the_next(self) -> Self:
        if self.timeout_seconds >= self.interval_seconds:
            raise ValueError("timeout_seconds must be less than interval_seconds")
        return self

    def check(self) -> HealthCheck:
        return HealthCheck.model_validate(self.model_dump(exclude={"replace_after_seconds"}))


class ComponentTable(Table):
    name: Name
    pool: str
    replicas: Annotated[int, Field(ge=1, le=1000)] = 1
    """As many at least, whatever the usage says."""
    max_provider_share: Share = 1.0
    """Largest share of the replicas with one provider."""
    drain_seconds: Annotated[float, Field(ge=0, le=600)] = 10.0
    """Between leaving the name and being gone."""
    health: HealthTable | None = None

    def rule(self) -> CompositeRule:
        after = None if self.health is None else self.health.replace_after_seconds
        return CompositeRule(
            replicas=self.replicas,
            max_provider_share=self.max_provider_share,
            drain=timedelta(seconds=self.drain_seconds),
            check=None if self.health is None else self.health.check(),
            replace_after=None if after is None else timedelta(seconds=after),
        )


class WorkloadTable(Table):
    namespace: Name
    name: Name
    components: Annotated[tuple[ComponentTable, ...], Field(min_length=1)]
