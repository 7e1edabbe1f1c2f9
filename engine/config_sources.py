"""Which keys each kind of usage source takes, and what is wrong with those that are given."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from engine.config_table import tables

COMMON = frozenset({"name", "kind", "step", "history_days"})


@dataclass(frozen=True)
class SourceKind:
    """``provider``: the kind of provider whose endpoint and credentials it uses; None: it has its own."""

    needs: frozenset[str]
    takes: frozenset[str] = frozenset()
    provider: str | None = None

    @property
    def keys(self) -> frozenset[str]:
        return COMMON | self.needs | self.takes


SOURCE_KINDS: Mapping[str, SourceKind] = {
    "file": SourceKind(frozenset({"path"}), frozenset({"metric"})),
    "prometheus": SourceKind(
        frozenset({"url", "query"}), frozenset({"series_labels", "ca_file", "timeout_seconds", "credentials"})
    ),
    "cloudwatch": SourceKind(
        frozenset({"provider", "region", "namespace", "metric_name"}), frozenset({"statistic", "dimensions"}), "aws"
    ),
    "google_monitoring": SourceKind(
        frozenset({"provider", "filter"}), frozenset({"statistic", "series_labels"}), "gcp"
    ),
    "azure_monitor": SourceKind(
        frozenset({"provider", "resources", "metric_name"}), frozenset({"statistic", "namespace"}), "azure"
    ),
}


def source_problems(raw: Mapping[str, Any]) -> Iterator[str]:
    """One sentence each, beginning with the key's path; keys that no kind knows are told elsewhere."""
    forecast = raw.get("forecast")
    if not isinstance(forecast, Mapping):
        return
    sources = tables(forecast.get("sources"))
    if sources and forecast.get("usage") is not None:
        yield "forecast.sources: there is forecast.usage as well; make it a source of kind 'file'"
    names = [table["name"] for _, table in sources if isinstance(table.get("name"), str)]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"forecast.sources: {name!r} is there twice"
    providers = {
        str(table["name"]): str(table.get("kind", "")) for _, table in tables(raw.get("providers")) if "name" in table
    }
    for position, table in sources:
        yield from _of_one(f"forecast.sources.{position}", table, providers)


def _of_one(path: str, table: Mapping[str, Any], providers: Mapping[str, str]) -> Iterator[str]:
    given = table.get("kind")
    if not isinstance(given, str):
        return
    kind = SOURCE_KINDS.get(given)
    if kind is None:
        yield f"{path}.kind: unknown kind of source {given!r}{_guess(given, list(SOURCE_KINDS))}"
        return
    for key in sorted(kind.needs - table.keys()):
        yield f"{path}.{key}: required with kind {given!r}, but missing"
    known = frozenset[str]().union(*(each.keys for each in SOURCE_KINDS.values()))
    for key in sorted((table.keys() & known) - kind.keys):
        yield f"{path}.{key}: has no meaning with kind {given!r}; it takes {', '.join(sorted(kind.keys))}"
    named = table.get("provider")
    if kind.provider is None or not isinstance(named, str):
        return
    fitting = [name for name, its_kind in providers.items() if its_kind == kind.provider]
    if named not in providers:
        yield f"{path}.provider: unknown provider {named!r}{_guess(named, fitting)}"
    elif named not in fitting:
        yield f"{path}.provider: {named!r} is of kind {providers[named]!r}; {given} needs one of kind {kind.provider!r}"


def _guess(name: str, known: Sequence[str]) -> str:
    close = get_close_matches(name, known, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(known)}" if known else "; there is none of the kind that is needed"
