import tomllib
from typing import Any

import pytest

from engine.config import SourceTable, parse_configuration
from engine.config_sources import COMMON, SOURCE_KINDS
from engine.errors import ConfigurationError
from tests.small_configuration import GOOD

PROMETHEUS = {"name": "prom", "kind": "prometheus", "url": "https://p.example", "query": "up"}
CLOUDWATCH = {
    "name": "cw",
    "kind": "cloudwatch",
    "provider": "aws",
    "region": "r",
    "namespace": "N",
    "metric_name": "M",
}


def raw(*sources: dict[str, Any], **forecast: Any) -> dict[str, Any]:
    return {**tomllib.loads(GOOD), "forecast": {"sources": list(sources), **forecast}}


def problems(*sources: dict[str, Any], **forecast: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        parse_configuration(raw(*sources, **forecast), origin="shardwright.toml")
    return caught.value.what


def test_good_sources_are_read() -> None:
    secret = {"credentials": {"token": {"env": "TOKEN"}}}
    configuration = parse_configuration(raw({**PROMETHEUS, **secret}, CLOUDWATCH), origin="f")
    first, second = configuration.forecast.sources
    assert (first.name, first.step, second.provider) == ("prom", "1h", "aws")
    assert first.secrets({"TOKEN": "canary"})["token"].get_secret_value() == "canary"
    assert "canary" not in repr(first)


def test_every_problem_is_reported_at_once_with_its_path_and_a_guess() -> None:
    text = problems(
        {"name": "prom", "kind": "promtheus", "step": "often"},
        {"name": "p2", "kind": "prometheus", "url": "https://p.example", "querry": "up", "region": "r"},
        {**CLOUDWATCH, "provider": "asw"},
        {**CLOUDWATCH, "name": "prom", "kind": "google_monitoring"},
        usage="usage.csv",
    )
    assert "forecast.sources.0.kind: unknown kind of source 'promtheus'; did you mean 'prometheus'?" in text
    assert "forecast.sources.0.step:" in text
    assert "forecast.sources.1.querry: unknown key; did you mean 'query'?" in text
    assert "forecast.sources.1.query: required with kind 'prometheus', but missing" in text
    assert "forecast.sources.1.region: has no meaning with kind 'prometheus'" in text
    assert "forecast.sources.2.provider: unknown provider 'asw'; did you mean 'aws'?" in text
    assert "forecast.sources.3.provider: 'aws' is of kind 'aws'; google_monitoring needs one of kind 'gcp'" in text
    assert "forecast.sources.3.filter: required" in text
    assert "forecast.sources: 'prom' is there twice" in text
    assert "there is forecast.usage as well" in text


def test_a_secret_in_the_file_is_refused_and_not_shown() -> None:
    text = problems({**PROMETHEUS, "credentials": {"token": "hunter2"}})
    assert "say where the secret is read from" in text
    assert "hunter2" not in text


@pytest.mark.parametrize("kind", SOURCE_KINDS)
def test_every_key_of_a_kind_is_one_of_the_table(kind: str) -> None:
    assert SOURCE_KINDS[kind].keys <= SourceTable.model_fields.keys()


def test_every_key_of_the_table_belongs_to_a_kind() -> None:
    assert SourceTable.model_fields.keys() == COMMON.union(*(kind.keys for kind in SOURCE_KINDS.values()))
