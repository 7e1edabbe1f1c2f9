import copy
import os
import tomllib
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from engine.app.configured import agreements
from engine.config import Configuration, load_configuration, parse_configuration
from engine.config_secrets import without_passwords
from engine.errors import AuthenticationFailed, ConfigurationError, ExitCode
from engine.model.ids import PoolId
from tests.small_configuration import GOOD as SMALL

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


def test_a_workload_is_there_once_in_its_namespace() -> None:
    workload = {"namespace": "shop", "name": "web", "components": [{"name": "api", "pool": "web"}]}
    assert "workloads: 'shop/web' is there twice" in problems({"workloads": [workload, workload]})
    other = {**workload, "namespace": "lab"}
    assert [
        one.namespace for one in parse_configuration({**GOOD, "workloads": [workload, other]}, origin="f").workloads
    ]


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


@pytest.mark.parametrize("option", ["spot", "auction"])
def test_an_agreement_on_what_has_no_posted_price_is_refused(option: str) -> None:
    aws = copy.deepcopy(GOOD["providers"][0])
    aws["agreements"] = [{"discount": 0.28, "options": ["on_demand", option]}]
    assert f"options: {option} has no posted price to be discounted" in problems({"providers": [aws]})


def test_an_agreement_with_a_network_is_refused() -> None:
    """Its holds come at the price that it quotes itself, and none at another one is kept."""
    network = copy.deepcopy(GOOD["providers"][0]) | {"kind": "network", "endpoint": "https://network.example"}
    network["agreements"] = [{"discount": 0.28}]
    assert "agreements do not belong to kind 'network'" in problems({"providers": [network]})


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


def test_relative_paths_begin_at_the_files_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read from anywhere, the same file is the same installation: what it bought is not bought again."""
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setenv("HOME", str(home))
    file = tmp_path / "shardwright.toml"
    places = {
        'passphrase = { env = "PHRASE" }': 'passphrase = { file = "phrase" }\nstate_url = "file://./pulumi"',
        'credentials.access_key_id = { env = "KEY_ID" }': """
