import json
from pathlib import Path

import pytest
from pydantic import SecretStr

from agent.config import AgentFile, MetadataFlavour, load
from engine.errors import ConfigurationError
from engine.model.capacity import Resources
from engine.model.ids import NodeId


@pytest.fixture
def file() -> AgentFile:
    return AgentFile(
        control_url="https://10.0.0.1:7000/", node=NodeId("n1"), join_token=SecretStr("s3cret-token"),
        control_ca_pem="PEM", capacity=Resources(vcpus=2, memory_gib=4), metadata_flavour=MetadataFlavour.GCP,
    )  # fmt: skip


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_what_is_written_can_be_loaded(tmp_path: Path, file: AgentFile) -> None:
    config = load(write(tmp_path / "agent.json", file.as_text()), {})
    assert config.join_token.get_secret_value() == "s3cret-token"
    assert config.work == tmp_path
    assert config.control_url == "https://10.0.0.1:7000"
    assert config.metadata_flavour is MetadataFlavour.GCP


def test_the_host_knows_its_address_better_than_the_file(tmp_path: Path, file: AgentFile) -> None:
    environment = {"SHARDWRIGHT_UNDERLAY_ADDRESS": "10.7.7.7", "SHARDWRIGHT_METADATA_URL": "http://127.0.0.1:1"}
    config = load(write(tmp_path / "agent.json", file.as_text()), environment)
    assert (config.underlay, config.metadata_url) == ("10.7.7.7", "http://127.0.0.1:1")


@pytest.mark.parametrize("endpoint", ["10.0.0.300:51820", "10.0.0.1:99999", "nodes.example:51820"])
def test_an_endpoint_that_is_none_is_refused_before_anybody_hears_of_it(
    tmp_path: Path, file: AgentFile, endpoint: str
) -> None:
    with pytest.raises(ConfigurationError, match=r"overlay_endpoint: .*ADDRESS:PORT"):
        load(write(tmp_path / "agent.json", file.as_text()), {"SHARDWRIGHT_OVERLAY_ENDPOINT": endpoint})


def test_without_an_address_the_way_to_the_control_plane_tells_it(tmp_path: Path, file: AgentFile) -> None:
    local = file.model_copy(update={"control_url": "https://127.0.0.1:1"})
    assert load(write(tmp_path / "agent.json", local.as_text()), {}).underlay == "127.0.0.1"


def test_a_file_that_others_can_read_is_refused(tmp_path: Path, file: AgentFile) -> None:
    with pytest.raises(ConfigurationError, match="chmod 600"):
        load(write(tmp_path / "agent.json", file.as_text(), 0o644), {})


def test_every_problem_is_named_and_no_value_is_shown(tmp_path: Path, file: AgentFile) -> None:
    broken = json.loads(file.as_text()) | {"node": "../etc", "control_url": "http://plain", "surprise": "s3cret-value"}
    with pytest.raises(ConfigurationError) as caught:
        load(write(tmp_path / "agent.json", json.dumps(broken)), {})
    text = str(caught.value)
    assert all(name in text for name in ("node", "control_url", "surprise"))
    assert "s3cret" not in text


def test_a_missing_file_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot read"):
        load(tmp_path / "none.json", {})


def test_the_token_is_not_shown_when_the_configuration_is_printed(file: AgentFile) -> None:
    assert "s3cret" not in repr(file)
    assert "s3cret" not in file.model_dump_json()
