"""Workloads and their components in shardwright.toml: who is served from which pool, and how its replicas are kept."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from engine.config_table import Name, Share, Table, tables
from engine.model.composite import MOST_PARTS, SERVICE_PORT, CompositeRule, HealthCheck
from engine.model.ids import PoolId


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
    max_parts: Annotated[int, Field(ge=1, le=MOST_PARTS)] = 1
    """Into how many replicas at most the work of one may be divided."""
    storage: str | None = None
    """The pool whose shards hold the replicas' data, one attached to each; then there are exactly ``replicas``."""

    @model_validator(mode="after")
    def _data_is_whole(self) -> Self:
        if self.storage is not None and self.max_parts > 1:
            raise ValueError("max_parts must be 1 with storage: each replica has data of its own")
        return self

    def rule(self) -> CompositeRule:
        after = None if self.health is None else self.health.replace_after_seconds
        return CompositeRule(
            replicas=self.replicas,
            max_provider_share=self.max_provider_share,
            drain=timedelta(seconds=self.drain_seconds),
            check=None if self.health is None else self.health.check(),
            max_parts=self.max_parts,
            storage=None if self.storage is None else PoolId(self.storage),
            replace_after=None if after is None else timedelta(seconds=after),
        )


class WorkloadTable(Table):
    namespace: Name
    name: Name
    components: Annotated[tuple[ComponentTable, ...], Field(min_length=1)]


def workload_names(raw: Mapping[str, Any]) -> list[str]:
    """``namespace/name`` of each workload of the raw file; bindings go by both, so a pair may be there once."""
    workloads = [table for _, table in tables(raw.get("workloads")) if "namespace" in table and "name" in table]
    return [f"{table['namespace']}/{table['name']}" for table in workloads]


def storage_problems(raw: Mapping[str, Any], position: int, workload: Mapping[str, Any]) -> Iterator[str]:
    """Of one workload of the raw file: guests and their data come from pools of different kinds."""
    disks = {_of(table, "name") for _, table in tables(raw.get("shard_types")) if _is_positive(table.get("disk_gib"))}
    storing = {_of(table, "id"): _of(table, "shard_type") in disks for _, table in tables(raw.get("pools"))}
    for index, component in tables(workload.get("components")):
        path = f"workloads.{position}.components.{index}"
        if storing.get(_of(component, "pool")):
            yield f"{path}.pool: pool {component['pool']!r} lends disks and runs no guests; name it as storage"
        if storing.get(_of(component, "storage")) is False:
            yield f"{path}.storage: the shards of pool {component['storage']!r} have no disk_gib to lend"


def growth_problems(raw: Mapping[str, Any], position: int, pool: Mapping[str, Any]) -> Iterator[str]:
    """Of one pool of the raw file: what may grow is at least what its shards are carved with."""
    carved = next((one for _, one in tables(raw.get("shard_types")) if one.get("name") == pool.get("shard_type")), {})
    for key, least in (("memory_grows_to_gib", "memory_gib"), ("vcpus_grow_to", "vcpus")):
        most, has = pool.get(key), carved.get(least)
        if isinstance(most, int | float) and isinstance(has, int | float) and most < has:
            yield f"pools.{position}.{key}: {most:g} is less than the {has:g} of {carved['name']}"


def _of(table: Mapping[str, Any], key: str) -> str:
    value = table.get(key)
    return value if isinstance(value, str) else ""


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and value > 0
