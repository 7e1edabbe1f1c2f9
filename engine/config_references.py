"""Names in shardwright.toml that point nowhere, or are there twice."""

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from engine.config_sources import source_problems
from engine.config_table import tables
from engine.config_workloads import growth_problems, storage_problems, workload_names
from engine.model.workload_image import RECORDS


def unresolved_references(raw: Mapping[str, Any]) -> Iterator[str]:
    """Names that point nowhere, read from the raw file so that they show beside other problems."""
    from providers.registry import KINDS

    types, classes = _names(raw, "shard_types"), _names(raw, "risk_classes")
    providers, pools = _names(raw, "providers"), _names(raw, "pools", key="id")
    for position, table in tables(raw.get("providers")):
        yield from _reference(f"providers.{position}.kind", table.get("kind"), list(KINDS), "provider kind")
        for index, agreement in tables(table.get("agreements")):
            yield from _regions(f"providers.{position}.agreements.{index}", agreement, _texts(table.get("regions")))
    regions = sorted({region for _, table in tables(raw.get("providers")) for region in _texts(table.get("regions"))})
    policy = raw.get("policy")
    yield from _regions("policy", policy if isinstance(policy, Mapping) else {}, regions)
    images = [RECORDS, *_names(raw, "images")]
    for position, table in tables(raw.get("pools")):
        yield from _reference(f"pools.{position}.image", table.get("image"), images, "image")
        yield from _regions(f"pools.{position}", table, regions)
        yield from _reference(f"pools.{position}.shard_type", table.get("shard_type"), types, "shard type")
        yield from growth_problems(raw, position, table)
        yield from _reference(f"pools.{position}.risk_class", table.get("risk_class"), classes, "risk class")
        for name in _sequence(table.get("providers")):
            yield from _reference(f"pools.{position}.providers", name, providers, "provider")
    for position, table in tables(raw.get("workloads")):
        for index, component in enumerate(_sequence(table.get("components"))):
            if isinstance(component, Mapping):
                path = f"workloads.{position}.components.{index}.pool"
                yield from _reference(path, component.get("pool"), pools, "pool")
                yield from _reference(path[: -len("pool")] + "storage", component.get("storage"), pools, "pool")
        yield from storage_problems(raw, position, table)
        yield from _twice(f"workloads.{position}.components", _names(table, "components"))
    yield from source_problems(raw)
    for section, key in (
        ("providers", "name"), ("pools", "id"), ("shard_types", "name"), ("risk_classes", "name"), ("images", "name"),
    ):  # fmt: skip
        yield from _twice(section, _names(raw, section, key=key))
    yield from _twice("workloads", workload_names(raw))


def _regions(path: str, table: Mapping[str, Any], known: list[str]) -> Iterator[str]:
    """One that is not asked anywhere matches nothing: no offer, or no price that was agreed on."""
    for name in _sequence(table.get("regions")):
        yield from _reference(f"{path}.regions", name, known, "region")


def _twice(path: str, names: Sequence[str]) -> Iterator[str]:
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"{path}: {name!r} is there twice"


def _reference(path: str, name: object, known: list[str], what: str) -> Iterator[str]:
    if isinstance(name, str) and known and name not in known:
        guess = get_close_matches(name, known, n=1)
        yield f"{path}: unknown {what} {name!r}" + (
            f"; did you mean {guess[0]!r}?" if guess else f"; known: {', '.join(dict.fromkeys(known))}"
        )


def _texts(value: object) -> list[str]:
    return [str(one) for one in _sequence(value)]


def _sequence(value: object) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


def _names(raw: Mapping[str, Any], section: str, *, key: str = "name") -> list[str]:
    return [str(table[key]) for _, table in tables(raw.get(section)) if key in table]
