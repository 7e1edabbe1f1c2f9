import copy
import tomllib
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from engine.app.configured import agreements
from engine.config import Configuration, load_configuration, parse_configuration
from engine.errors import AuthenticationFailed, ConfigurationError, ExitCode
from engine.model.ids import PoolId

GOOD = tomllib.loads("""
name = "demo"

[[risk_classes]]
name = "gold"
rank = 0
quantile = 0.95
max_shortfall = 0.01

[[shard_types]]
name = "cpu.small"
vcpus = 1
memory_gib = 2

[[providers]]
name = "aws"
kind = "aws"
account = "123456789012"
regions = ["us-east-1", "eu-west-1"]
credentials = { access_key_id = { env = "KEY_ID" } }

[[pools]]
id = "web"
shard_type = "cpu.small"
risk_class = "gold"
providers = ["aws"]

[[workloads]]
namespace = "shop"
name = "web"
components = [{ name = "api", pool = "web" }]
""")


def problems(change: dict[str, Any]) -> str:
    raw = copy.deepcopy(GOOD) | change
    with pytest.raises(ConfigurationError) as caught:
        parse_configuration(raw, origin="shardwright.toml")
    assert caught.value.exit_code == ExitCode.USAGE
    return caught.value.what


def test_a_good_file_gives_cells_pools_and_settings() -> None:
    configuration = parse_configuration(GOOD, origin="shardwright.toml")
    assert isinstance(configuration, Configuration)
    assert [cell.id for cell in configuration.cells()] == ["aws/123456789012/us-east-1", "aws/123456789012/eu-west-1"]
    assert configuration.pool_values()[0].shard_type.resources.vcpus == 1
    settings = configuration.provider_settings({"KEY_ID": "canary"})
    assert settings[0].credentials["access_key_id"].get_secret_value() == "canary"
    assert "canary" not in repr(settings)


def test_signing_keys_are_thumbprints_and_a_networks_alone() -> None:
    network = {"name": "agora", "kind": "network", "account": "a", "regions": ["r"], "endpoint": "http://127.0.0.1:1"}
    pinned = [*GOOD["providers"], network | {"signing_keys": ["k" * 43]}]
    configuration = parse_configuration(copy.deepcopy(GOOD) | {"providers": pinned}, origin="f")
    assert configuration.settings_of("agora", {"KEY_ID": "x"}).signing_keys == ("k" * 43,)
    assert configuration.settings_of("aws", {"KEY_ID": "x"}).signing_keys == ()
    text = problems({"providers": [GOOD["providers"][0] | {"signing_keys": ["k" * 43]}]})
    assert "providers.0: Value error, signing_keys belongs to kind 'network'" in text
    assert "providers.0.signing_keys.0" in problems({"providers": [network | {"signing_keys": ["sha256:short"]}]})


def test_terms_of_retraining() -> None:
    raw = copy.deepcopy(GOOD) | {"forecast": {"retraining": {"every_days": 2, "drift": 0.9}}}
    table = parse_configuration(raw, origin="f").forecast.retraining
    assert (table.terms().every, table.terms().drift, table.enabled) == (timedelta(days=2), 0.9, True)
    text = problems({"forecast": {"retraining": {"evry_days": 1}}})
    assert "forecast.retraining.evry_days: unknown key; did you mean 'every_days'?" in text


def test_every_problem_is_reported_at_once_with_its_path_and_a_guess() -> None:
    text = problems(
        {
            "polcy": {},
            "policy": {"max_spot_shar": 0.5},
            "shard_types": [{"name": "cpu.small", "vcpus": "many", "memory_gib": 2}],
            "pools": [{"id": "web", "shard_type": "cpu.smal", "risk_class": "gld", "providers": ["asw"]}],
        }
    )
    assert "polcy: unknown key; did you mean 'policy'?" in text
    assert "policy.max_spot_shar: unknown key; did you mean 'max_spot_share'?" in text
    assert "shard_types.0.vcpus:" in text
    assert "pools.0.shard_type: unknown shard type 'cpu.smal'; did you mean 'cpu.small'?" in text
    assert "pools.0.risk_class: unknown risk class 'gld'; did you mean 'gold'?" in text
    assert "pools.0.providers: unknown provider 'asw'; did you mean 'aws'?" in text
    assert "at least 1 item" not in text


def test_names_that_are_there_twice_are_refused() -> None:
    assert "pools: 'web' is there twice" in problems({"pools": [GOOD["pools"][0], GOOD["pools"][0]]})


def test_a_component_of_an_unknown_pool_is_refused() -> None:
    workload = {"namespace": "shop", "name": "web", "components": [{"name": "api", "pool": "wbe"}]}
    assert "workloads.0.components.0.pool: unknown pool 'wbe'; did you mean 'web'?" in problems(
        {"workloads": [workload]}
    )


def test_missing_credentials_name_the_variable() -> None:
    configuration = parse_configuration(GOOD, origin="shardwright.toml")
    with pytest.raises(AuthenticationFailed, match="KEY_ID") as caught:
        configuration.provider_settings({})
    assert caught.value.exit_code == ExitCode.AUTHENTICATION


def test_a_file_that_is_not_there_or_not_toml(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot read"):
        load_configuration(tmp_path / "none.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("[[[")
    with pytest.raises(ConfigurationError, match="not TOML"):
        load_configuration(broken)


def test_negotiated_prices_are_read_with_their_provider() -> None:
    aws = copy.deepcopy(GOOD["providers"][0])
    aws["agreements"] = tomllib.loads("""
[[agreements]]
discount = 0.28
instance_types = ["m7*"]
options = ["on_demand", "commitment"]
until = 2027-01-01T00:00:00Z
""")["agreements"]
    (agreed,) = agreements(parse_configuration(copy.deepcopy(GOOD) | {"providers": [aws]}, origin="shardwright.toml"))
    assert (agreed.provider, agreed.discount, agreed.instance_types) == ("aws", Decimal("0.28"), ("m7*",))
    assert agreed.until == datetime(2027, 1, 1, tzinfo=UTC)
    aws["agreements"][0]["discount"] = 1.2
    assert "providers.0.agreements.0.discount" in problems({"providers": [aws]})


def test_a_pool_boots_an_image_of_ones_own_or_the_built_in_one() -> None:
    raw = copy.deepcopy(GOOD)
    file = {"source": "https://images.example/d.raw", "sha256": "a" * 64}
    raw["images"] = [{"name": "shop", "disk": file, "ready": {"tcp_port": 80}}]
    raw["pools"][0]["image"] = "shop"
    image = parse_configuration(raw, origin="x").image_of(PoolId("web"))
    assert image is not None
    assert (image.name, image.ready.tcp_port, image.ready.seconds) == ("shop", 80, 90.0)
    assert parse_configuration(GOOD, origin="x").image_of(PoolId("web")) is None


def test_an_unknown_image_and_an_image_that_cannot_boot_are_refused() -> None:
    pools = [GOOD["pools"][0] | {"image": "shopp"}]
    assert "pools.0.image: unknown image 'shopp'; known: records" in problems({"pools": pools})
    image = {"name": "shop", "ready": {"tcp_port": 80}}
    assert "did you mean 'shop'" in problems({"pools": pools, "images": [image]})
    assert "images.0: Value error, give a kernel" in problems({"images": [image]})
    assert "images: 'shop' is there twice" in problems({"images": [image, image]})