ca_file = "ca.pem"
attestation_keys = "keys.pem"
credentials = { access_key_id = { file = "~/id" }, secret_access_key = { file = "/run/secret" } }
[[providers]]
name = "gcp"
kind = "gcp"
account = "p"
regions = ["r"]
attestation_keys = "https://keys.example/certs"
""",
    }
    text = SMALL + '[state]\ndatabase_url = "sqlite:///data/control.sqlite"\n[forecast]\nusage = "../usage.csv"\n'
    for there, here in places.items():
        assert there in text
        text = text.replace(there, here)
    file.write_text(text)
    for folder, name in ((tmp_path, Path("shardwright.toml")), (elsewhere, Path("../shardwright.toml"))):
        monkeypatch.chdir(folder)
        found = load_configuration(name)
        aws, gcp = found.providers
        assert found.state.directory.is_absolute()
        assert {
            "state": found.state.directory.resolve(),
            "usage": found.forecast.usage and found.forecast.usage.resolve(),
            "phrase": found.pulumi.passphrase.file and found.pulumi.passphrase.file.resolve(),
            "ca": aws.ca_file and aws.ca_file.resolve(),
        } == {
            "state": tmp_path / ".shardwright",
            "usage": tmp_path.parent / "usage.csv",
            "phrase": tmp_path / "phrase",
            "ca": tmp_path / "ca.pem",
        }
        assert Path(found.database_url.removeprefix("sqlite:///")).resolve() == tmp_path / "data" / "control.sqlite"
        assert Path(str(found.pulumi.state_url).removeprefix("file://")).resolve() == tmp_path / "pulumi"
        assert Path(str(aws.attestation_keys)).resolve() == tmp_path / "keys.pem"
        assert gcp.attestation_keys == "https://keys.example/certs"
        assert aws.credentials["access_key_id"].file == home / "id"
        assert aws.credentials["secret_access_key"].file == Path("/run/secret")


def test_those_of_a_pipe_begin_at_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    reading, writing = os.pipe()
    os.write(writing, SMALL.encode())
    os.close(writing)
    found = load_configuration(Path(f"/dev/fd/{reading}"))
    os.close(reading)
    assert found.state.directory == tmp_path / ".shardwright"


def test_what_is_no_relative_path_stays_as_it_is(tmp_path: Path) -> None:
    raw = copy.deepcopy(GOOD) | {"state": {"database_url": "postgresql://db/x"}, "pulumi": {"state_url": "file:///s"}}
    found = parse_configuration(raw, origin="f").begun_at(tmp_path)
    assert (found.database_url, found.pulumi.state_url) == ("postgresql://db/x", "file:///s")
    assert found.begun_at(tmp_path / "other") == found
    assert found.workloads[0].components[0].model_fields_set == {"name", "pool"}


@pytest.mark.parametrize("text", ["control.example.com:7440", "192.0.2.1:1", "[2001:db8::1]:65535", "a_b.local:80"])
def test_nodes_are_told_a_host_and_a_port(text: str) -> None:
    raw = copy.deepcopy(GOOD) | {"control": {"advertise": text}}
    assert parse_configuration(raw, origin="f").control.advertise == text


@pytest.mark.parametrize(
    "text",
    [
        "control.example.com",
        "127.0.0.1",
        "https://host:7440",
        "host:",
        ":7440",
        "host:0",
        "host:65536",
        "host:http",
        "::1",
        "2001:db8::1:7440",
        "[host]:7440",
        "host:7440/path",
        "a b:7440",
        "",
    ],
)
def test_what_nodes_could_not_reach_is_refused(text: str) -> None:
    assert "control.advertise: Value error, must be HOST:PORT" in problems({"control": {"advertise": text}})


def test_there_is_one_currency_so_far() -> None:
    assert parse_configuration(GOOD | {"policy": {"currency": "USD"}}, origin="f").policy.currency == "USD"
    assert "policy.currency: Value error, must be USD" in problems({"policy": {"currency": "EUR"}})
    assert "policy.currency" in problems({"policy": {"currency": "usd"}})


@pytest.mark.parametrize(("content", "why"), [(b" \n", "it is empty"), (b"\xff\xfehunter2", "no text in UTF-8")])
def test_a_secret_file_without_a_secret_is_missing_credentials(tmp_path: Path, content: bytes, why: str) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content)
    providers = [GOOD["providers"][0] | {"credentials": {"access_key_id": {"file": str(file)}}}]
    configuration = parse_configuration(GOOD | {"providers": providers}, origin="f")
    with pytest.raises(AuthenticationFailed, match="access_key_id") as refused:
        configuration.provider_settings({})
    assert why in refused.value.why
    assert "hunter2" not in str(refused.value)


def test_a_region_that_nobody_is_configured_with_matches_nothing_and_is_refused() -> None:
    assert "policy.regions: unknown region 'us-est-1'; did you mean 'us-east-1'?" in problems(
        {"policy": {"regions": ["eu-west-1", "us-est-1"]}}
    )
    aws = GOOD["providers"][0] | {"agreements": [{"discount": "0.1", "regions": ["eu-wst-1"]}]}
    assert "providers.0.agreements.0.regions: unknown region 'eu-wst-1'; did you mean 'eu-west-1'?" in problems(
        {"providers": [aws]}
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql+psycopg://user:hunter2@db.example/x", "postgresql+psycopg://user:***@db.example/x"),
        ("postgresql://user:hun@ter/2@db/x", "postgresql://user:***@db/x"),
        ("postgresql://user@db/x?password=hunter2&sslmode=on", "postgresql://user@db/x?password=***&sslmode=on"),
        ("https://hunter2@git.example/agent.whl", "https://***@git.example/agent.whl"),
        ("agent @ git+https://me:hunter2@git.example/a", "agent @ git+https://me:***@git.example/a"),
        ("https://prom.example/q?access_token=hunter2", "https://prom.example/q?access_token=***"),
        ("postgresql://user@db.example:5432/x", "postgresql://user@db.example:5432/x"),
        ("http://127.0.0.1:9090/prometheus", "http://127.0.0.1:9090/prometheus"),
    ],
)
def test_urls_are_shown_without_what_they_sign_in_with(text: str, shown: str) -> None:
    assert without_passwords(text) == shown
